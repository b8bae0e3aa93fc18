"""Every decoder reads every option of a publication. An option that is added to ``Publication`` needs a value here, and
input with that value for each decoder."""

import pytest
from msgspec.structs import replace

from twistedsock.codecs import json_decoder
from twistedsock.codecs.http_bodies import read_batch
from twistedsock.codecs.line_decoder import LINE_DECODER
from twistedsock.codecs.payload import build_payloads
from twistedsock.pubsub.values import BYTES, JSON, TEXT, Publication

OPTIONS = {"name": b"alarm"}
PLAIN = Publication(b"kitchen", build_payloads((b"smoke",), TEXT))
DECODED = {
    "lines": LINE_DECODER.decode(b"EMIT kitchen alarm smoke"),
    "JSON": json_decoder.decode(b'{"type":"publish","channel":"kitchen","data":"smoke","name":"alarm"}'),
    "HTTP": read_batch(b'{"events":[{"channel":"kitchen","data":"smoke","name":"alarm"}]}', b"", 100)[0],
}

BYTES_DECODED = {
    "lines": LINE_DECODER.decode(b"EMITBIN kitchen alarm /9g="),
    "JSON": json_decoder.decode(b'{"type":"publish","channel":"kitchen","base64":"/9g=","name":"alarm"}'),
    "HTTP": read_batch(b'{"events":[{"channel":"kitchen","base64":"/9g=","name":"alarm"}]}', b"", 100)[0],
}


def test_all_options_have_a_value() -> None:
    """Except the key, which lines do not have and which is a header of HTTP requests, and their fingerprint."""
    assert set(Publication.__struct_fields__) == {"channel", "payloads", "key", "fingerprint", *OPTIONS}


@pytest.mark.parametrize("decoded", DECODED.values(), ids=DECODED.keys())
def test_decodes_all_options(decoded: object) -> None:
    assert isinstance(decoded, Publication)
    assert (decoded.channel, decoded.payloads) == (PLAIN.channel, PLAIN.payloads)
    assert {option: getattr(decoded, option) for option in OPTIONS} == OPTIONS


@pytest.mark.parametrize("decoded", BYTES_DECODED.values(), ids=BYTES_DECODED.keys())
def test_decodes_all_options_of_bytes(decoded: object) -> None:
    assert isinstance(decoded, Publication)
    assert (decoded.channel, decoded.payloads) == (b"kitchen", build_payloads((b"\xff\xd8",), BYTES))
    assert {option: getattr(decoded, option) for option in OPTIONS} == OPTIONS


@pytest.mark.parametrize(
    "changes",
    [
        *({option: value} for option, value in OPTIONS.items()),
        {"channel": b"attic"},
        {"payloads": build_payloads((b"[1]",), JSON)},
        {"payloads": build_payloads((b"smoke",), BYTES)},
    ],
)
def test_joins_publications_only_if_all_options_are_equal(changes: dict[str, object]) -> None:
    other = replace(PLAIN, **changes)
    assert not PLAIN.can_join(other) and other.can_join(other)


def test_joins_no_publication_with_a_key() -> None:
    keyed = replace(PLAIN, key=b"1")
    assert not any(first.can_join(second) for first, second in ((keyed, keyed), (keyed, PLAIN), (PLAIN, keyed)))


def test_joined_publication_keeps_options() -> None:
    first = replace(PLAIN, **OPTIONS)
    joined = first.joined([replace(first, payloads=build_payloads(("é".encode(), b"x"), TEXT))])
    assert joined == replace(first, payloads=build_payloads((b"smoke", "é".encode(), b"x"), TEXT))
