"""Real proxies, which run the configurations in examples/proxies/ on free ports and with the certificate of a test."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.documents import CHECKOUT
from tests.end_to_end.programs import Program, free_ports, path_of

FILES = CHECKOUT / "examples" / "proxies"


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with all changes, each of which must apply."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


class ProxyFolder:
    """Where a proxy has its configuration and its certificate. ``certificate`` is part of an endpoint string."""

    def __init__(self, path: Path, run: Callable[..., Program], certificate: str) -> None:
        self.path = path
        self._run = run
        key, cert = re.findall(r"=([^:]+)", certificate)
        self.key, self.certificate = path / "key.pem", path / "cert.pem"
        self.key.write_bytes(Path(key).read_bytes())
        self.certificate.write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())

    def nginx(self, configuration: Path, changes: Mapping[str, str]) -> "Proxy":
        page, lines = free_ports(2)
        folder = self.path
        bodies = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = replaced(
            configuration.read_text(),
            {
                **changes,
                "listen 443": f"listen 127.0.0.1:{page}",
                "listen 8443": f"listen 127.0.0.1:{lines}",
                "/etc/ssl/bridge.example.org.pem": str(self.certificate),
                "/etc/ssl/private/bridge.example.org.key": str(self.key),
                "/var/log/nginx/bridge.log": str(folder / "access-log"),
                # The test machine may have a lower limit of open files.
                "worker_rlimit_nofile 34000;": "",
                "worker_connections 16000;": "worker_connections 400;",
                "http {\n": "http {\n" + bodies,
            },
        )
        (folder / "nginx.conf").write_text(text)
        quiet = f"daemon off; pid {folder}/nginx.pid; error_log stderr;"
        return self.start(page, lines, "nginx", "-c", str(folder / "nginx.conf"), "-g", quiet)

    def haproxy(self, configuration: Path, changes: Mapping[str, str]) -> "Proxy":
        page, lines = free_ports(2)
        text = replaced(
            configuration.read_text(),
            {
                **changes,
                "bind :443": f"bind 127.0.0.1:{page}",
                "bind :8443": f"bind 127.0.0.1:{lines}",
                "/etc/ssl/private/bridge.example.org.pem": str(self.certificate),
                "maxconn 16000": "maxconn 200",
            },
        )
        (self.path / "haproxy.cfg").write_text(text)
        return self.start(page, lines, "haproxy", "-db", "-f", "haproxy.cfg")

    def start(self, page_port: int, lines_port: int, *command: str) -> "Proxy":
        """Run a proxy that is configured. ``lines_port`` is 0 if it forwards no lines."""
        environment = {**os.environ, "HOME": str(self.path)}
        program = self._run(path_of(command[0]), *command[1:], cwd=self.path, env=environment)
        program.listens(*filter(None, (page_port, lines_port)))  # nginx opens one after the other
        return Proxy(page_port, lines_port)


class Proxy:
    """A running proxy. Clients connect to ``page`` and ``lines``."""

    def __init__(self, page_port: int, lines_port: int) -> None:
        self.page, self.lines = f"https://127.0.0.1:{page_port}", f"127.0.0.1:{lines_port}"
        self.authority = f"127.0.0.1:{page_port}"
