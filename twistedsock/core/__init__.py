"""Floor 0, the rules. Nothing here knows a dialect, reads a clock, draws a random number or writes a log."""
