"""The Python client with real sockets: all addresses, broken connections, and a server that is killed."""

import asyncio
import re
import socket
import sys
import threading

import pytest

import sockbridge
import sockbridge.blocking
from sockbridge.values import Event, Lost, Report, Reset
from tests.authority import Authority
from tests.documents import DOCS, fenced
from tests.end_to_end.conftest import TCP, TLS, Starter
from tests.end_to_end.programs import TIMEOUT_SECONDS

pytestmark = pytest.mark.end_to_end

QUICKLY = {"first_delay": 0.01, "longest_delay": 0.05}

TWISTED_PROGRAM = """
import sys
import sockbridge.twisted
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

async def main(reactor, server, authorities, channel):
    received = Deferred()
    client = sockbridge.twisted.Client(reactor, server, authorities=authorities, nick="ann")
    client.subscribe(channel, received.callback)
    client.startService()
    print(await client.publish(channel, [21.5]), await client.members(channel))
    print((await received).data, len((await client.history(channel)).events))
    client.stopService()

react(lambda reactor: ensureDeferred(main(reactor, *sys.argv[1:])))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the servers. Their certificate is signed by the authority in it."""
    folder = tmp_path_factory.mktemp("servers")
    Authority(folder).issue("server", "localhost")
    return folder


@pytest.fixture(scope="module", params=["tcp", "tls", "unix", "ws", "wss"])
def address(request, folder):
    """The address of a server for each scheme."""
    scheme = request.param
    web = {"ws": TCP, "wss": TLS}.get(scheme, "none")
    lines = {"tcp": TCP, "tls": TLS, "unix": "unix:lines"}.get(scheme, "none")
    starter = Starter(folder)
    server = starter(tcp=(lines,), web=(web,))
    if scheme == "unix":
        yield f"unix://{folder}/lines"
    else:
        yield f"{scheme}://localhost:{server.line_port if web == 'none' else server.web_port}"
    starter.stop_all()


@pytest.fixture
def authorities(folder):
    return str(folder / "authority.pem")


def test_asyncio(address, authorities, channel):
    async def main():
        async with sockbridge.connect(address, authorities=authorities, nick="ann") as client:
            subscription = client.subscribe(channel, last=5)
            await subscription.ready()
            assert await client.publish(channel, {"celsius": 21.5}, name="reading") == 1
            assert await client.publish(channel, b"\x00") == 2
            first, second = [event async for event in first_of(subscription, 2)]
            assert (first.data, first.name, first.sender, second.data) == ({"celsius": 21.5}, "reading", "ann", b"\x00")
            assert client.positions == {channel: second.position}
            assert [member.nick for member in await client.members(channel)] == ["ann"]
            assert [event.data for event in (await client.history(channel, after=1)).events] == [b"\x00"]
            with pytest.raises(sockbridge.SockbridgeError, match="invalid channel"):
                await client.publish("kit*chen", 1)
            with pytest.raises(sockbridge.SockbridgeError, match="invalid channel"):
                await client.subscribe("kit*chen").ready()
            await subscription.unsubscribe()
            assert [event async for event in subscription] == []

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_SECONDS))


async def first_of(subscription, count):
    async for event in subscription:
        yield event
        count -= 1
        if not count:
            return


def test_blocking(address, authorities, channel):
    with sockbridge.blocking.connect(address, authorities=authorities, nick="ann") as client:
        subscription = client.subscribe(channel, last=5)
        assert client.publish(channel, [21.5], name="reading") == 1
        event = next(iter(subscription))
        assert (event.data, event.sender, subscription.position) == ([21.5], "ann", event.position)
        assert [member.nick for member in client.members(channel)] == ["ann"]
        assert len(client.history(channel, last=1).events) == 1
        assert list(subscription.reports(timeout=0.01)) == []
        subscription.unsubscribe()
        assert list(subscription) == []
        with pytest.raises(sockbridge.SockbridgeError, match="invalid channel"):
            next(iter(client.subscribe("kit*chen")))


def test_twisted(address, authorities, channel, run, tmp_path):
    (tmp_path / "program.py").write_text(TWISTED_PROGRAM)
    program = run(sys.executable, "program.py", address, authorities, channel)
    program.prints(r"^\[21\.5\] 1$")
    assert program.process.wait(TIMEOUT_SECONDS) == 0, program.output()
    assert "Member(id=" in program.output()


@pytest.mark.parametrize(("scheme", "connect"), [("ws", sockbridge.connect), ("tcp", sockbridge.blocking.connect)])
def test_hundred_broken_connections_lose_and_repeat_nothing(start, cutting_proxy, scheme, connect):
    """Events are published all the time, on a connection that is cut as well."""
    server = start()
    proxy = cutting_proxy(server.line_port if scheme == "tcp" else server.web_port)
    address = proxy.origin.replace("http", scheme)
    stopped = threading.Event()

    def publish():
        with sockbridge.blocking.connect(f"tcp://127.0.0.1:{server.line_port}") as client:
            number = 0
            while not stopped.is_set():
                number += 1
                assert client.publish("kitchen", number) == number
                stopped.wait(0.002)

    def check(event, seen):
        assert event.offset == event.data == seen + 1
        if event.offset % 5 == 0:
            proxy.cut()

    async def read():
        async with connect(address, **QUICKLY) as client:
            seen = 0
            async for event in client.subscribe("kitchen", last=1):
                check(event, seen if seen else event.offset - 1)
                seen = event.offset
                if seen >= 500:
                    return

    def read_blocking():
        with connect(address, **QUICKLY) as client:
            seen = 0
            for event in client.subscribe("kitchen", last=1):
                check(event, seen if seen else event.offset - 1)
                seen = event.offset
                if seen >= 500:
                    return

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        if connect is sockbridge.connect:
            asyncio.run(asyncio.wait_for(read(), 3 * TIMEOUT_SECONDS))
        else:
            read_blocking()
    finally:
        stopped.set()
        publisher.join()


def test_continues_after_kill_9_of_a_server_with_state(start):
    server = start("--state", "state")

    async def main():
        nonlocal server
        address = f"tcp://127.0.0.1:{server.line_port}"
        async with sockbridge.connect(address, **QUICKLY) as client:
            subscription = client.subscribe("kitchen")
            await subscription.ready()
            answered = []
            for number in range(3):
                answered.append(await client.publish("kitchen", number))
                server.kill()
                while client.state is sockbridge.State.OPEN:
                    await asyncio.sleep(0.01)
                server = start.again(server, "--state", "state")
            await client.publish("kitchen", "end")
            received: list[Report] = []
            async for report in subscription.reports():
                received.append(report)
                if isinstance(report, Event) and report.data == "end":
                    break
            events = [report for report in received if isinstance(report, Event)]
            assert not any(isinstance(report, Lost | Reset) for report in received)
            assert [event.data for event in events] == [0, 1, 2, "end"]
            assert [event.offset for event in events[:3]] == answered

    asyncio.run(asyncio.wait_for(main(), 3 * TIMEOUT_SECONDS))


def test_slow_program_leaves_its_events_on_the_server(server, channel, monkeypatch):
    """The client takes at most a few events more than it holds, and the rest when the program is ready for them."""
    monkeypatch.setattr("sockbridge.queue.MAX_REPORTS", 10)

    async def main():
        async with sockbridge.connect(f"tcp://127.0.0.1:{server.line_port}") as client:
            subscription = client.subscribe(channel)
            await subscription.ready()
            await asyncio.gather(*(client.publish(channel, number) for number in range(500)))
            seen = [event.data async for event in first_of(subscription, 500)]
            assert seen == list(range(500))

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_SECONDS))


@pytest.mark.parametrize("connect", [sockbridge.connect, sockbridge.blocking.connect])
def test_server_that_is_not_there_is_an_error_at_once(connect):
    async def open_it():
        async with connect("tcp://127.0.0.1:1"):
            pass

    with pytest.raises(sockbridge.SockbridgeError, match="refused|Connect call failed") as raised:
        if connect is sockbridge.connect:
            asyncio.run(open_it())
        else:
            connect("tcp://127.0.0.1:1").__enter__()
    assert raised.value.code == "unreachable"


def test_client_can_start_before_its_server(start):
    server = start()
    server.stop()

    async def main():
        async with sockbridge.connect(f"tcp://127.0.0.1:{server.line_port}", must_connect=False, **QUICKLY) as client:
            publishing = asyncio.create_task(client.publish("kitchen", 1))
            start.again(server)
            assert await publishing == 1

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_SECONDS))


def test_command_without_an_answer_times_out(start):
    server = start()
    server.stop()

    async def main():
        async with sockbridge.connect(
            f"tcp://127.0.0.1:{server.line_port}", must_connect=False, timeout=0.05
        ) as client:
            await client.publish("kitchen", 1)

    with pytest.raises(sockbridge.SockbridgeError, match="no answer in 0.05 seconds"):
        asyncio.run(main())


@pytest.fixture
def scripted(tmp_path):
    """Start a server that does with its connections what a function says, in a thread. Returns its address."""
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(TIMEOUT_SECONDS)
    listener.bind(str(tmp_path / "scripted"))
    listener.listen()

    def start(script):
        def serve():
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                connection.settimeout(TIMEOUT_SECONDS)
                connection.sendall(b"WELCOME sockbridge/1 id=a from=unix to=unix\n")
                script(connection, lines)

        threading.Thread(target=serve, daemon=True).start()
        return f"unix://{tmp_path}/scripted"

    yield start
    listener.close()


MANY = 8_000_000


def send_before_reading(connection, lines):
    """What a server does that has much to send to a client, and reads its commands when it is through."""
    lines.readline()  # the ping that selects JSON
    connection.recv(1)
    message = b'{"type":"later","data":"%s"}\n' % (b"x" * 10_000)
    connection.sendall(message * (MANY // len(message)))
    lines.readline()
    connection.sendall(b'{"type":"ok","id":1,"offset":1}\n')
    lines.readline()


def test_client_reads_while_the_server_does_not(scripted):
    async def main():
        async with sockbridge.connect(scripted(send_before_reading)) as client:
            assert await client.publish("kitchen", "x" * MANY) == 1

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_SECONDS))


def test_blocking_client_reads_while_the_server_does_not(scripted):
    with sockbridge.blocking.connect(scripted(send_before_reading), timeout=TIMEOUT_SECONDS) as client:
        assert client.publish("kitchen", "x" * MANY) == 1


def no_token():
    raise LookupError("the vault is locked")


def test_function_without_a_token_is_an_error_at_once(server):
    async def main():
        async with sockbridge.connect(f"tcp://127.0.0.1:{server.line_port}", token=no_token):
            pass

    for attempt in (
        lambda: asyncio.run(asyncio.wait_for(main(), TIMEOUT_SECONDS)),
        sockbridge.blocking.connect(f"tcp://127.0.0.1:{server.line_port}", token=no_token).__enter__,
    ):
        with pytest.raises(sockbridge.SockbridgeError, match="there is no token: the vault is locked") as raised:
            attempt()
        assert raised.value.code == "unreachable"


@pytest.mark.parametrize("blocking", [False, True])
def test_renewal_without_a_token_is_logged_and_the_client_continues(scripted, caplog, blocking):
    tokens = iter(["ann"])

    def token():
        return next(tokens, None) or no_token()

    def warn(connection, lines):
        lines.readline()
        connection.sendall(b'{"type":"ok","id":1,"nick":"ann"}\n')
        connection.sendall(b'{"type":"notice","text":"soon","code":"token-expires"}\n')
        lines.readline()
        connection.sendall(b'{"type":"ok","id":2,"offset":7}\n')
        lines.readline()

    async def main():
        async with sockbridge.connect(scripted(warn), token=token) as client:
            assert await client.publish("kitchen", 1) == 7

    if blocking:
        with sockbridge.blocking.connect(scripted(warn), token=token) as client:
            assert client.publish("kitchen", 1) == 7
    else:
        asyncio.run(asyncio.wait_for(main(), TIMEOUT_SECONDS))
    assert "the token was not renewed: there is no token: the vault is locked" in caplog.text


@pytest.mark.parametrize(
    ("start_of_program", "output"),
    [("import asyncio", "21.5"), ("import sockbridge.blocking", "21.5"), ("from twisted", "Event(")],
)
def test_documented_program_receives_its_event(server, run, tmp_path, start_of_program, output):
    programs = fenced(DOCS / "reference" / "python-client.md", "python")
    (text,) = [program for program in programs if program.startswith(start_of_program)]
    (tmp_path / "program.py").write_text(text.replace("127.0.0.1:8081", f"127.0.0.1:{server.line_port}"))
    program = run(sys.executable, "-u", "program.py")
    program.prints(re.escape(output))
    program.stop()
