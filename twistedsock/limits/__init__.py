"""Limits on connections, rates and memory. Imports no Twisted and reads no clock."""
