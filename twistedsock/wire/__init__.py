"""Floor 1, sans-I/O: bytes become commands, replies and events become bytes. No reactor, no clock, no log."""
