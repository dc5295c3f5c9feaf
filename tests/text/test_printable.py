"""Others' text reaches a terminal as text, in every encoding that a terminal can have."""

import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.printable import (
    allow_any_encoding,
    is_printable,
    print_error,
    printable,
    printable_json,
    printable_lines,
)

# Unicode's own lists, not the pattern's: categories, and the property Bidi_Control.
UNSEEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
BIDI_CONTROL = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
EVERY_SIGN = [chr(code) for code in range(sys.maxunicode + 1)]  # halves of characters, too


def test_nothing_that_a_terminal_obeys_is_left() -> None:
    for sign in EVERY_SIGN:
        if unicodedata.category(sign) in UNSEEN_CATEGORIES or ord(sign) in BIDI_CONTROL:
            assert not is_printable(sign), hex(ord(sign))
            assert printable(sign).isascii()


def test_everything_that_is_seen_stays_as_it_is() -> None:
    seen = "".join(sign for sign in EVERY_SIGN if unicodedata.category(sign)[0] in "LMNPS")
    assert printable(seen) == seen
    assert is_printable(" \u200c\u200d")


@given(text=st.text(st.characters()))
def test_what_is_shown_is_printable_and_says_which_sign_it_was(text: str) -> None:
    shown = printable(text)
    assert is_printable(shown)
    assert is_printable(text) is (shown == text)
    assert printable_lines(text).count("\n") == text.count("\n")


def test_signs_are_written_as_python_writes_them() -> None:
    assert printable("\x1b]0;a\x07\x9b\u202e\U000e0041\ud800") == (
        r"\x1b]0;a\x07\x9b\u202e\U000e0041\ud800"
    )


@given(
    document=st.recursive(
        st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_is_shown_as_text_and_means_the_same(document: object) -> None:
    for indent in (None, 2):
        shown = printable_json(json.dumps(document, indent=indent, ensure_ascii=False))
        assert all(is_printable(line) for line in shown.split("\n"))
        assert json.loads(shown) == document


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_text_can_be_written(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    allow_any_encoding()
    sys.stdout.write("Łódź 3 → 5 ███░ …\ud83d\n")
    sys.stdout.flush()
    written = raw.getvalue().decode(encoding)
    if encoding == "utf-8":
        assert written == "Łódź 3 → 5 ███░ …?\n"
    else:
        assert written.endswith("3 > 5 ###. .?\n")
        assert written.startswith("?")


def test_a_complaint_is_one_line_for_each_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("a\x1b[2J\rb\n  c\u2028d")
    assert capsys.readouterr().err == "poolkeeper: a\\x1b[2J\\rb\n  c\\u2028d\n".replace(
        "\\r", "\\x0d"
    )


def test_streams_without_an_encoding_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    allow_any_encoding()
    assert (sys.stdout.errors, sys.stderr.errors) == (None, None)


def test_bytes_that_cannot_be_read_are_still_an_error() -> None:
    allow_any_encoding()
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode(errors="poolkeeper")
