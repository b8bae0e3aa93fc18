"""The OpenAPI document: it is valid and complete, and the running server conforms to it."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from twisted.internet.task import Clock

from twistedsock.codecs.http_bodies import MAX_BATCH_EVENTS
from twistedsock.codecs.problem_details import HTTP_STATUS
from twistedsock.codecs.query import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from twistedsock.errors import ErrorCode
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.names import CHANNEL_BYTES, EVENT_NAME_BYTES, NICK_BYTES
from twistedsock.server.http.admin import MAX_REASON_LENGTH
from twistedsock.server.http.routes import build_routes
from twistedsock.testing import FakeServer

pytestmark = pytest.mark.end_to_end

FILE = files("twistedsock") / "static" / "openapi.json"
DOCUMENT = json.loads(FILE.read_text())
COMPONENTS = DOCUMENT["components"]
METHODS = ("get", "post", "put", "delete", "patch", "head", "options", "trace")
OPERATIONS = [
    (path, method, item[method]) for path, item in DOCUMENT["paths"].items() for method in METHODS if method in item
]

HOOKS = Path(__file__).parent / "openapi_hooks.py"
EXAMPLES = 12
"""Of each kind for each operation: half a minute."""

STREAMS = ("openStream", "websocket")
"""They have no end, or are no HTTP."""


def resolved(node: Any) -> Any:
    while "$ref" in node:
        _, _, kind, name = node["$ref"].split("/")
        node = COMPONENTS[kind][name]
    return node


def test_document_is_valid():
    assert DOCUMENT["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_document_has_canonical_formatting():
    assert FILE.read_text() == json.dumps(DOCUMENT, indent=2, ensure_ascii=False) + "\n"


def test_document_has_exactly_the_routes_of_the_server():
    routes = build_routes(FakeServer().context, Clock(), lambda: [])
    routed = {(route.path, route.method.lower()) for route in routes}
    assert {(path, method) for path, method, _ in OPERATIONS} == routed | {("/openapi.json", "get")}


def test_document_states_which_routes_authenticate():
    authenticates = {
        (route.path, route.method.lower()): route.authenticates
        for route in build_routes(FakeServer().context, Clock(), lambda: [])
    }
    for path, method, operation in OPERATIONS:
        if path not in ("/ws", "/openapi.json"):
            assert (operation.get("security") != []) is authenticates[path, method], path
            assert ("401" in operation["responses"]) is authenticates[path, method], path


def examples() -> list[tuple[str, Any, Any]]:
    found = []
    for path, method, operation in OPERATIONS:
        where = f"{method} {path}"
        bodies = [resolved(response) for response in operation["responses"].values()]
        for body in [*bodies, *filter(None, [operation.get("requestBody")])]:
            found += [
                (where, media["schema"], media["example"])
                for media in body.get("content", {}).values()
                if "example" in media
            ]
        for parameter in map(resolved, operation.get("parameters", [])):
            if "example" in parameter:
                found.append((f"{where} {parameter['name']}", parameter["schema"], parameter["example"]))
    return found


@pytest.mark.parametrize("where, schema, example", examples())
def test_examples_match_their_schemas(where, schema, example):
    jsonschema_rs.validator_for({**schema, "components": COMPONENTS}).validate(example)


def test_every_component_is_used():
    text = FILE.read_text()
    for kind, components in COMPONENTS.items():
        for name in components if kind != "securitySchemes" else ():
            assert f'"#/components/{kind}/{name}"' in text, name


def test_limits_and_codes_are_those_of_the_server():
    schemas, parameters = COMPONENTS["schemas"], {name: resolved(one) for name, one in COMPONENTS["parameters"].items()}
    assert schemas["Code"]["enum"] == [code.value.decode() for code in ErrorCode]
    assert schemas["Channel"]["maxLength"] == CHANNEL_BYTES
    assert parameters["name"]["schema"]["maxLength"] == EVENT_NAME_BYTES
    assert parameters["nick"]["schema"]["maxLength"] == NICK_BYTES
    limit = parameters["limit"]["schema"]
    assert (limit["maximum"], limit["default"]) == (MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE)
    assert schemas["Batch"]["properties"]["events"]["maxItems"] == MAX_BATCH_EVENTS
    [reason] = DOCUMENT["paths"]["/peers/{id}"]["delete"]["parameters"]
    assert reason["schema"]["maxLength"] == MAX_REASON_LENGTH
    publish = DOCUMENT["paths"]["/channels/{channel}/events"]["post"]
    assert f"{Limits().max_message_bytes:,} bytes" in publish["description"]
    statuses = {
        resolved(one)["content"]["application/problem+json"]["example"]["status"]
        for one in COMPONENTS["responses"].values()
    }
    assert set(HTTP_STATUS.values()) - {500} <= statuses


def test_server_conforms_to_the_document(server, line_client, tmp_path, environment):
    peer = line_client(server.lines[0])
    peer.request("SUB kitchen")
    checked = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", server.page + "openapi.json"),
            *("--checks=all", "--phases=examples,coverage,fuzzing", "--seed=1", f"--max-examples={EXAMPLES}"),
            *("--continue-on-failure", "--request-timeout=10", "--warnings=off", "--no-color"),
            *(f"--exclude-operation-id={name}" for name in STREAMS),
        ],
        cwd=tmp_path,
        env={**environment, "SCHEMATHESIS_HOOKS": str(HOOKS), "PEER": peer.id},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
