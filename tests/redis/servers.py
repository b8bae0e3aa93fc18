"""Real servers: Redis of this machine, on a Unix socket in a directory."""

import contextlib
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from twistedsock.redis.resp import Call, Conversation, RedisError

START_SECONDS = 10.0


class RedisServer:
    """A server with its files in ``directory``. ``program`` is its executable file."""

    def __init__(self, directory: Path, *options: str, program: str = "redis-server") -> None:
        self.path = str(directory / "redis.sock")
        self.directory = directory
        self._command = [
            program,
            *("--port", "0", "--unixsocket", self.path, "--dir", str(directory), "--save", "", "--loglevel", "warning"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("PING")
                return
            except RedisError as error:
                if str(error).startswith("NOAUTH"):  # it has a password
                    return
                if not str(error).startswith("LOADING"):
                    raise
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.kill()
                    raise
            time.sleep(0.01)

    def ask(self, *words: str | bytes | int) -> Any:
        """The reply to a command, on a connection of its own."""
        replies: list[Any] = []
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            connection.connect(self.path)
            conversation = Conversation(connection.sendall, lambda topic, message: None, replies.append)
            conversation.send([Call((b"HELLO", 3), lambda reply: None), Call(parts, replies.append)])
            while not replies:
                data = connection.recv(65536)
                if not data:
                    raise ConnectionError("the server has closed the connection")
                conversation.receive(data)
        if isinstance(replies[0], RedisError):
            raise replies[0]
        return replies[0]

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        Path(self.path).unlink(missing_ok=True)

    def shut_down(self) -> None:
        """Save its data, and end it."""
        assert self._process is not None
        with contextlib.suppress(OSError):
            self.ask("SHUTDOWN", "SAVE")
        self._process.wait()
        Path(self.path).unlink(missing_ok=True)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
