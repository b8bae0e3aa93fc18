"""What becomes of a fault of ours: it is logged once, with its traceback, and the peer hears ``internal``."""

from twisted.logger import Logger

_log = Logger()


def report_fault() -> None:
    """Log the exception that is being handled."""
    _log.failure("a command met a fault of this server")
