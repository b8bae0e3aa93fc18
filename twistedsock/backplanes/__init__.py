"""Implementations of the backplane, which orders events."""
