"""Channels: publish and subscribe, order, history, delivery. Imports no Twisted and reads no clock."""
