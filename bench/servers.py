"""The servers that take part, in the order of measurement."""

from bench.bare import SendLoop
from bench.contestant import Contestant
from bench.peers.crossbar import Crossbar
from bench.peers.mosquitto import MosquittoServer
from bench.peers.nats import NatsServer
from bench.peers.redis import RedisServer
from bench.peers.sockbridge import Sockbridge
from bench.peers.socketio import SocketIoServer
from bench.peers.websockets import Websockets
from bench.peers.ws import Ws


def servers() -> list[Contestant]:
    return [
        Sockbridge(),
        NatsServer(),
        RedisServer(),
        MosquittoServer(),
        SocketIoServer(),
        Ws(),
        Websockets(),
        Crossbar(),
        SendLoop(),
    ]


OURS = "sockbridge"
