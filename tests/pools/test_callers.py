"""The part of a statement that is shown: nothing that can be a tenant's data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pools.callers import redacted

SHOWN = [
    ("select * from orders where id = $1", "select * from orders where id = $1"),
    ("SELECT\n  a.b,\tc::int\nFROM t", "SELECT a.b, c::int FROM t"),
    ("update t1 set a = a - $2 / b", "update t1 set a = a - $2 / b"),
    ("select 1", "select …"),
    ("insert into t values ('secret')", "insert into t values ( …"),
    ("select E'secret', U&'secret'", "select E …"),
    ("select $$secret$$", "select …"),
    ("select $1$secret$ a", "select $1 …"),
    ("select $1secret", "select …"),
    ("select a$$secret$$", "select a …"),
    ('select "secret"', "select …"),
    ("/* secret */ select a", "…"),
    ("select a -- secret", "select a …"),
    ("select a /* secret */", "select a …"),
    ("select 12.5e3", "select …"),
    ("select x'secret'", "select x …"),
    ("", ""),
]


@pytest.mark.parametrize(("statement", "shown"), SHOWN)
def test_a_statement_is_shown_up_to_what_may_be_data(statement: str, shown: str) -> None:
    assert redacted(statement) == shown


@given(before=st.text(max_size=30), quote=st.sampled_from("'\"") | st.just("$$") | st.just("--"))
def test_nothing_after_the_first_quote_is_shown(before: str, quote: str) -> None:
    shown = redacted(before + quote + "secret" + quote)
    assert "secret" not in shown
    assert shown.endswith("…")


def test_a_long_statement_is_cut() -> None:
    shown = redacted("select " + "a, " * 500_000 + "b")
    assert len(shown) < 205
    assert shown.endswith("…")
