"""Protocols: bytes to commands, events and replies to bytes. Imports no Twisted and reads no clock."""
