"""How the other servers are spoken to, byte by byte; the examples are worked out from each standard by hand."""

import pytest

from bench.drivers.frames import binary_client_frame, binary_server_frame
from bench.drivers.mqtt import ACCEPTED, CONNECT, Mqtt, MqttWebSocket, remaining_length
from bench.drivers.nats import Nats, NatsWebSocket
from bench.drivers.nchan import Nchan
from bench.drivers.redis import Redis, array
from bench.drivers.relay import Relay
from bench.drivers.sockbridge import AcknowledgedJson, QuietLines, RecoveringJson, SockbridgeSocketIo
from bench.drivers.socketio import SocketIo
from bench.drivers.wamp import Wamp
from twistedsock.bench.clients import MARK, Driver, payloads

DRIVERS: list[Driver] = [
    *(Nats(), NatsWebSocket(), Redis(), Mqtt(), MqttWebSocket(), SocketIo(), Relay("relay"), Wamp()),
    *(Nats(is_acknowledged=True), Nchan(), QuietLines(), AcknowledgedJson(), RecoveringJson()),
    SockbridgeSocketIo(),
]
MASK = bytes(4)


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.name)
@pytest.mark.parametrize("size", [11, 32, 120, 4096, 65_500])
def test_the_publishes_of_one_size_have_one_length(driver: Driver, size: int) -> None:
    """As the generator takes for granted."""
    assert len({len(frame) for frame in driver.publish(b"channel", payloads(1_001, size))}) == 1


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.name)
def test_each_delivery_holds_one_payload(driver: Driver) -> None:
    texts = payloads(3, 40)
    deliveries = driver.deliveries(b"channel", texts, 1)
    assert [delivery.count(MARK) for delivery in deliveries] == [1, 1, 1]
    assert all(text in delivery for text, delivery in zip(texts, deliveries, strict=True))


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.name)
def test_no_greeting_holds_a_mark(driver: Driver) -> None:
    steps = [*driver.greet("127.0.0.1:1"), *driver.prepare(), driver.subscribe(b"channel", 1)]
    assert not any(MARK in step.request + step.until for step in steps)


# RFC 6455, section 5.2: FIN and opcode 2; the mask bit; seven bits of length, or 126 and 16 bits.


def test_binary_frames() -> None:
    assert binary_client_frame(b"abc") == b"\x82\x83" + MASK + b"abc"
    assert binary_server_frame(b"abc") == b"\x82\x03abc"
    assert binary_server_frame(b"x" * 126)[:4] == b"\x82\x7e\x00\x7e"
    assert binary_client_frame(b"x" * 65_536)[:10] == b"\x82\xff" + (65_536).to_bytes(8, "big")


# The NATS client protocol.


def test_nats_over_tcp() -> None:
    nats = Nats()
    greeting = nats.greet("127.0.0.1:4222")
    assert greeting[0] == (b"", b"\r\n", b"INFO ")
    assert greeting[1].request.startswith(b'CONNECT {"verbose":false,')
    assert greeting[1].request.endswith(b"}\r\nPING\r\n")
    assert nats.subscribe(b"news", 9).request == b"SUB news 9\r\nPING\r\n"
    assert nats.publish(b"news", [b"Hello NATS!"]) == [b"PUB news 11\r\nHello NATS!\r\n"]
    assert nats.deliveries(b"news", [b"Hello NATS!"], 9) == [b"MSG news 9 11\r\nHello NATS!\r\n"]
    assert nats.replies(b"news", 3, 1) == b""


def test_nats_over_websocket_says_the_same_in_binary_messages() -> None:
    nats = NatsWebSocket()
    assert nats.publish(b"news", [b"Hello NATS!"]) == [b"\x82\x9a" + MASK + b"PUB news 11\r\nHello NATS!\r\n"]
    assert nats.subscribe(b"news", 1) == (b"\x82\x92" + MASK + b"SUB news 1\r\nPING\r\n", b"PONG\r\n", b"")
    assert not nats.is_predictable


def test_nats_acknowledges_if_it_is_verbose() -> None:
    nats = Nats(is_acknowledged=True)
    assert nats.greet("127.0.0.1:4222")[1].request.startswith(b'CONNECT {"verbose":true,')
    assert (nats.reply_mark, Nats().reply_mark) == (b"+OK", b"")


# RESP2.


def test_resp_arrays() -> None:
    assert array() == b"*0\r\n"
    assert array(b"hello", b"world") == b"*2\r\n$5\r\nhello\r\n$5\r\nworld\r\n"


def test_redis() -> None:
    redis = Redis()
    assert redis.publish(b"news", [b"hi"]) == [b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$2\r\nhi\r\n"]
    assert redis.deliveries(b"news", [b"hi"], 1) == [b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n"]
    assert redis.replies(b"news", 2, 30) == b":30\r\n:30\r\n"
    assert redis.subscribe(b"news", 2) == (
        b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n",
        b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:2\r\n",
        b"",
    )


# MQTT 3.1.1.


@pytest.mark.parametrize(
    ("size", "written"),
    [
        # Table 2.4 of the standard.
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xff\xff\x7f"),
        (2_097_152, b"\x80\x80\x80\x01"),
        (268_435_455, b"\xff\xff\xff\x7f"),
    ],
)
def test_remaining_length(size: int, written: bytes) -> None:
    assert remaining_length(size) == written


def test_mqtt_connects() -> None:
    assert CONNECT == b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
    assert ACCEPTED == b"\x20\x02\x00\x00"


def test_mqtt_over_tcp() -> None:
    mqtt = Mqtt()
    assert mqtt.subscribe(b"a/b", 10) == (b"\x82\x08\x00\x0a\x00\x03a/b\x00", b"\x90\x03\x00\x0a\x00", b"")
    assert mqtt.publish(b"a/b", [b"hi"]) == [b"\x30\x07\x00\x03a/bhi"]
    assert mqtt.deliveries(b"a/b", [b"hi"], 1) == [b"\x30\x07\x00\x03a/bhi"]
    assert mqtt.publish(b"a/b", [b"x" * 200])[0][:3] == b"\x30\xcd\x01"


def test_mqtt_over_websocket() -> None:
    mqtt = MqttWebSocket()
    upgrade, connect = mqtt.greet("127.0.0.1:8080")
    assert b"\r\nSec-WebSocket-Protocol: mqtt\r\n" in upgrade.request
    assert connect == (b"\x82\x8e" + MASK + CONNECT, ACCEPTED, b"")
    assert mqtt.publish(b"a/b", [b"hi"]) == [b"\x82\x89" + MASK + b"\x30\x07\x00\x03a/bhi"]
    assert mqtt.deliveries(b"a/b", [b"hi"], 1) == [b"\x82\x09\x30\x07\x00\x03a/bhi"]


# Socket.IO 5 in Engine.IO 4: packet 4 of the one holds packet 2 of the other.


def test_socketio() -> None:
    socketio = SocketIo()
    upgrade, connect = socketio.greet("127.0.0.1:3000")
    assert upgrade.request.startswith(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n")
    assert connect.request == b"\x81\x82" + MASK + b"40"
    assert socketio.subscribe(b"c", 7) == (b"\x81\x94" + MASK + b'427["subscribe","c"]', b"437[]", b"")
    assert socketio.publish(b"c", [b"hi"]) == [b"\x81\x96" + MASK + b'42["publish","c","hi"]']
    assert socketio.deliveries(b"c", [b"hi"], 1) == [b'\x81\x1442["event","c","hi"]']


# The relays of bench/relays.


def test_a_relay() -> None:
    relay = Relay("relay")
    assert relay.subscribe(b"c", 1) == (b"\x81\x91" + MASK + b'["subscribe","c"]', b'["subscribed","c"]', b"")
    assert relay.publish(b"c", [b"hi"]) == [b"\x81\x94" + MASK + b'["publish","c","hi"]']
    assert relay.deliveries(b"c", [b"hi"], 1) == [b'\x81\x12["event","c","hi"]']


# Nchan: HTTP to publish, WebSocket to subscribe. A connection keeps its channel.


def test_nchan() -> None:
    nchan = Nchan()
    assert nchan.subscribe(b"bench-1-00012", 1).request.startswith(b"GET /subscribe/00012 HTTP/1.1\r\n")
    assert nchan.subscribe(b"bench-2-00012", 2) == (b"", b"", b"")
    (request,) = nchan.publish(b"bench-2-00012", [b"hi"])
    assert request.startswith(b"POST /publish/00012 HTTP/1.1\r\n") and request.endswith(b"\r\n\r\nhi")
    assert nchan.deliveries(b"bench-2-00012", [b"hi"], 1) == [b"\x81\x02hi"]


# Variants of sockbridge's protocols.


def test_sockbridge_without_replies_and_with_ids() -> None:
    assert QuietLines().prepare()[-1] == (b"QUIET on\n", b"OK\n", b"")
    (frame,) = AcknowledgedJson().publish(b"c", [b"hi"])
    assert frame.endswith(b'{"type":"publish","id":100000,"channel":"c","data":"hi"}')


def test_sockbridge_continues_at_a_position() -> None:
    reply = b'\x81\x00{"type":"ok","id":1,"channel":"c","offset":17,"epoch":"5f2c"}'
    assert RecoveringJson().recover(b"c", reply).request.endswith(b',"since":17,"epoch":"5f2c"}')
    with pytest.raises(ValueError, match="no position"):
        RecoveringJson().recover(b"c", b"{}")


def test_sockbridge_over_socketio() -> None:
    socketio = SockbridgeSocketIo()
    assert socketio.subscribe(b"c", 7) == (b"\x81\x94" + MASK + b'427["subscribe","c"]', b"437[{", b"")
    assert socketio.publish(b"c", [b"hi"]) == SocketIo().publish(b"c", [b"hi"])
    (event,) = socketio.deliveries(b"c", [b"hi"], 1)
    assert event[2:].startswith(b'42["message","hi",{"channel":"c","offset":1,"time":')


# WAMP 2: HELLO is 1, PUBLISH 16, SUBSCRIBE 32, EVENT 36.


def test_wamp() -> None:
    wamp = Wamp()
    upgrade, hello = wamp.greet("127.0.0.1:8080")
    assert b"\r\nSec-WebSocket-Protocol: wamp.2.json\r\n" in upgrade.request
    assert hello.request == b"\x81\xb7" + MASK + b'[1,"realm1",{"roles":{"publisher":{},"subscriber":{}}}]'
    assert wamp.subscribe(b"c", 1).request == b"\x81\x8d" + MASK + b'[32,1,{},"c"]'
    assert wamp.publish(b"c", [b"hi", b"ho"]) == [
        b"\x81\x9c" + MASK + b'[16,        1,{},"c",["hi"]]',
        b"\x81\x9c" + MASK + b'[16,        2,{},"c",["ho"]]',
    ]
    assert not wamp.is_predictable
