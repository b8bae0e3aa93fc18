"""The command `sockbridge`."""
