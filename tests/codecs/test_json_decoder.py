"""JSON messages, decoded to commands."""

import json
from base64 import b64encode
from time import process_time
from typing import Any

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.fuzz.grammars import MESSAGES, SOUND
from tests.fuzz.properties import holds, reject_constant, split_publications
from tests.fuzz.replies import KINDS
from twistedsock.codecs.json_decoder import JSON_LINE_DECODER, decode, decode_alike, decode_binary
from twistedsock.codecs.payload import BAD_BASE64, UNPAIRED_SURROGATE, build_payloads
from twistedsock.codecs.times import parse_moment
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.values import BYTES, JSON, TEXT
from twistedsock.session.commands import (
    Auth,
    Command,
    Info,
    InvalidCommand,
    ListChannels,
    Nick,
    Ping,
    Publish,
    ReadHistory,
    Subscribe,
    Unsubscribe,
    Who,
)
from twistedsock.session.history_query import HistoryQuery, Moment

MAX_OFFSET = 9007199254740991


def published(
    channel: bytes, payload: bytes, is_json: bool, name: bytes = b"message", tag: bytes | None = None
) -> Publish:
    """A publication of one payload."""
    return Publish(channel, build_payloads((payload,), JSON if is_json else TEXT), name, tags=(tag,))


def published_bytes(channel: bytes, payload: bytes, name: bytes = b"message", tag: bytes | None = None) -> Publish:
    return Publish(channel, build_payloads((payload,), BYTES), name, tags=(tag,))


RIGHT: dict[str, Command] = {
    '{"type":"subscribe","id":1,"channel":"kitchen","last":5}': Subscribe(b"kitchen", last=5, tag=b"1"),
    '{"type":"subscribe","channel":"a","since":12,"epoch":"5f"}': Subscribe(b"a", since=12, epoch=b"5f"),
    '{"type":"subscribe","channel":"a","presence":true,"echo":false}': Subscribe(b"a", presence=True, echo=False),
    '{"type":"subscribe","channel":"a","presence":false,"echo":true}': Subscribe(b"a"),
    '{"type":"subscribe","channel":"a","last":9007199254740991}': Subscribe(b"a", last=MAX_OFFSET),
    '{"type":"subscribe","channel":"k\\u00fcche"}': Subscribe("küche".encode()),
    '{"type":"subscribe","channel":""}': Subscribe(b""),
    '{"type":"unsubscribe","id":2,"channel":"a"}': Unsubscribe(b"a", b"2"),
    '{"type":"publish","id":3,"channel":"a","data":21.5}': published(b"a", b"21.5", True, tag=b"3"),
    '{"type":"publish","channel":"a","data":"x"}': published(b"a", b"x", False),
    '{"type":"publish","channel":"a","data":""}': published(b"a", b"", False),
    '{"type":"publish","channel":"a","data": "x" }': published(b"a", b"x", False),
    '{"type":"publish","channel":"a","data":"a\\nb\\u0041\\"\\\\\\ud83d\\ude00"}': published(
        b"a", 'a\nbA"\\😀'.encode(), False
    ),
    '{"type":"publish","channel":"a","data":"😀"}': published(b"a", "😀".encode(), False),
    '{"type":"publish","channel":"a","data":null}': published(b"a", b"null", True),
    '{"type":"publish","channel":"a","data":{ "b" :[1,  2.0e1] }}': published(b"a", b'{ "b" :[1,  2.0e1] }', True),
    '{"type":"publish","channel":"a","data":1e999999}': published(b"a", b"1e999999", True),
    '{"type":"publish","channel":"a","data":{"a":1,"a":2}}': published(b"a", b'{"a":1,"a":2}', True),
    '{"type":"publish","channel":"a","data":1,"name":"alarm"}': published(b"a", b"1", True, b"alarm"),
    '{"type":"publish","channel":"a","data":1,"name":"message"}': published(b"a", b"1", True),
    '{"type":"publish","channel":"a","data":1,"key":"7c1f 4e~"}': replace(published(b"a", b"1", True), key=b"7c1f 4e~"),
    '{"type":"publish","channel":"a","data":"x","key":"7"}': replace(published(b"a", b"x", False), key=b"7"),
    '{"type":"publish","channel":"a","base64":"","key":"7"}': replace(published_bytes(b"a", b""), key=b"7"),
    '{"type":"who","channel":"a","key":7}': Who(b"a"),
    '{"type":"publish","channel":"a","base64":"3q2+7w=="}': published_bytes(b"a", b"\xde\xad\xbe\xef"),
    '{"type":"publish","id":1,"channel":"a","base64":"\\/9g\\u003d"}': published_bytes(b"a", b"\xff\xd8", tag=b"1"),
    '{"type":"publish","channel":"a","base64":"","name":"alarm"}': published_bytes(b"a", b"", b"alarm"),
    '{"type":"history","id":4,"channel":"a"}': ReadHistory(b"a", tag=b"4"),
    '{"type":"history","channel":"a","last":10,"since":0}': ReadHistory(b"a", HistoryQuery(10, 0)),
    '{"type":"history","channel":"a","after":12,"before":20}': ReadHistory(b"a", HistoryQuery(after=12, before=20)),
    '{"type":"history","channel":"a","after":"-1h"}': ReadHistory(
        b"a", HistoryQuery(after=Moment(-3_600_000, is_relative=True))
    ),
    '{"type":"history","channel":"a","before":"1970-01-01T00:00:01.5Z"}': ReadHistory(
        b"a", HistoryQuery(before=Moment(1_500))
    ),
    '{"type":"who","id":5,"channel":"a"}': Who(b"a", b"5"),
    '{"type":"list","id":5}': ListChannels(b"", b"", b"5"),
    '{"type":"list","prefix":"s/","after":"s/1"}': ListChannels(b"s/", b"s/1"),
    '{"type":"nick","id":6,"nick":"ann"}': Nick(b"ann", b"6"),
    '{"type":"auth","id":9,"token":"a.b.c"}': Auth(b"a.b.c", b"9"),
    '{"type":"ping","id":7}': Ping(b"", b"7"),
    '{"type":"info","id":8}': Info(b"8"),
    '{"type":"ping"}': Ping(),
    ' \r\n\t{ "type" : "ping" } \n': Ping(),
    '{"type":"p\\u0069ng"}': Ping(),
    '{"id":1,"type":"ping","id":2}': Ping(b"", b"2"),
    '{"type":"info","type":"ping"}': Ping(),
}


@pytest.mark.parametrize(("message", "command"), RIGHT.items(), ids=repr)
def test_decodes_valid_message(message: str, command: Command) -> None:
    assert decode(message.encode()) == command


@pytest.mark.parametrize(
    "id", ["0", "1", "-1", "-0", '""', '"x"', '"a\\n\\u0041"', '"é😀"', "9" * 1000, "-12345678901234567890"]
)
def test_keeps_id_as_written(id: str) -> None:
    assert decode(f'{{"type":"ping","id": {id} }}'.encode()) == Ping(b"", id.encode())


def mistake(message: str | bytes) -> InvalidCommand:
    command = decode(message if isinstance(message, bytes) else message.encode())
    assert isinstance(command, InvalidCommand), command
    return command


@pytest.mark.parametrize("id", ["null", "true", "1.0", "1.5", "1e3", "[]", "{}", '{"a":1}', '["1"]'])
@pytest.mark.parametrize("fields", ['"type":"ping"', '"type":"frob"', '"type":"who","channel":1', '"type":5'])
def test_rejects_id_of_another_type(id: str, fields: str) -> None:
    """The error has no id."""
    wrong = mistake(f'{{{fields},"id":{id}}}')
    assert (wrong.error.code, wrong.tag) == (ErrorCode.BAD_ARGUMENT, None)


BAD_JSON = {
    "nothing": b"",
    "spaces": b"  ",
    "a word": b"hello",
    "a line": b"SUB kitchen",
    "a list": b'[{"type":"ping"}]',
    "a string": b'"ping"',
    "a number": b"1",
    "null": b"null",
    "half an object": b'{"type":"ping"',
    "two objects": b'{"type":"ping"}{"type":"ping"}',
    "something behind": b'{"type":"ping"} x',
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"type":"ping"}',
    "a comma too much": b'{"type":"ping",}',
    "single quotes": b"{'type':'ping'}",
    "a raw line break in a string": b'{"type":"ping","id":"a\nb"}',
    "a raw escape in what is ignored": b'{"type":"ping","x":"\x1b"}',
    "a raw escape in data": b'{"type":"publish","channel":"a","data":["\x1b"]}',
    "an unknown escape": b'{"type":"ping","id":"\\x"}',
    "NaN": b'{"type":"publish","channel":"a","data":NaN}',
    "Infinity within": b'{"type":"publish","channel":"a","data":[-Infinity]}',
    "zeros before a number": b'{"type":"ping","id":01}',
    "half a surrogate pair as data": b'{"type":"publish","channel":"a","data":"\\ud800"}',
    "half a pair in data": b'{"type":"publish","channel":"a","data":["\\udc00"]}',
    "half a pair in a channel": b'{"type":"who","channel":"\\ud800"}',
    "half a pair in an id": b'{"type":"ping","id":"\\ud800x"}',
    "half a pair in a type": b'{"type":"\\ud800"}',
    "endlessly deep data": b'{"type":"publish","channel":"a","data":' + b"[" * 100_000,
    "very deep data": b'{"type":"publish","channel":"a","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "very deep and ignored": b'{"type":"ping","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "very deep behind a mistake": b'{"type":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a mistake in half an object": b'{"type":"who","channel":1,',
}


@pytest.mark.parametrize("message", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_rejects_message_that_is_no_json_object(message: bytes) -> None:
    wrong = mistake(message)
    assert (wrong.error.code, wrong.tag) == (ErrorCode.BAD_JSON, None)


DEEP = "[" * 3_000 + "]" * 3_000
TOO_DEEP = "[" * 100_000 + "]" * 100_000
"""More levels than any Python reads, also where their value is ignored: Python 3.13 reads those of ``DEEP``."""
UNREADABLE = {
    "half a surrogate pair as data": '{"type":"publish",ID,"channel":"a","data":"\\ud83d"}',
    "half a pair in data": '{"type":"publish",ID,"channel":"a","data":{"x":["\\ude00"]}}',
    "half a pair in a channel": '{"type":"history",ID,"channel":"\\ud83d"}',
    "half a pair in a list of members": '{"type":"who",ID,"channel":"\\ud83d"}',
    "half a pair in a nick": '{"type":"nick","nick":"\\ud83d",ID}',
    "half a pair in a token": '{"type":"auth","token":"\\ud83d",ID}',
    "half a pair in a position": '{"type":"subscribe","channel":"a","since":1,"epoch":"\\ud83d",ID}',
    "half a pair in what is ignored": '{"type":"ping","x":"\\ud83d",ID}',
    "half a pair in a type": '{"type":"\\ud83d",ID}',
    "half a pair in a key": '{"\\ud83d":1,"type":"ping",ID}',
    "half a pair behind a mistake": '{"type":"who","channel":1,"x":"\\ud83d",ID}',
    "deep data": '{"type":"publish","channel":"a","data":' + DEEP + ",ID}",
    "deep data behind the id": '{"type":"publish","channel":"a",ID,"data":' + DEEP + "}",
    "too deep and ignored": '{"type":"ping",ID,"x":' + TOO_DEEP + "}",
    "half an object": '{"type":"publish",ID,',
    "something behind": '{"type":"ping",ID} x',
    "a comma too much": '{"type":"ping",ID,}',
    "a raw control character": '{"type":"publish","channel":"a","data":"\x01",ID}',
    "an escape that is none": '{"type":"publish","channel":"a","data":"\\x",ID}',
    "a number that is none": '{"type":"publish","channel":"a","data":01,ID}',
    "NaN": '{"type":"publish","channel":"a","data":NaN,ID}',
    "a string without an end": '{"type":"publish",ID,"channel":"a","data":"x}',
    "ids in the data": '{"type":"publish","channel":"a","data":[{"id":7,"x":"\\ud83d"},{"id":8}],ID}',
    "ids in the data behind": '{"type":"publish","channel":"a",ID,"data":[{"id":7,"x":"\\ud83d"},{"id":8}]}',
    "an id as a text": '{"type":"publish","channel":"a","data":"\\"id\\":7,\\ud83d",ID}',
    "an id as a value": '{"type":"publish","channel":"id","data":"\\ud83d",ID}',
    "brackets in a string": '{"type":"publish","channel":"a","name":"]}","data":"\\ud83d",ID}',
    "white space": '\n{ "type" : "publish", "channel":"a","data":"\\ud83d" , ID }',
    "a byte order mark": '\ufeff{"type":"publish","channel":"a","data":"\\ud83d",ID}',
    "another id before": '{"id":7,"type":"publish","channel":"a","data":"\\ud83d",ID}',
}


@pytest.mark.parametrize("tag", [b"3", b"-12", b"0", b'"x"', b'"a\\"b\\\\"', '"é😀"'.encode(), b"9" * 40, b'""'])
@pytest.mark.parametrize("message", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_error_carries_id_of_invalid_json(message: str, tag: bytes) -> None:
    for space in ("", " "):
        wrong = mistake(message.replace("ID", f'"id":{space}{tag.decode()}'))
        assert (wrong.error.code, wrong.tag) == (ErrorCode.BAD_JSON, tag)


@pytest.mark.parametrize(
    "tag", ["5.5", "1e2", "01", "-", "true", "null", "[]", "{}", '"\\ud83d"', '"a\tb"', '"\\x"', '"a', "7"]
)
def test_error_omits_invalid_or_incomplete_id(tag: str) -> None:
    assert mistake('{"type":"ping","id":' + tag).tag is None
    if tag != "7":
        assert mistake('{"type":"ping","x":"\\ud83d","id":' + tag + "}").tag is None


def test_error_names_unpaired_surrogate() -> None:
    assert mistake('{"type":"nick","id":1,"nick":"\\ud83d"}').error == UNPAIRED_SURROGATE
    assert mistake('{"type":"nick","id":1,"nick":"\\ud83d"').error.message == "invalid message: send one JSON object"
    assert "levels" in mistake('{"type":"ping","id":1,"x":' + TOO_DEEP + "}").error.message


BRACKETS = [b"[{", b'"",[', b'["",', b"[0],"]
ESCAPES = [b'"\\', b"\\u", b"\\ud83d", b"\\ud8zz"]
PARTS_OF_IDS = [b'"id":1,', b'"id"', b'"id":', b'"id" ', b'"id":"\\', b'"id":"a']


@pytest.mark.parametrize("unit", [*BRACKETS, *ESCAPES, *PARTS_OF_IDS, b'"",', b'"', b"1", b" "])
@pytest.mark.parametrize("start", [b"{", b'{"', b'{"a":', b'{"id":'])
def test_time_to_find_id_is_linear(start: bytes, unit: bytes) -> None:
    def cost(size: int) -> float:
        message = start + unit * (size // len(unit))
        begun = process_time()
        decode(message)
        return process_time() - begun

    assert min(cost(64_000) for _ in range(2)) < 0.5


def test_accepts_byte_order_mark() -> None:
    """RFC 8259 section 8.1."""
    assert decode('\ufeff{"type":"ping","id":1}'.encode()) == Ping(tag=b"1")


@pytest.mark.parametrize(
    "fields",
    ["", '"typ":"ping"', '"type":"frob"', '"type":"PING"', '"type":""', '"type":1', '"type":null', '"type":[]'],
)
@pytest.mark.parametrize("tag", [None, b"3", b'"x"'])
def test_rejects_unknown_or_missing_type(fields: str, tag: bytes | None) -> None:
    id = [f'"id":{tag.decode()}'] if tag is not None else []
    wrong = mistake("{" + ",".join([*filter(None, [fields]), *id]) + "}")
    assert (wrong.error.code, wrong.tag) == (ErrorCode.BAD_TYPE, tag)


MISUSED = {
    "subscribe": ["", '"channel":1', '"channel":null', '"channel":"a","last":-1', '"channel":"a","last":"5"']
    + ['"channel":"a","last":1.5', '"channel":"a","last":true', '"channel":"a","last":null']
    + [f'"channel":"a","last":{MAX_OFFSET + 1}', f'"channel":"a","last":{"9" * 5000}', '"channel":"a","last":1e400']
    + ['"channel":"a","since":-1', '"channel":"a","since":[]', '"channel":"a","epoch":5', '"channel":"a","epoch":null']
    + ['"channel":"a","presence":"on"', '"channel":"a","presence":1', '"channel":"a","echo":null', '"chanel":"a"'],
    "unsubscribe": ["", '"channel":["a"]'],
    "publish": ["", '"channel":"a"', '"base64":""', '"channel":"a","data":1,"base64":""', '"channel":"a","base64":1']
    + ['"data":1', '"channel":"a","data":1,"name":1', '"channel":{},"data":1', '"channel":"a","data":1,"key":1']
    + ['"channel":"a","data":"","key":""', '"channel":"a","base64":"","key":"é"']
    + [f'"channel":"a","data":1,"key":"{"k" * 201}"'],
    "history": ["", '"channel":"a","last":"1"', '"channel":"a","since":-1', '"channel":"a","after":-1']
    + ['"channel":"a","after":"17"', '"channel":"a","before":"yesterday"', '"channel":"a","before":1.5']
    + ['"channel":"a","after":null', '"channel":"a","after":{"x":[1]}', f'"channel":"a","before":{MAX_OFFSET + 1}'],
    "who": ["", '"channel":false'],
    "list": ['"prefix":1', '"after":1', '"after":null'],
    "nick": ["", '"nick":1', '"nick":null', '"channel":"a"'],
    "auth": ["", '"token":1', '"token":null', '"nick":"a"'],
}


@pytest.mark.parametrize("tag", [None, b"3", b'"x"'])
@pytest.mark.parametrize(("type", "fields"), [(type, fields) for type in MISUSED for fields in MISUSED[type]])
def test_rejects_missing_field_or_wrong_type(type: str, fields: str, tag: bytes | None) -> None:
    """The error carries the id."""
    id = [f'"id":{tag.decode()}'] if tag is not None else []
    wrong = mistake("{" + ",".join([f'"type":"{type}"', *filter(None, [fields]), *id]) + "}")
    assert (wrong.error.code, wrong.tag) == (ErrorCode.BAD_ARGUMENT, tag)
    assert len(wrong.error.message) < 200


@pytest.mark.parametrize(("levels", "name"), [(100, ""), (101, ""), (101, ',"name":"alarm"')])
def test_rejects_data_over_the_depth_limit(levels: int, name: str) -> None:
    data = "[" * levels + "]" * levels
    command = decode(f'{{"type":"publish","id":7,"channel":"a","data":{data},"x":[[]]{name}}}'.encode())
    if levels == 100:
        assert isinstance(command, Publish)
    else:
        assert command == InvalidCommand(
            Error(ErrorCode.BAD_JSON, "data too deep: at most 100 levels are allowed"), b"7"
        )


def test_error_names_missing_field() -> None:
    assert mistake('{"type":"publish","channel":"a"}').error.message == "missing field: publish requires data or base64"
    assert mistake('{"type":"nick"}').error.message == "missing field: nick requires nick"
    assert "last" in mistake('{"type":"history","channel":"a","last":-1}').error.message
    assert "invalid before: " in mistake('{"type":"history","channel":"a","before":-1}').error.message


@pytest.mark.parametrize("encoded", ["/9g", " /9g=", "é", "_9g="])
def test_rejects_invalid_base64(encoded: str) -> None:
    message = json.dumps({"type": "publish", "id": 7, "channel": "a", "base64": encoded})
    assert decode(message.encode()) == InvalidCommand(BAD_BASE64, b"7")


def test_decodes_binary_message() -> None:
    """The bytes behind the first line feed are the payload."""
    header = b'{"type":"publish","id":7,"channel":"a","name":"photo","x":1}'
    for payload in (b"", b"\xff\n\x00{}", b"\n"):
        assert decode_binary(header + b"\n" + payload) == published_bytes(b"a", payload, b"photo", b"7")
    assert decode_binary(header.ljust(4_096) + b"\nx") == published_bytes(b"a", b"x", b"photo", b"7")
    assert decode_binary(b'{"type":"publish","channel":"a"}\r\nx') == published_bytes(b"a", b"x")


@pytest.mark.parametrize(
    ("message", "code", "tag"),
    [
        (b"", ErrorCode.BAD_JSON, None),
        (b'{"type":"publish","id":7,"channel":"a"}', ErrorCode.BAD_JSON, None),
        (b'{"type":"publish","channel":"\xff"}\n', ErrorCode.BAD_JSON, None),
        (b'{"type":"publish","id":7,"channel":"a"}'.ljust(4_097) + b"\nx", ErrorCode.BAD_JSON, None),
        (b"\nx", ErrorCode.BAD_JSON, None),
        (b'{"type":"publish","id":7,\n"channel":"a"}\nx', ErrorCode.BAD_JSON, b"7"),
        (b'{"type":"ping","id":7}\nx', ErrorCode.BAD_TYPE, b"7"),
        (b'{"type":"publish","id":7}\nx', ErrorCode.BAD_ARGUMENT, b"7"),
        (b'{"type":"publish","id":7,"channel":"a","data":1}\nx', ErrorCode.BAD_ARGUMENT, b"7"),
        (b'{"type":"publish","id":7,"channel":"a","base64":""}\nx', ErrorCode.BAD_ARGUMENT, b"7"),
    ],
)
def test_rejects_invalid_binary_message(message: bytes, code: ErrorCode, tag: bytes | None) -> None:
    command = decode_binary(message)
    assert isinstance(command, InvalidCommand)
    assert (command.error.code, command.tag) == (code, tag)


def test_ignores_unknown_fields() -> None:
    other = {"x": 1, "Channel": [], "verb": None, "ttl": {"a": [1e10, "é", {}]}, "": ""}
    message = json.dumps({"type": "who", **other, "channel": "a"})
    assert decode(message.encode()) == Who(b"a")


@pytest.mark.parametrize("field", ["after", "before"])
@pytest.mark.parametrize("value", ["null", '{"x":[1]}', '"yesterday"', "-1"])
def test_only_histories_have_bounds(field: str, value: str) -> None:
    """Other messages can have fields of these names, as they could before histories had bounds."""
    assert decode(f'{{"type":"who","channel":"a","{field}":{value}}}'.encode()) == Who(b"a")
    message = f'{{"type":"publish","{field}":{value},"channel":"a","data":1}}'
    assert decode(message.encode()) == published(b"a", b"1", True)


def test_does_not_check_names() -> None:
    """The broker checks them, for all protocols."""
    assert decode(b'{"type":"subscribe","channel":"a\\nb *"}') == Subscribe(b"a\nb *")
    assert decode(b'{"type":"nick","nick":""}') == Nick(b"")


def publish(data: Any, channel: str = "a", **fields: Any) -> bytes:
    return json.dumps({"type": "publish", "channel": channel, "data": data, **fields}).encode()


PLAIN = publish("%d")
ALIKE = {
    "one": ([PLAIN % 2], [b"2"]),
    "several": ([PLAIN % 2, PLAIN % 3], [b"2", b"3"]),
    "another channel behind": ([PLAIN % 2, publish("3", "b")], []),
    "an id": ([publish("2", id=2)], []),
    "JSON": ([publish(2)], []),
    "an escape": ([publish("\\")], []),
    "no message": ([Ping(), PLAIN % 2], []),
    "a command among them": ([PLAIN % 2, Ping()], []),
    "a full step": ([PLAIN % 2] * 32, [b"2"] * 32),
    "nothing": ([], []),
}


@pytest.mark.parametrize(("following", "texts"), ALIKE.values(), ids=ALIKE.keys())
def test_decodes_messages_that_differ_in_their_text_without_parsing_them(
    following: list[bytes | Command], texts: list[bytes]
) -> None:
    messages = [publish("0", "b"), PLAIN % 1, *following]
    alike = decode_alike(published(b"a", b"1", False), messages, 2)
    assert (alike.payloads.items if alike is not None else ()) == tuple(texts)
    assert alike is None or (alike.channel, alike.tags) == (b"a", (None,) * len(texts))


@pytest.mark.parametrize("first", [published(b"a", b"1", True), published(b"a", b"1", False, tag=b"7")])
def test_parses_each_message_after_json_or_an_id(first: Publish) -> None:
    assert decode_alike(first, [PLAIN % 1, PLAIN % 2], 1) is None


def test_parses_each_message_after_a_decoded_command() -> None:
    first = published(b"a", b"1", False)
    assert decode_alike(first, [first, PLAIN % 2], 1) is None


def test_does_not_join_publications_with_a_key() -> None:
    message = b'{"type":"publish","key":"1","channel":"a","data":"x"}'
    first = decode(message)
    assert isinstance(first, Publish) and decode_alike(first, [message, message], 1) is None


def test_checks_few_messages_at_a_time() -> None:
    """The 33rd message differs, so the second 32 messages are not decoded together."""
    messages = [*[PLAIN % 1] * 40, publish("2", "b"), *[PLAIN % 1] * 40]
    alike = decode_alike(published(b"a", b"1", False), messages, 1)
    assert alike is not None and len(alike.tags) == 32


def read(message: bytes) -> Any:
    """The message as Python decodes it, strictly, with numbers as they were written."""
    return json.loads(message, parse_int=Number, parse_float=Real, parse_constant=reject_constant)


class Number(str):
    """A number as it was written."""


class Real(Number):
    """A number with a fraction or an exponent."""


def counted(asked: dict[str, Any], field: str) -> int | None:
    value = asked.get(field)
    if value is None:
        return None
    assert isinstance(value, Number) and 0 <= int(value) <= MAX_OFFSET
    return int(value)


@holds(examples=150, message=SOUND | st.text().map(str.encode) | st.binary())
def test_any_message(message: bytes) -> None:
    """Any bytes are decoded to a command with the values of its fields and the id as it was written, or to an error
    with a known code and the id."""
    command = decode(message)
    assert isinstance(command, Command)
    if isinstance(command, InvalidCommand):
        codes = (ErrorCode.BAD_JSON, ErrorCode.BAD_BASE64, ErrorCode.BAD_TYPE, ErrorCode.BAD_ARGUMENT)
        assert command.error.code in codes
        if command.error.code is ErrorCode.BAD_JSON:
            return
    asked = read(message)
    tag = command.tags[0] if isinstance(command, Publish) else command.tag  # type: ignore[union-attr]
    if tag is not None:
        assert read(tag) == asked["id"] and isinstance(asked["id"], str) and not isinstance(asked["id"], Real)
    if isinstance(command, InvalidCommand):
        return
    assert ("id" in asked) is (tag is not None)
    assert KINDS[type(command)] == asked["type"]
    if hasattr(command, "channel"):
        assert command.channel.decode() == asked["channel"]
    if isinstance(command, Publish):
        (payload,) = command.payloads.items
        assert command.key.decode() == asked.get("key", "")
        if command.payloads.kind is BYTES:
            assert b64encode(payload).decode() == asked["base64"] and "data" not in asked
            return
        is_json = command.payloads.kind is JSON
        assert is_json is (not isinstance(asked["data"], str) or isinstance(asked["data"], Number))
        assert (read(payload) if is_json else payload.decode()) == asked["data"]
        assert command.name.decode() == asked.get("name", "message")
    elif isinstance(command, Subscribe | ReadHistory):
        numbers = command.query if isinstance(command, ReadHistory) else command
        assert (numbers.last, numbers.since) == (counted(asked, "last"), counted(asked, "since"))
    if isinstance(command, ReadHistory):
        for field, bound in (("after", command.query.after), ("before", command.query.before)):
            is_time = isinstance(bound, Moment)
            assert bound == (parse_moment(asked[field]) if is_time else counted(asked, field))
    if isinstance(command, Subscribe):
        assert (command.epoch or b"").decode() == asked.get("epoch", "")
        assert (command.presence, command.echo) == (asked.get("presence", False), asked.get("echo", True))
    elif isinstance(command, Auth):
        assert command.token.decode() == asked["token"]
    elif isinstance(command, Nick):
        assert command.nick.decode() == asked["nick"]


@holds(examples=60, messages=MESSAGES)
def test_together(messages: list[bytes]) -> None:
    """Messages that are decoded together are the same commands as one by one."""
    for position, message in enumerate(messages, 1):
        command = decode(message)
        if isinstance(command, Publish) and (alike := decode_alike(command, messages, position)) is not None:
            alone = [decode(message) for message in messages[position : position + len(alike.tags)]]
            assert split_publications([alike]) == split_publications(alone)


def test_lines_can_be_blank_or_not_utf8() -> None:
    assert JSON_LINE_DECODER.decode(b" \t\r") is None
    invalid = JSON_LINE_DECODER.decode(b'{"type":"ping","id":"\xe9"}')
    assert isinstance(invalid, InvalidCommand) and invalid.error.code == ErrorCode.NOT_UTF8
    for line in (b'{"type":"ping"}', '{"type":"ping","id":"é"}'.encode()):
        assert JSON_LINE_DECODER.decode(line) == decode(line)
