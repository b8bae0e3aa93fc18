"""Floor 2: how events get their order and reach the other processes."""
