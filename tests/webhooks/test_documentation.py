"""The documentation of webhooks shows the options, bodies and headers of this version."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.documents import DOCS, fenced
from twistedsock.config import read_settings
from twistedsock.pubsub.values import JSON, Batch, Member, Payloads
from twistedsock.webhooks.config import EVENT_KINDS, WebhookTable
from twistedsock.webhooks.payload import encode_body, encode_change, encode_dropped, encode_published
from twistedsock.webhooks.presence import Change

PAGE = DOCS / "how-to" / "webhooks.md"


def test_table_lists_all_options_and_their_defaults() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Options")[2].partition("## ")[0]
    shown = dict(re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", section, re.MULTILINE))
    fields = {field.encode_name: field for field in msgspec.structs.fields(WebhookTable)}
    assert set(shown) == set(fields)
    for name, field in fields.items():
        if isinstance(field.default, (int, float)):
            assert float(shown[name].strip("`")) == field.default, name
    assert json.loads(shown["channels"].strip("`")) == list(fields["channels"].default)
    assert all(f"`{kind}`" in section for kind in EVENT_KINDS)


def test_configuration_example_is_valid(tmp_path: Path) -> None:
    (text,) = fenced(PAGE, "toml")
    file = tmp_path / "sockbridge.toml"
    file.write_text(text)
    assert read_settings(str(file), {}).webhook[0].title == "127.0.0.1:9000"


def rewritten(event: dict[str, Any]) -> bytes:
    """The event as the server encodes it."""
    channel, time = event.get("channel", "").encode(), event["time"]
    if event["type"] == "dropped":
        return encode_dropped(event["count"], event["since"], time)
    if event["type"] == "event-published":
        texts = {name: event[name].encode() for name in ("epoch", "from", "name")}
        payload = json.dumps(event["data"]).encode()
        payloads, offset = Payloads([payload], 1, JSON), event["offset"]
        batch = Batch(offset, offset + 1, b"id", texts["from"], texts["name"], payloads, round(time * 1000))
        return next(encode_published(channel, texts["epoch"], batch))
    member_json = event.get("member")
    member = None if member_json is None else Member(member_json["id"].encode(), member_json["nick"].encode())
    return encode_change(Change(event["type"], channel, member, 0.0, time))


def test_body_example_is_encoded_by_the_server() -> None:
    (text,) = fenced(PAGE, "json")
    shown = json.loads(text)
    body = encode_body(shown["webhook"], shown["delivery"], shown["sent"], map(rewritten, shown["events"]))
    assert json.dumps(json.loads(body)) == json.dumps(shown)


@pytest.mark.parametrize("name", ["Sockbridge-Delivery", "Sockbridge-Signature-256", "User-Agent", "Content-Type"])
def test_headers_are_documented(name: str) -> None:
    assert f"| `{name}" in PAGE.read_text(encoding="utf-8")
