"""Floor 2, the thin Twisted pieces: bytes in, codec, session, bytes out."""
