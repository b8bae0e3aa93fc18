"""Each step has a sentence that teaches what the socket goes through."""

import re
from pathlib import Path

import pytest

from twistedsock.metrics.timelines import step_description
from twistedsock.session.timeline import Step

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step(0.0, "accepted"), "SYN, SYN-ACK, ACK"),
        (Step(0.0, "proxied"), "PROXY header"),
        (Step(0.0, "handshake", "TLS"), "ciphertext"),
        (Step(0.0, "handshake", "WebSocket"), "101"),
        (Step(0.0, "handshake", "events"), "stream of events"),
        (Step(0.0, "open"), "welcome"),
        (Step(0.0, "authenticated", "ann"), "who it is: ann."),
        (
            Step(0.0, "behind", "kitchen from 17"),
            "instead of a queue, the bridge keeps one number for it (kitchen from 17)",
        ),
        (Step(0.0, "caught-up", "kitchen"), "from the channel's log (kitchen)"),
        (Step(0.0, "lost", "kitchen 17 to 30"), "(kitchen 17 to 30)"),
        (Step(0.0, "closing", "QUIT", "peer"), "The peer has finished (QUIT)"),
        (Step(0.0, "closing", "{0}", "server"), "The bridge said its last words ({0})"),
        (Step(0.0, "closed", "cleanly"), "TIME-WAIT"),
        (Step(0.0, "closed", "broken"), "reset (RST), or did not answer"),
        (Step(0.0, "closed", "aborted"), "cut the connection off"),
        (Step(0.0, "closed"), "over"),
    ],
)
def test_a_step_is_explained(step: Step, words: str) -> None:
    told = step_description(step)
    assert words in told
    assert told.endswith(".") and len(told) < 260


def test_a_unix_socket_has_no_packets() -> None:
    assert "Unix" in step_description(Step(0.0, "accepted"), over_unix=True)
    assert "Unix" not in step_description(Step(0.0, "open"), over_unix=True)


def test_what_is_not_known_is_not_explained() -> None:
    assert step_description(Step(0.0, "danced")) == ""


def test_every_step_that_is_noted_has_its_lesson() -> None:
    noted = {
        name
        for file in (CHECKOUT / "twistedsock").rglob("*.py")
        for name in re.findall(r"""\b(?:add_step|Step)\((?:[^"()]*, )?"([a-z-]+)\"""", file.read_text())
    }
    assert {"accepted", "open", "behind", "closed"} <= noted
    special = {"handshake": Step(0.0, "handshake", "TLS"), "closing": Step(0.0, "closing", by="server")}
    assert all(step_description(special.get(name, Step(0.0, name))) for name in noted), noted
