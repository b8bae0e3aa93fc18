"""Pairs of a publisher and a reader, loaded by bench/pump.c: each event, or each burst of events, is one packet."""

import itertools
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.peers.process import NotStarted
from twistedsock.bench.clients import DeliveryError, Target, connect, payloads, perform
from twistedsock.bench.measurement import Measurement, ProcessUsage

SOURCE = Path(__file__).with_name("pump.c")

CYCLE = 1_024
"""Events of a publisher, after which it begins again with the first: enough to notice a lost or repeated event."""

SHORT = 0.1
"""Seconds of the load before the first measurement, which includes work that is done once."""

TIMEOUT_SECONDS = 120.0


def compiled(source: Path, folder: Path) -> Path:
    """Compile a C program. Raises NotStarted."""
    program = folder / source.stem
    command: list[str | Path] = ["cc", "-O2", "-o", program, source]
    if (done := subprocess.run(command, capture_output=True, text=True)).returncode:
        raise NotStarted(f"{source.name} cannot be compiled:\n{done.stderr}")
    return program


def missing_compiler() -> str:
    return "" if shutil.which("cc") else "there is no C compiler called cc"


class Pairs:
    """Connections that are open and subscribed. ``burst`` events are one packet."""

    def __init__(
        self,
        publishing: Target,
        reading: Target,
        count: int,
        size: int,
        burst: int,
        stack: ExitStack,
    ) -> None:
        self._burst = burst
        self._reply = publishing.driver.reply_mark
        self._size = size
        self._readers = connect(reading, count, stack)
        self._publishers = connect(publishing, count, stack)
        perform(self._publishers, publishing.driver.prepare())
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self._program = compiled(SOURCE, self._folder)
        # Each pair has payloads of its own, so that an event at the wrong reader is noticed.
        texts = payloads(count * CYCLE, size)
        (self._folder / "payloads").write_bytes(b"".join(texts))
        with (self._folder / "frames").open("wb") as file:
            for number, reader in enumerate(self._readers):
                channel = b"pairs-%05d" % number
                perform([reader], [reading.driver.subscribe(channel, 1)])
                frames = publishing.driver.publish(channel, texts[number * CYCLE : (number + 1) * CYCLE])
                self._frame_size = len(frames[0])
                file.write(b"".join(frames))

    def run(self, seconds: float, usage: ProcessUsage) -> Measurement:
        """Raises DeliveryError."""
        arguments: list[str | bytes | Path] = [
            *(self._program, self._folder / "frames", str(len(self._readers)), str(CYCLE), str(self._frame_size)),
            *(self._folder / "payloads", str(self._size), str(self._burst), str(seconds), self._reply),
        ]
        ends = [(one.fileno(), other.fileno()) for one, other in zip(self._publishers, self._readers, strict=True)]
        before = usage.cpu()
        done = subprocess.run(
            arguments,
            input="".join(f"{publisher} {reader}\n" for publisher, reader in ends),
            capture_output=True,
            text=True,
            pass_fds=list(itertools.chain(*ends)),
            timeout=TIMEOUT_SECONDS,
        )
        cpu = usage.cpu() - before
        if done.returncode:
            raise DeliveryError(done.stderr.strip() or f"{SOURCE.name} ended with {done.returncode}")
        deliveries, taken, busy = done.stdout.split()
        return Measurement(int(deliveries), float(taken), float(busy), cpu)
