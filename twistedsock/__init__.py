"""sockbridge: a publish-subscribe server that connects anything that can open a socket with anything that runs in a
browser.

``service.SockbridgeService`` is the server, ``testing`` an in-memory one for tests. docs/explanation/architecture.md
describes the packages and their layers.
"""
