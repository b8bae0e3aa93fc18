"""A chat for Socket.IO clients: `twistd -ny chat.tac`, then `io('http://127.0.0.1:8082')` in a page or in Node.js."""

from twisted.application import service

from twistedsock import make_service
from twistedsock.socketio import ConnectionRefused, SocketIO

sio = SocketIO()


@sio.on("connect")
def connect(socket, auth):
    if not auth.get("nick"):
        raise ConnectionRefused("nick required")
    socket.data = auth["nick"]
    socket.join("lobby")
    sio.emit("joined", socket.data, room="lobby", skip=socket)


@sio.on("say")
def say(socket, text):
    sio.emit("said", socket.data, text, room="lobby")
    return "ok"


@sio.on("disconnect")
def disconnect(socket, reason):
    sio.emit("left", socket.data, reason)


application = service.Application("chat")
make_service({"tcp": "none", "web": "tcp:8082:interface=127.0.0.1"}, socketio=sio).setServiceParent(application)
