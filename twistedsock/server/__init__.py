"""Sockets: listeners, connections and transports on Twisted and Autobahn."""
