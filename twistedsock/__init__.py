"""sockbridge: anything that can open a socket talks to anything that runs in a browser.

The floors, lowest first; a module imports only from floors below its own:

0. ``core``       the rules: channels, events, sessions, limits. No bytes of a dialect, no clock, no reactor.
1. ``wire``       sans-I/O: bytes to commands, replies and events to bytes.
2. ``backplane``  how events get their order and reach other processes; ``shells``: the thin Twisted pieces;
   ``access``: keys, tokens and the policy that says who may do what.
3. ``service``    builds broker, backplane and listeners; starts, drains and stops them.
4. ``tap``        the options of ``twistd sockbridge``; ``operating``: what the command ``sockbridge`` does beside it.
"""
