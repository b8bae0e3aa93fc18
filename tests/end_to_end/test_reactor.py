"""The bridge serves under its own reactor as it does under Twisted's."""

import re

import pytest

pytestmark = pytest.mark.end_to_end


def test_lines_and_pages_meet_under_our_reactor(start, call, browse):
    bridge = start(twistd=("--reactor=sockbridge",))
    assert re.search(r"reactor class: twistedsock\.server\.reactor\.\w+\.$", bridge.log(), re.MULTILINE)
    typist, browser = call(bridge.lines[0]), browse(bridge.page)
    assert browser.ask(type="subscribe", id=1, channel="kitchen")["type"] == "ok"
    assert typist.ask("PUB kitchen the bread is ready") == "OK 1"
    assert browser.hear()["data"] == "the bread is ready"
    typist.send(b"PUB kitchen to the end\n")
    assert typist.hear() == "OK 2"
    typist.close()
    assert browser.hear()["data"] == "to the end"


def test_many_come_and_go_under_our_reactor(start, call):
    """Hang-ups, half-closes and what they leave behind; the end of the test looks for faults in the log."""
    bridge = start(twistd=("--reactor=sockbridge",))
    for round_ in range(1, 4):
        clients = [call(bridge.lines[0]) for _ in range(20)]
        assert {client.ask("SUB hall").split()[1] for client in clients} == {"hall"}
        clients[0].say("PUB hall hello")
        assert all(client.hear_until("MSG")[-1].endswith(" hello") for client in clients), round_
        for client in clients:
            client.close()
