"""The compiled functions return what their twins in Python return, for any input."""

import gc
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.compiled import built
from tests.fuzz.grammars import FRAMES, PLAIN, SAME, TEXTS, frame
from tests.fuzz.properties import holds
from twistedsock import speedups
from twistedsock.codecs import json_encoder  # noqa: F401  (loads the modules that have the twins)

NAMES = ["join_numbered", "join_numbered_frames", "scan_frames", "texts_between"]


def both(name: str, *arguments: Any) -> Any:
    """What both twins return, which is the same."""
    expected = speedups.TWINS[name](*arguments)
    assert getattr(built(), name)(*arguments) == expected
    return expected


def test_each_function_has_a_twin() -> None:
    assert [name for name in dir(built()) if not name.startswith("_")] == NAMES
    assert {*NAMES} <= {*speedups.TWINS}


@holds(
    data=FRAMES | st.binary() | PLAIN | SAME,
    position=st.just(0) | st.integers(0, 2_000),
    max_bytes=st.sampled_from([0, 1, 125, 130, 512, 65_536]),
)
def test_scan_frames(data: bytes, position: int, max_bytes: int) -> None:
    """Plain frames are found alike in any bytes, from any position, and with any limit."""
    both("scan_frames", data, position % (len(data) + 1), max_bytes)


def test_frames_of_all_sizes_and_every_cut() -> None:
    for size in (*range(20), 124, 125, 126, 127, 128, 300, 65_534, 65_535, 65_536):
        data = frame(0x81, bytes(byte & 0x7F for byte in range(256)) * (size // 256 + 1))
        data = frame(0x81, b"x") + frame(0x81, (b"01234567" * 8_193)[:size]) + data
        cuts = range(len(data)) if size < 1_000 else [*range(20), *range(size, size + 20)]
        for end in cuts:
            both("scan_frames", data[:end], 0, 65_535)
        for max_bytes in (size - 1, size):
            both("scan_frames", data, 7, max(0, max_bytes))


EDGES = bytes([0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF])
"""Both sides of each border in the table of RFC 3629 section 4."""


def test_utf8_is_checked_alike() -> None:
    """All first bytes, with each kind of byte after them, and all ends."""
    found = 0
    for first in range(256):
        for second in EDGES:
            for rest in (b"", b"\x80", b"\xbf\x80", b"\x80\xc0", b"\xbf\xbf\xbf", b"x"):
                text = bytes((first, second)) + rest
                found += len(both("scan_frames", frame(0x81, text), 0, 100)[0])
        both("scan_frames", frame(0x81, b"12345678" + bytes((first,))), 0, 100)
    assert found == 986


PREFIXES = st.sampled_from([b'"', b'{"type":"publish","channel":"a","data":"', b'{"data": "'])
SUFFIXES = st.sampled_from([b'"', b'"}', b'","channel":"a"}', b'"  }'])
ITEMS = TEXTS.map(str.encode) | st.sampled_from([b"21.5", b"", b"x" * 70, b'"}', b'{"data":"']) | st.binary(max_size=3)


def messages_of(prefix: bytes, suffix: bytes, items: list[bytes], others: list[Any], place: int) -> Any:
    messages: list[Any] = [prefix + item + suffix for item in items]
    position = place % (len(messages) + 1)
    return [messages[:position] + others + messages[position:], prefix, suffix]


@holds(
    arguments=st.builds(
        messages_of,
        PREFIXES,
        SUFFIXES,
        st.lists(ITEMS, max_size=5) | st.lists(st.sampled_from([b"21.5", b"x"]), max_size=5),
        st.lists(st.none() | st.binary(max_size=3) | PREFIXES | SUFFIXES, max_size=1) | st.just([]),
        st.integers(0, 5),
    )
)
def test_texts_between(arguments: list[Any]) -> None:
    """The texts of similar messages are found alike, whatever stands in and between them."""
    both("texts_between", *arguments)


def test_each_character_of_a_text_is_judged_alike() -> None:
    plain = [byte for byte in range(256) if both("texts_between", [b'"%c"' % byte], b'"', b'"')]
    assert len(plain) == 0x7F - 0x20 - 2


PART = st.sampled_from([b"", b"MSG a%b%% ", b"%", b"\xc3\xa9", b"y" * 60]) | st.binary(max_size=3)
LONG = st.sampled_from([b"x" * 90, b"x" * 124, b"x" * 65_500, b"x" * 65_536])
FIRST = st.sampled_from([0, 1, 9, 98, 999, 10**6 - 1, 2**53 - 5, 10**19 - 2, 2**64 - 1]) | st.integers(0, 2**64 - 1)


@holds(
    name=st.sampled_from(["join_numbered", "join_numbered_frames"]),
    before=PART,
    first=FIRST,
    after=PART,
    payloads=st.lists(PART | LONG, max_size=4)
    | st.tuples(PART, PART)
    | st.integers(0, 1_200).map(lambda n: [b"x"] * n),
    end=PART,
)
def test_join_numbered(name: str, before: bytes, first: int, after: bytes, payloads: list[bytes], end: bytes) -> None:
    """Numbered messages are the same bytes, with any numbers, payloads and lengths."""
    both(name, before, first, after, payloads, end)


WRONG: list[tuple[str, list[Any], type[Exception]]] = [
    *((name, [], TypeError) for name in NAMES),
    ("scan_frames", ["", 0, 0], TypeError),
    ("scan_frames", [b"", None, 0], TypeError),
    ("scan_frames", [b"", 0, None], TypeError),
    ("scan_frames", [b"x", 2, 9], ValueError),
    ("scan_frames", [b"x", -1, 9], ValueError),
    ("texts_between", [0, b"", b""], TypeError),
    ("texts_between", [[], 0, b""], TypeError),
    ("texts_between", [[], b"", 0], TypeError),
    ("join_numbered", [0, 0, b"", [], b""], TypeError),
    ("join_numbered", [b"", 0, 0, [], b""], TypeError),
    ("join_numbered", [b"", 0, b"", [], 0], TypeError),
    ("join_numbered", [b"", 0, b"", 0, b""], TypeError),
    ("join_numbered", [b"", 0, b"", [b"x", "x"], b""], TypeError),
    ("join_numbered", [b"", "0", b"", [], b""], TypeError),
    ("join_numbered", [b"", -1, b"", [], b""], OverflowError),
    ("join_numbered_frames", [b"", 2**64, b"", [], b""], OverflowError),
]


@pytest.mark.parametrize(("name", "arguments", "error"), WRONG)
def test_wrong_arguments_raise_an_error(name: str, arguments: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        getattr(built(), name)(*arguments)


def all_ways() -> None:
    """Through each function in each way, with new objects."""
    scan, texts, join = built().scan_frames, built().texts_between, built().join_numbered_frames
    for payload in (b"%d" % 1234, "é".encode(), b"\xff", b"x" * 200):
        scan(frame(0x81, b"12345") + frame(0x81, payload), 0, 150)
        texts([b'"%b"' % payload] * 3, b'"', b'"')
        join(b"%d" % 12345, 99_999, b"%d" % 23456, [payload] * 3, b"end")
    texts([b'"a"', None], b'"', b'"')
    for name, arguments, error in WRONG:
        with pytest.raises(error):
            getattr(built(), name)(*arguments)


def test_nothing_is_leaked() -> None:
    all_ways()
    gc.collect()  # pytest.raises makes cycles
    before = sys.getallocatedblocks()
    for _ in range(100):
        all_ways()
    gc.collect()
    assert sys.getallocatedblocks() - before < 100


@pytest.mark.parametrize(("switch", "is_compiled"), [("", True), ("0", True), ("1", False), ("yes", False)])
def test_variable_switches_the_module_off(switch: str, is_compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "twistedsock._speed", built())
    assert speedups.load(switch) is (built() if is_compiled else None)


def test_digest_is_that_of_the_source() -> None:
    """After a change of ``_speed.c``, write the new digest to speedups.py."""
    assert built()._source_digest == speedups.SOURCE_DIGEST


@pytest.mark.parametrize("digest", [None, "0" * 64], ids=["none", "other"])
def test_build_of_another_source_is_not_used(digest: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "twistedsock._speed", ModuleType("_speed"))
    if digest is not None:
        monkeypatch.setattr(sys.modules["twistedsock._speed"], "_source_digest", digest, raising=False)
    assert speedups.load("") is None


def test_missing_module_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "twistedsock._speed", None)
    assert speedups.load("") is None


def twin() -> None: ...


@pytest.mark.parametrize("has_twin", [True, False])
def test_a_function_is_replaced_if_the_module_has_one_of_its_name(
    has_twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: Callable[[], None] = importlib.import_module  # type: ignore[assignment]
    monkeypatch.setattr(speedups, "TWINS", {})
    monkeypatch.setattr(speedups, "_speed", type("Module", (), {"twin": other} if has_twin else {}))
    assert speedups.compiled(twin) is (other if has_twin else twin)
    assert speedups.TWINS == {"twin": twin}
