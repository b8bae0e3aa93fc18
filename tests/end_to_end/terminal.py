"""A program in a terminal of its own, as if a person used it."""

import codecs
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time


class Terminal:
    """``size`` is the number of columns and lines, if the program needs to know it."""

    def __init__(self, *command, size=None, **how):
        self._here, self._there = os.openpty()
        # Without the echo, all output comes from the other side.
        mode = termios.tcgetattr(self._there)
        mode[3] &= ~termios.ECHO
        termios.tcsetattr(self._there, termios.TCSANOW, mode)
        if size:
            self.resize(*size)
        streams = {"stdin": self._there, "stdout": self._there, "stderr": self._there}
        self.process = subprocess.Popen(["setsid", "--ctty", *command], **streams, **how)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._seen = ""

    def resize(self, columns, lines):
        fcntl.ioctl(self._there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def mode(self):
        """The settings of the terminal: a program that changes them must restore them at its end."""
        return termios.tcgetattr(self._there)

    def type(self, text):
        os.write(self._here, text.encode())

    def sees(self, pattern, patience=20.0):
        """Wait until it appears. What precedes it is skipped."""
        deadline = time.monotonic() + patience
        while not (found := re.search(pattern, self._seen)):
            has_ended = self.process.poll() is not None
            remaining = 0 if has_ended else max(0, deadline - time.monotonic())
            assert select.select([self._here], [], [], remaining)[0], (pattern, self._seen)
            self._seen += self._decoder.decode(os.read(self._here, 65536)).replace("\r\n", "\n")
        self._seen = self._seen[found.end() :]
        return found

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._here)
        os.close(self._there)
