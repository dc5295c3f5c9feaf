"""Each answer's rows are read as if the answer were the first one."""

from hypothesis import given
from hypothesis import strategies as st

from app.node.messages import HEADER, Row
from app.node.polled_rows import PolledRows

# Many of the same length, like those of PgBouncer.
VALUES = st.sampled_from(["a", "b", "", "D", "long" * 9, None])
ROWS = st.lists(VALUES, max_size=60)


@given(st.lists(ROWS, max_size=6))
def test_each_answer_is_read_as_if_it_were_the_first(answers: list[list[str | None]]) -> None:
    polled = PolledRows(value)
    for rows in answers:
        assert [each for block in polled.read(answer_of(rows)) for each in block] == rows


def test_rows_that_have_not_changed_are_not_read_again() -> None:
    read: list[str | None] = []

    def reading(row: Row) -> str | None:
        read.append(row["name"])
        return row["name"]

    polled = PolledRows(reading)
    numbers: list[str | None] = [str(number) for number in range(1000)]
    list(polled.read(answer_of(numbers)))
    assert len(read) == 1000
    list(polled.read(answer_of(["new", *numbers[:300], "changed", *numbers[301:]])))
    assert read[1000:] == ["new", "changed"]


def value(row: Row) -> str | None:
    return row["name"]


def answer_of(rows: list[str | None]) -> bytes:
    """A whole answer with one column."""
    description = (1).to_bytes(2) + b"name\0" + bytes(18)
    return b"".join(
        (
            message(b"T", description),
            *map(row_of, rows),
            message(b"C", b"SHOW\0"),
            message(b"Z", b"I"),
        )
    )


def row_of(text: str | None) -> bytes:
    if text is None:
        return message(b"D", (1).to_bytes(2) + (-1).to_bytes(4, signed=True))
    return message(b"D", (1).to_bytes(2) + len(text).to_bytes(4) + text.encode())


def message(kind: bytes, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body) + 4) + body
