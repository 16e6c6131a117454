"""Connections per address and attempts per second, at a worker: 429, by address or IPv6 /64."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import trusted_networks
from cluster.config import ClientConfig
from cluster.websocket.address_limits import AddressLimits
from tests.harness.waiting import until
from tests.harness.wire import HandshakeRefused
from tests.unit.local_worker import LocalWorker, configured


def limits(**client: Any) -> AddressLimits:
    return AddressLimits(ClientConfig(insecure=True, **client), trusted_networks(()))


async def status(worker: LocalWorker, forwarded_for: str) -> int:
    """The status of a handshake that comes through a proxy on loopback."""
    try:
        await worker.caller(headers={"X-Forwarded-For": forwarded_for})
    except HandshakeRefused as refused:
        assert refused.headers["retry-after"] == "1"
        return refused.status
    return 101


async def test_an_address_has_as_many_connections_as_the_limit_says():
    async with LocalWorker(configured(connection_limit_per_address=2)).open() as worker:
        assert [await status(worker, "192.0.2.1") for _ in range(3)] == [101, 101, 429]
        assert await status(worker, "192.0.2.2") == 101
        assert worker.counters.rejected["connection_limit_per_address"] == 1
        worker.server.abort_all()
        await until(lambda: not worker.server.clients, 10, "no client is left")
        assert await status(worker, "192.0.2.1") == 101


async def test_the_addresses_of_an_ipv6_site_count_together():
    async with LocalWorker(configured(connection_limit_per_address=2)).open() as worker:
        assert await status(worker, "2001:db8:0:1::1") == 101
        assert await status(worker, "2001:db8:0:1:ffff::2") == 101
        assert await status(worker, "2001:db8:0:1:1:2:3:4") == 429
        assert await status(worker, "2001:db8:0:2::1") == 101


async def test_an_address_may_try_as_often_per_second_as_the_limit_says():
    async with LocalWorker(configured(connection_rate_limit_per_address=1)).open() as worker:
        # Three attempts fall into two seconds at most: one of them is refused at least.
        assert 429 in [await status(worker, "192.0.2.1") for _ in range(3)]
        assert await status(worker, "192.0.2.2") == 101
        assert worker.counters.rejected["connection_rate_limit_per_address"] >= 1


async def test_what_a_client_says_of_itself_does_not_count():
    async with LocalWorker(configured(connection_limit_per_address=1)).open() as worker:
        assert await status(worker, "198.51.100.1, 192.0.2.1") == 101
        assert await status(worker, "198.51.100.2, 192.0.2.1") == 429


def test_attempts_are_counted_anew_each_second():
    found = limits(connection_rate_limit_per_address=2)
    assert [found.refusal("a", 5.0) is None for _ in range(3)] == [True, True, False]
    assert found.refusal("b", 5.9) is None
    assert found.refusal("a", 6.0) is None


def test_the_attempts_of_many_addresses_take_bounded_memory():
    found = limits(connection_rate_limit_per_address=1)
    for number in range(70_000):
        found.refusal(str(number), 1.0)
    assert len(found._attempts) == 65_536


@pytest.mark.parametrize("limit", [1, 3])
@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=50))
def test_no_order_of_opens_and_closes_passes_the_limit(limit: int, steps: list[tuple[str, bool]]):
    found = limits(connection_limit_per_address=limit)
    open_now = {"a": 0, "b": 0}
    for key, opens in steps:
        if opens:
            is_allowed = found.refusal(key, 1.0) is None
            assert is_allowed == (open_now[key] < limit)
            if is_allowed:
                found.opened(key)
                open_now[key] += 1
        elif open_now[key]:
            found.closed(key)
            open_now[key] -= 1
    assert found._connections == {key: count for key, count in open_now.items() if count}
