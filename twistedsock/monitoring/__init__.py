"""What the bridge tells about itself, on channels that begin with ``$sys/``."""
