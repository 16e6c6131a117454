"""Limits per address and large headers, through nginx: 429 for an address, whichever worker it would get."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from tests.harness.cluster import Cluster
from tests.harness.waiting import until_async
from tests.harness.wire import HandshakeRefused, Wire, open_wire

LIMIT, RATE = 6, 5


async def handshake(cluster: Cluster, wires: list[Wire], **headers: str) -> HandshakeRefused | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        wires.append(await open_wire(cluster.client_port, headers=named))
    except HandshakeRefused as refused:
        return refused
    return None


async def test_nginx_refuses_an_address_above_its_limit_of_connections_with_429(tmp_path: Path):
    limits = {"connection_limit_per_address": LIMIT}
    wires: list[Wire] = []
    async with Cluster(tmp_path / "run", workers=2, config={"client": limits}) as cluster:
        for address in ("192.0.2.1", "2001:db8::1"):
            for _ in range(LIMIT):
                assert await handshake(cluster, wires, X_Forwarded_For=address) is None
        # Another address of the same /64, but no other /64, and IPv4 inside IPv6 is IPv4.
        for address in ("192.0.2.1", "2001:db8::ffff:2", "::ffff:192.0.2.1"):
            refused = await handshake(cluster, wires, X_Forwarded_For=address)
            assert refused is not None, address
            assert refused.status == 429
            assert refused.headers["retry-after"] == "1"
        for address in ("192.0.2.2", "2001:db8:0:1::1"):
            assert await handshake(cluster, wires, X_Forwarded_For=address) is None

        for wire in wires:
            wire.abort()

        async def is_free_again() -> bool:
            return await handshake(cluster, wires, X_Forwarded_For="192.0.2.1") is None

        await until_async(is_free_again, 10, "the connections have ended")
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.abort()


async def test_nginx_refuses_an_address_above_its_rate_with_429_and_no_worker_hears_of_it(
    tmp_path: Path,
):
    wires: list[Wire] = []
    limits = {"connection_rate_limit_per_address": RATE}
    async with Cluster(tmp_path / "run", workers=2, config={"client": limits}) as cluster:
        address = "192.0.2.9"
        attempts = [handshake(cluster, wires, X_Forwarded_For=address) for _ in range(6 * RATE)]
        refused = [one for one in await asyncio.gather(*attempts) if one is not None]
        # A burst of a second's, and what the time of the attempts itself allows.
        assert RATE <= len(wires) < 6 * RATE
        assert len(wires) + len(refused) == 6 * RATE
        assert {(one.status, one.headers["retry-after"]) for one in refused} == {(429, "1")}
        assert await handshake(cluster, wires, X_Forwarded_For="192.0.2.10") is None

        async def is_let_in_again() -> bool:
            return await handshake(cluster, wires, X_Forwarded_For=address) is None

        await until_async(is_let_in_again, 10, "a fifth of a second has passed")
        metrics = await cluster.shows("app_connections_opened_total", len(wires))
        assert metrics.total("app_connections_rejected_total") == 0
        for wire in wires:
            wire.abort()


async def test_a_handshake_may_have_a_header_of_nearly_32_kib(tmp_path: Path):
    wires: list[Wire] = []
    async with Cluster(tmp_path / "run", workers=1) as cluster:
        assert await handshake(cluster, wires, Cookie="a=" + "x" * 32_000) is None
        refused = await handshake(cluster, wires, Cookie="a=" + "x" * 40_000)
        assert refused is not None
        assert refused.status == 400
        for wire in wires:
            wire.abort()
