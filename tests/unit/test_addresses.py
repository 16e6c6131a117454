"""Which address a client has behind proxies, and what limits count it by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import (
    LOOPBACK,
    UNKNOWN,
    address_key,
    client_address,
    networks,
    parse,
    peer_address,
    trusted_networks,
)

BALANCER = trusted_networks(["10.0.0.0/24", "2001:db8:b::7"])


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("198.51.100.4", "", "198.51.100.4"),
        # Nobody vouches for what this client says.
        ("198.51.100.4", "10.0.0.5", "198.51.100.4"),
        ("127.0.0.1", "198.51.100.4", "198.51.100.4"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.4, 10.0.0.9", "198.51.100.4"),
        ("127.0.0.1", ["1.1.1.1, 198.51.100.4", "10.0.0.9"], "198.51.100.4"),
        ("127.0.0.1", "198.51.100.4, 10.0.1.9", "10.0.1.9"),
        ("2001:db8:b::7", "2001:db8:c::1", "2001:db8:c::1"),
        ("10.0.0.9", "10.0.0.3, 10.0.0.4", "10.0.0.3"),
        ("127.0.0.1", "198.51.100.4:5123", "198.51.100.4"),
        ("127.0.0.1", '"[2001:db8::1]:5123"', "2001:db8::1"),
        ("::ffff:127.0.0.1", "::ffff:198.51.100.4", "198.51.100.4"),
        ("fe80::1%eth0", "", "fe80::1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_trusted_proxy(peer, forwarded_for, client):
    assert client_address(peer, forwarded_for, BALANCER) == client


@pytest.mark.parametrize(
    "text", ["unknown", "_hidden", "1.2.3", "198.51.100.4,", "[", "é", "1::2::3"]
)
def test_an_unreadable_address_from_a_trusted_proxy_is_unknown(text):
    assert client_address("127.0.0.1", text, BALANCER) == UNKNOWN
    assert address_key(UNKNOWN) == UNKNOWN


def test_the_other_end_of_a_unix_socket_is_on_this_machine():
    assert peer_address(("198.51.100.4", 5123)) == "198.51.100.4"
    assert peer_address(("2001:db8::1", 5123, 0, 0)) == "2001:db8::1"
    assert peer_address("") == peer_address("/run/x") == peer_address(b"\0x") == "127.0.0.1"
    assert peer_address(None) == ""


def test_an_address_is_counted_alone_and_ipv6_by_its_site():
    assert address_key("198.51.100.4") == "198.51.100.4"
    assert address_key("::ffff:198.51.100.4") == "198.51.100.4"
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:0:0:1") == "2001:db8::/64"
    assert address_key("2001:db8:0:1::1") == "2001:db8:0:1::/64"


def test_a_chain_is_read_for_a_bounded_number_of_addresses():
    chain = ",".join(["198.51.100.4"] + ["10.0.0.9"] * 10_000)
    assert client_address("127.0.0.1", chain, BALANCER) == "10.0.0.9"


def test_loopback_is_always_trusted_and_a_wrong_network_is_named():
    assert trusted_networks([]) == LOOPBACK
    assert networks(["10.0.0.7"])[0].num_addresses == 1
    with pytest.raises(ValueError, match=r"'10\.0\.0\.0/33' is neither"):
        networks(["10.0.0.0/33"])


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=4))
def test_every_text_has_an_answer_in_canonical_form(peer, forwarded_for):
    found = client_address(peer, forwarded_for, BALANCER)
    assert found == UNKNOWN or str(parse(found)) == found
    assert address_key(found)
