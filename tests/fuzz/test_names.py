"""What may be called how."""

import re
import unicodedata

from hypothesis import strategies as st

from tests.fuzz.grammars import BAD_NAMES, NAMES, damaged
from tests.fuzz.properties import holds
from twistedsock.pubsub.names import INVISIBLE, is_channel, is_event_name, is_nick

SIGNS = st.text(
    st.characters(max_codepoint=0x20)
    | st.sampled_from("\x7f\x80\x9f\xa0\xad\u1680\u200b\u2028\u202e\u3000\u3164\ufeff\U000e0041*>#+?aé"),
    max_size=4,
)


def is_name(candidate: bytes, most: int) -> bool:
    try:
        text = candidate.decode()
    except UnicodeDecodeError:
        return False
    invisible = re.search(f"[{INVISIBLE}]", text) is not None
    bad = invisible or any(
        sign.isspace() or unicodedata.category(sign) in ("Cc", "Cf") or sign in "*>#+?" for sign in text
    )
    return 0 < len(candidate) <= most and not bad


@holds(
    examples=120,
    candidate=damaged(NAMES | BAD_NAMES)
    | st.text(max_size=40).map(str.encode)
    | SIGNS.map(str.encode)
    | st.sampled_from([31, 32, 33, 64, 65, 200, 201]).map(lambda size: b"x" * size),
)
def test_any_name(candidate: bytes) -> None:
    """Any bytes are a name where they are UTF-8 of the length allowed without white space, control characters,
    invisible characters and the signs of patterns, and never else."""
    assert is_channel(candidate) is is_name(candidate, 200)
    assert is_event_name(candidate) is is_name(candidate, 64)
    assert is_nick(candidate) is is_name(candidate, 32)
