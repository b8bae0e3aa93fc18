"""The servers that take part, in the order of measurement."""

from bench.bare import Floor, SendLoop
from bench.contestant import Contestant
from bench.peers.bun import Bun
from bench.peers.crossbar import Crossbar
from bench.peers.mosquitto import MosquittoServer
from bench.peers.nats import DEBIAN_NATS_SERVER, NatsServer
from bench.peers.nchan import NchanServer
from bench.peers.redis import RedisServer
from bench.peers.sockbridge import Sockbridge
from bench.peers.socketio import SocketIoServer
from bench.peers.websockets import Websockets
from bench.peers.ws import Ws


def servers() -> list[Contestant]:
    return [
        Sockbridge(),
        Sockbridge("--state", "state", name="sockbridge-state"),
        Sockbridge("--workers", "2", name="sockbridge-workers"),
        NatsServer(),
        NatsServer("nats-debian", DEBIAN_NATS_SERVER),
        RedisServer(),
        MosquittoServer(),
        Bun(),
        NchanServer(),
        SocketIoServer(),
        Ws(),
        Websockets(),
        Crossbar(),
        Floor(),
        SendLoop(),
    ]


OURS = "sockbridge"
