"""How long transactions under way can have had connections, from looks at who uses which."""

from app.node.engine import Backend
from app.node.transactions_under_way import TransactionsUnderWay


def test_a_connection_that_keeps_its_client_may_be_in_one_transaction_all_the_while() -> None:
    under_way = TransactionsUnderWay(100.0)
    long, first = Backend(1, "a"), Backend(2, "b")
    under_way.saw({"acme": {long, first, Backend(3, "")}, "bravo": {first}}, 101.0)
    assert under_way.seconds("acme") == 2.0
    under_way.saw({"acme": {long, Backend(2, "c"), Backend(3, "d")}}, 103.0)
    # The long one since 100; the others since 101, when their connections had other clients.
    assert under_way.seconds("acme") == 3.0 + 2.0 + 2.0
    assert under_way.seconds("bravo") == 0.0
    under_way.saw({"acme": {Backend(1, "")}}, 104.0)
    assert under_way.seconds("acme") == 0.0


def test_a_client_that_comes_back_to_its_connection_begins_again() -> None:
    under_way = TransactionsUnderWay(100.0)
    held = {"acme": {Backend(1, "a")}}
    under_way.saw(held, 101.0)
    under_way.saw({"acme": {Backend(1, "")}}, 102.0)
    under_way.saw(held, 103.0)
    assert under_way.seconds("acme") == 1.0
