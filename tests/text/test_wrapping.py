"""Text that fits a terminal: broken between words, shortened with an ellipsis."""

from hypothesis import given
from hypothesis import strategies as st

from app.text.wrapping import cell_width, shortened, wrapped

TEXTS = st.text("ab ×→東", max_size=60)
WIDTHS = st.integers(2, 40)


@given(text=TEXTS, width=WIDTHS)
def test_no_word_is_broken_and_none_is_lost(text: str, width: int) -> None:
    lines = wrapped(text, width)
    indentation = text[: len(text) - len(text.lstrip(" "))]
    assert all(line.startswith(indentation) for line in lines)
    assert indentation + " ".join(line[len(indentation) :] for line in lines) == text
    assert all(cell_width(line) <= width or " " not in line.strip(" ") for line in lines)


@given(text=TEXTS, width=WIDTHS)
def test_words_are_broken_where_nothing_else_fits(text: str, width: int) -> None:
    lines = wrapped(text.lstrip(" "), width, breaks_words=True)
    assert all(cell_width(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(text=TEXTS, width=WIDTHS)
def test_what_is_shortened_fits_and_says_so(text: str, width: int) -> None:
    found = shortened(text, width)
    assert cell_width(found) <= width
    assert found == text or (found[-1] == "…" and text.startswith(found[:-1]))
