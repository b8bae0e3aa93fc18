"""A chat server that serves all clients at once with one thread: it sends the data of each client to all.

python3 examples/sockets/event_driven.py 9001
"""

import selectors
import socket
import sys

selector = selectors.DefaultSelector()  # epoll on Linux, kqueue on the BSDs
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
selector.register(server, selectors.EVENT_READ)
print("listening on port", server.getsockname()[1], flush=True)
while True:
    for key, _ in selector.select():  # the only line that waits
        if key.fileobj is server:
            connection, address = server.accept()
            selector.register(connection, selectors.EVENT_READ)
        elif data := key.fileobj.recv(1024):
            for other in list(selector.get_map().values()):
                if other.fileobj is not server:
                    other.fileobj.sendall(data)
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
