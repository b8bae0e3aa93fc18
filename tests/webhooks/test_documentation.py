"""What the page about webhooks shows is so."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from twistedsock.config import read_settings
from twistedsock.pubsub.values import JSON, Batch, Member, Payloads
from twistedsock.webhooks.config import KINDS, WebhookTable
from twistedsock.webhooks.payload import write_body, write_change, write_dropped, write_published
from twistedsock.webhooks.presence import Change

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "webhooks.md").read_text(encoding="utf-8")


def fenced(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_table_of_options_is_complete_and_has_the_true_defaults():
    section = PAGE.partition("## Options")[2].partition("## ")[0]
    shown = dict(re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", section, re.MULTILINE))
    fields = {field.encode_name: field for field in msgspec.structs.fields(WebhookTable)}
    assert set(shown) == set(fields)
    for name, field in fields.items():
        if isinstance(field.default, (int, float)):
            assert float(shown[name].strip("`")) == field.default, name
    assert json.loads(shown["channels"].strip("`")) == list(fields["channels"].default)
    assert all(f"`{kind}`" in section for kind in KINDS)


def test_the_file_of_options_can_be_read(tmp_path):
    (text,) = fenced("toml")
    file = tmp_path / "sockbridge.toml"
    file.write_text(text)
    assert read_settings(str(file), {}).webhook[0].title == "127.0.0.1:9000"


def rewritten(event):
    """The same, as the bridge writes it."""
    channel, time = event.get("channel", "").encode(), event["time"]
    if event["type"] == "dropped":
        return write_dropped(event["count"], event["since"], time)
    if event["type"] == "event-published":
        texts = {name: event[name].encode() for name in ("epoch", "from", "name")}
        payload = json.dumps(event["data"]).encode()
        batch = Batch(
            event["offset"], event["offset"] + 1, b"id", texts["from"], texts["name"], Payloads([payload], 1, JSON)
        )
        return next(write_published(channel, texts["epoch"], batch, time))
    told = event.get("member")
    member = None if told is None else Member(told["id"].encode(), told["nick"].encode())
    return write_change(Change(event["type"], channel, member, 0.0, time))


def test_the_body_that_is_shown_is_one_of_ours():
    (text,) = fenced("json")
    shown = json.loads(text)
    body = write_body(shown["webhook"], shown["delivery"], shown["sent"], map(rewritten, shown["events"]))
    assert json.dumps(json.loads(body)) == json.dumps(shown)


@pytest.mark.parametrize("name", ["Sockbridge-Delivery", "Sockbridge-Signature-256", "User-Agent", "Content-Type"])
def test_the_headers_are_told(name):
    assert f"| `{name}" in PAGE
