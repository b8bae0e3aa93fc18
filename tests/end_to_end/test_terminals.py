"""The real telnet and nc."""

import re
import subprocess

import pytest

from tests.end_to_end.terminal import Terminal

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def telnet(server):
    host, port = server.lines[0].split(":")
    terminal = Terminal("telnet", host, port)
    terminal.sees(r"WELCOME sockbridge/1 id=\w+ from=127\.0\.0\.1:\d+ to=" + re.escape(server.lines[0]) + "\n")
    yield terminal
    terminal.close()


def test_telnet_subscribes_publishes_and_quits(telnet, channel):
    telnet.type(f"SUB {channel}\n")
    telnet.sees(rf"OK {channel} offset=0 epoch=\w+\n")
    telnet.type(f"PUB {channel} 21.5\n")
    telnet.sees(rf"OK 1\nMSG {channel} 1 \w+ 21\.5\n")
    telnet.type("HELP PUB\n")
    telnet.sees(r"INFO .*PUB .*\n(INFO .*\n)*OK\n")
    telnet.type("QUIT\n")
    telnet.sees(r"BYE\n")
    telnet.process.wait(20)
    telnet.sees("Connection closed by foreign host")


def test_telnet_interrupt_explains_quit_and_the_connection_stays_open(telnet, channel):
    telnet.type("\x03")
    telnet.sees(r"NOTICE type QUIT to leave\n")
    telnet.type("PING still here\n")
    telnet.sees(r"PONG still here\n")
    telnet.type("\x03\x03")
    telnet.sees(r"NOTICE type QUIT to leave\n")
    telnet.type(f"PUB {channel} after\n")
    telnet.sees(r"OK 1\n")


def test_telnet_sends_utf8_and_receives_no_terminal_escapes(telnet, line_client, server, channel):
    other = line_client(server.lines[0])
    other.request(f"SUB {channel}")
    telnet.type(f"SUB {channel}\n")
    telnet.sees(r"OK .*\n")
    telnet.type(f"PUB {channel} 21,5 °C ☀\n")
    assert other.receive().endswith(" 21,5 °C ☀")
    telnet.sees("☀\n")
    other.send(f"PUB {channel} \x1b[2J\x1b]0;gone\x07")
    telnet.sees(rf"MSG {channel} 2 \w+ \"\\u001b\[2J\\u001b\]0;gone\\u0007\"\n")


@pytest.fixture
def listener(line_client, server, channel):
    """A line client that has subscribed to the channel of the test."""
    client = line_client(server.lines[0])
    assert client.request(f"SUB {channel}").startswith("OK ")
    return client


def nc(server, *options, **how):
    return subprocess.Popen(
        ["nc", *options, *server.lines[0].split(":")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how
    )


@pytest.mark.parametrize("option", ["-N", "-q1"])
def test_nc_publishes_prints_the_reply_and_ends(server, listener, channel, option):
    process = nc(server, option)
    out, _ = process.communicate(f"PUB {channel} 21.5\n".encode(), 20)
    welcome, answer, *rest = out.decode().splitlines()
    assert welcome.startswith("WELCOME ")
    assert answer == "OK 1"
    assert rest == ["BYE"]
    assert listener.receive().endswith(" 21.5")


def test_nc_ends_after_quit(server, listener, channel):
    process = nc(server)
    out, _ = process.communicate(f"PUB {channel} 21.5\nQUIT\n".encode(), 20)
    assert out.decode().splitlines()[1:] == ["OK 1", "BYE"]
    assert listener.receive().endswith(" 21.5")


def test_an_event_arrives_although_nc_is_killed_after_it(server, listener, channel):
    """Repeated, because it is a race: the lines are read before or after the connection is found broken."""
    for number in range(1, 11):
        process = nc(server)
        process.stdout.readline()  # the welcome: nc is connected, and sends its next input in one piece
        process.stdin.write(f"PING {number}\nPUB {channel} {number}\n".encode())
        process.stdin.flush()
        process.stdout.readline()  # the first reply; the other replies may be on their way
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()
    heard = [listener.receive().split()[-1] for _ in range(10)]
    assert sorted(heard, key=int) == [str(number) for number in range(1, 11)]


def test_the_shell_command_of_the_readme_publishes_an_event(server, listener, channel):
    address = server.lines[0].replace(":", " ")
    subprocess.run(
        f"for n in 1 2 3 4 5; do printf 'PUB {channel} %d\\n' $n | nc -N {address} >/dev/null; done",
        shell=True,
        check=True,
        timeout=20,
    )
    assert [listener.receive().split()[-1] for _ in range(5)] == ["1", "2", "3", "4", "5"]
