"""Which processes of this machine listen at an address, as Linux tells it."""

import os
import re
import socket
import sys
from pathlib import Path

LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp: TCP_LISTEN."""

PROC = Path("/proc")


def listening(address: tuple[str, int], proc: Path = PROC) -> tuple[int, ...]:
    """The processes that listen on this literal address, or on all addresses, at this port; as far as we may know."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(address, proc)}
    found = []
    for folder in proc.glob("[0-9]*"):
        # The first process may hold sockets for others, which it starts when somebody connects.
        if folder.name != "1" and sockets and _holds(folder / "fd", sockets):
            found.append(int(folder.name))
    return tuple(sorted(found))


def _inodes(address: tuple[str, int], proc: Path) -> set[str]:
    host, port = address
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local, _, number = fields[1].partition(":")
            if fields[3] == LISTEN and int(number, 16) == port and _decoded(local) in (host, "0.0.0.0", "::"):
                inodes.add(fields[9])
    return inodes


def _decoded(words: str) -> str:
    """An address as /proc/net/tcp writes it: words of 32 bits in the byte order of this machine."""
    data = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in re.findall(".{8}", words))
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def _holds(descriptors: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(each) in sockets for each in descriptors.iterdir())
    except OSError:
        return False  # it has ended, or is somebody else's
