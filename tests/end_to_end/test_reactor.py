"""The bridge serves under its own reactor as it does under Twisted's."""

import re

import pytest

pytestmark = pytest.mark.end_to_end


def test_lines_and_pages_meet_under_our_reactor(start, line_client, web_client):
    server = start(twistd=("--reactor=sockbridge",))
    assert re.search(r"reactor class: twistedsock\.server\.reactor\.\w+\.$", server.log(), re.MULTILINE)
    typist, browser = line_client(server.lines[0]), web_client(server.page)
    assert browser.request(type="subscribe", id=1, channel="kitchen")["type"] == "ok"
    assert typist.request("PUB kitchen the bread is ready") == "OK 1"
    assert browser.receive()["data"] == "the bread is ready"
    typist.send_bytes(b"PUB kitchen to the end\n")
    assert typist.receive() == "OK 2"
    typist.close()
    assert browser.receive()["data"] == "to the end"


def test_many_come_and_go_under_our_reactor(start, line_client):
    """Hang-ups, half-closes and what they leave behind; the end of the test looks for faults in the log."""
    server = start(twistd=("--reactor=sockbridge",))
    for round_ in range(1, 4):
        clients = [line_client(server.lines[0]) for _ in range(20)]
        assert {client.request("SUB hall").split()[1] for client in clients} == {"hall"}
        clients[0].send("PUB hall hello")
        assert all(client.receive_until("MSG")[-1].endswith(" hello") for client in clients), round_
        for client in clients:
            client.close()
