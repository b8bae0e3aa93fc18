"""What HELP says. Each line begins with one whole example, as people copy before they read."""

_LINES = {
    b"SUB": [b"SUB kitchen last=5", b"read a channel, here with its last 5 events first"],
    b"PUB": [b"PUB kitchen 21.5", b"publish a text, or JSON, to everybody who reads the channel"],
    b"EMIT": [b"EMIT kitchen alarm smoke", b"publish an event with a name of its own"],
    b"UNSUB": [b"UNSUB kitchen", b"read it no longer"],
    b"HIST": [b"HIST kitchen last=10", b"show what was published"],
    b"WHO": [b"WHO kitchen", b"show who reads the channel"],
    b"NICK": [b"NICK ann", b"call yourself ann"],
    b"AUTH": [b"AUTH eyJhbGciOi...", b"show a token, where the server asks for one"],
    b"QUIET": [b"QUIET on", b"answer PUB and EMIT only when they fail; QUIET off answers again"],
    b"PING": [b"PING hello", b"is answered PONG hello"],
    b"INFO": [b"INFO", b"show who and where you are"],
    b"HELP": [b"HELP SUB", b"show how one command is used"],
    b"QUIT": [b"QUIT", b"leave"],
}

_OPTIONS = {
    b"SUB": [
        b"SUB kitchen since=12 epoch=5f2c1a   go on after event 12; the OK of an earlier SUB told the epoch",
        b"SUB kitchen presence=on             tell who comes and goes, by JOIN and LEAVE",
        b"SUB kitchen echo=off                leave out what you publish yourself",
    ],
    b"PUB": [
        b'PUB kitchen {"celsius": 21.5}       what begins with { [ or " and parses is JSON, all else is text',
    ],
    b"HIST": [b"HIST kitchen since=12               only what came after event 12"],
}

HELP: dict[bytes, list[bytes]] = {b"": [b"%b   %b" % (example.ljust(24), text) for example, text in _LINES.values()]}
"""Verb, or nothing, to the lines that HELP says about it."""
HELP.update(
    {
        verb: [b"%b   %b" % (example.ljust(33), text), *_OPTIONS.get(verb, ())]
        for verb, (example, text) in _LINES.items()
    }
)
