"""A node's configuration refuses what no agent could carry out, and shows no password."""

from dataclasses import replace

import pytest

from app.domain.nodes.configuration import newest
from tests.node.configurations import configuration, entry


def test_an_entry_is_never_larger_than_its_servers_allotment() -> None:
    node = configuration(entry("acme", size=5), allotment=3)
    assert node.size_of(node.entries[0]) == 3
    # Zero would mean "no limit" to PgBouncer.
    assert configuration(allotment=0).size_of(entry("acme", size=5)) == 1
    assert configuration(allotment=3).size_of(entry("acme", size=0)) == 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 0"):
        entry("acme", size=-1)
    with pytest.raises(ValueError, match="same name"):
        configuration(entry("acme"), entry("acme"))
    with pytest.raises(ValueError, match="no such servers: other"):
        configuration(replace(entry("acme"), server="other"))


def test_of_two_configurations_the_later_one_holds_and_of_each_allotment_the_later_one() -> None:
    earlier = configuration(entry("acme"), version=1, allotment=3, generation=7)
    later = configuration(entry("bravo"), version=2, allotment=5, generation=6)
    for first, second in ((earlier, later), (later, earlier)):
        merged = newest(first, second)
        assert (merged.version, merged.entries) == (2, later.entries)
        assert merged.servers == earlier.servers
    # For the same version, the known one stays, and so does the object.
    assert newest(earlier, replace(earlier)) == earlier
    same = {"local": earlier.servers["local"].allotment}
    assert earlier.with_allotments(same) is earlier


def test_no_password_is_shown() -> None:
    shown = repr(configuration(entry("acme", password="hidden", logins=("acme.web",))))
    assert "hidden" not in shown
    assert "SCRAM" not in shown


def test_what_a_server_said_is_kept_until_the_service_has_reached_it_again() -> None:
    node = configuration(entry("acme"))
    for said in (True, False):
        servers = {"local": replace(node.servers["local"], reports_search_path=said)}
        known = replace(node, servers=servers)
        assert node.informed_by(known).servers == servers
        other = {"local": replace(node.servers["local"], reports_search_path=not said)}
        assert replace(node, servers=other).informed_by(known).servers == other
    assert node.informed_by(replace(node, servers={}, entries=())) is node
