"""TLS: protocol versions, certificates that are replaced without a restart, client certificates; and SIGHUP."""

import os
import pty
import re
import signal
import ssl
import subprocess
import sys

import pytest
from cryptography import x509

from tests.authority import Authority
from tests.documents import DOCS, fenced
from tests.end_to_end.conftest import TCP, TLS, unverified_tls

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def authority(tmp_path):
    """A certificate authority in the directory of the server."""
    authority = Authority(tmp_path)
    authority.issue("server", "localhost")
    return authority


def serial_of(client):
    return x509.load_der_x509_certificate(client.socket.getpeercert(True)).serial_number


def test_new_certificate_is_used_for_new_connections(start, line_client, web_client, authority, tmp_path, reload):
    """The server changes to another directory after the start."""
    old = authority.issue("server", "localhost")
    (tmp_path / "bridge.toml").write_text("history-age = 60\n")
    server = start("--config", "bridge.toml", tcp=(TLS,), web=(TLS,), twistd=("--rundir=/",))
    typist, browser = line_client(server.lines[0], True), web_client(server.page)
    assert serial_of(typist) == serial_of(browser) == old
    typist.request("SUB kitchen")
    browser.request(type="subscribe", id=1, channel="kitchen")

    def reaches_all(publisher, number):
        assert publisher.request(f"PUB kitchen {number}") == f"OK {number}"
        assert typist.receive().startswith(f"MSG kitchen {number} ")
        assert browser.receive()["offset"] == number

    new = authority.issue("server", "localhost")
    reload(server, f"reloaded: configuration, certificate {tmp_path}/server.pem (until ")
    for newcomer in (line_client(server.lines[0], True), web_client(server.page)):
        assert serial_of(newcomer) == new != old
    reaches_all(line_client(server.lines[0], True), 1)

    (tmp_path / "server.pem").write_text("not yet")
    words = f"certificate of {TLS} unchanged: no certificate in {tmp_path}/server.pem"
    assert reload(server, "reloaded: configuration").count(words) == 2
    publisher = line_client(server.lines[0], True)
    assert serial_of(publisher) == new
    reaches_all(publisher, 2)

    (tmp_path / "bridge.toml").write_text("tcp = [")
    reload(server, f"reload failed, configuration unchanged: {tmp_path}/bridge.toml is not valid TOML")
    (tmp_path / "bridge.toml").write_text("max-line-bytes = 1000\nhistory-age = 61\n")
    reload(server, "restart required to change: history-age, max-line-bytes")
    reaches_all(publisher, 3)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "welcome"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
def test_rejects_old_protocol_versions(start, open_socket, authority, version, welcome):
    server = start(tcp=(TLS,), web=(TLS,))
    for address in (server.lines[0], server.authority):
        context = unverified_tls()
        # OpenSSL offers old versions only with a low security level.
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        if welcome:
            assert open_socket(address, context).version() == version.name.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
                open_socket(address, context)


def test_requires_client_certificate_of_the_authority(start, line_client, web_client, open_socket, authority, tmp_path):
    Authority(tmp_path, "stranger").issue("foreign", "ann")
    authority.issue("ann", "ann")
    (tmp_path / "bridge.toml").write_text(
        '[access]\nanonymous = { ">" = "rw" }\n'
        f'[[access.listener]]\nendpoint = "{TLS}"\nclient-ca = "authority.pem"\n'
    )
    server = start("--config", "bridge.toml", tcp=(TLS,), web=(TCP,))
    for name in ("", "foreign"):
        # With TLS 1.3, the alert arrives after the client has finished the handshake.
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            open_socket(server.lines[0], authority.tls_of(name)).recv(100)
    ann = line_client(server.lines[0], authority.tls_of("ann"))
    assert ann.request("PUB kitchen 21.5") == "OK 1"
    bystander = web_client(server.page)
    assert bystander.request(type="history", id=1, channel="kitchen")["events"][0]["data"] == "21.5"


def test_plain_text_at_a_tls_port_is_rejected(start, line_client, open_socket, authority):
    server = start(tcp=(TLS,), web=("none",))
    silent, babbler = open_socket(server.lines[0]), open_socket(server.lines[0])
    babbler.sendall(b"SUB kitchen\n")
    assert babbler.recv(100)[:1] in (b"", b"\x15")  # an alert
    assert line_client(server.lines[0], True).request("PING") == "PONG"
    silent.close()


def test_daemon_reloads_as_soon_as_its_parent_has_exited(start_daemon, tmp_path, eventually, authority, line_client):
    """Paths are relative to the directory in which it was started."""
    (tmp_path / "bridge.toml").write_text("max-line-bytes = 1000\n")
    daemon = start_daemon("--config", "bridge.toml", "--tcp", TLS, twistd=("--rundir=/",))
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.logs(f"reloaded: configuration, certificate {re.escape(str(tmp_path))}/server.pem")
    peer = line_client(daemon.logs(r"lines over TLS on (\S+):")[1], True)
    assert peer.request("PING") == "PONG"
    peer.close()
    os.kill(daemon.pid, signal.SIGTERM)
    eventually(daemon.has_ended, "the end of the daemon")


@pytest.mark.parametrize(("launcher", "survives"), [([], False), (["nohup"], True)])
def test_server_stops_when_its_terminal_closes(
    twistd, environment, tmp_path, eventually, line_client, launcher, survives
):
    """The kernel sends SIGHUP when a terminal closes."""
    log = tmp_path / "bridge.log"
    command = [*launcher, twistd, "-n", "--pidfile=", f"--logfile={log}", "sockbridge", "--tcp", TCP, "--web", "none"]
    ours, theirs = pty.openpty()
    # A process in a new session with this terminal. It may inherit that SIGHUP is ignored.
    begin = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    begin += f" os.login_tty({theirs}); os.execvp(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", begin, *command], cwd=tmp_path, env=environment, pass_fds=[theirs]
    )
    os.close(theirs)
    try:
        eventually(lambda: log.exists() and "telnet" in log.read_text(), "the start")
        address = log.read_text().split("lines on ")[1].split(":")
        peer = line_client(":".join(address[:2]))
        os.close(ours)
        if survives:
            eventually(lambda: "reloaded: configuration" in log.read_text(), "the signal")
            assert peer.request("PING") == "PONG"
            process.terminate()
        assert peer.receive_rest() == ["NOTICE the server is going away", "BYE"]
        peer.close()
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def test_commands_of_the_documentation_work(start, tmp_path, shell):
    """Certificates for server and client, created and used with the commands of docs/how-to/tls.md."""
    page = DOCS / "how-to" / "tls.md"
    blocks = [block for block in fenced(page, "sh") if block.startswith("openssl ")]
    assert len(blocks) == 2
    for block in blocks:
        shell(block, check=True)
    own, of_clients = (
        f"ssl:0:interface=127.0.0.1{more}:privateKey=key.pem:certKey=cert.pem" for more in ("", ":backlog=9")
    )
    (tmp_path / "bridge.toml").write_text(
        '[access]\nanonymous = { ">" = "rw" }\n'
        f'[[access.listener]]\nendpoint = "{of_clients}"\nclient-ca = "ca.pem"\n'
    )
    server = start("--config", "bridge.toml", tcp=(own, of_clients), web=("none",))
    commands = re.findall(r"`(openssl s_client -quiet -[^`]*127.0.0.1:8443[^`]*)`", page.read_text())
    assert len(commands) == 2
    for command, address in zip(commands, server.lines, strict=True):
        shown = shell("(echo PING; echo QUIT; cat) | " + command.replace("127.0.0.1:8443", address))
        assert shown.stdout.splitlines()[1:] == ["PONG", "BYE"], shown
