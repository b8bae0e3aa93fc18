"""A fault of ours is logged once, with its traceback."""

from twisted.logger import LogLevel, formatEvent

from twistedsock.server.connection import log_exception


def test_logs_exception_with_its_traceback(logged):
    try:
        raise ZeroDivisionError("of ours")
    except ZeroDivisionError:
        log_exception()
    (event,) = logged
    logged.clear()
    assert event["log_level"] is LogLevel.critical
    assert formatEvent(event) == "internal error while a command was processed"
    assert event["log_failure"].check(ZeroDivisionError)
    assert "test_faults" in event["log_failure"].getTraceback()
