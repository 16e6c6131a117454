"""Limits per address and large headers, through nginx: 429 for an address, whichever worker it would get."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from tests.harness.cluster import Cluster
from tests.harness.waiting import until_async
from tests.harness.wire import HandshakeRefused, Wire, open_wire

LIMIT, RATE = 6, 20


async def handshake(cluster: Cluster, wires: list[Wire], **headers: str) -> HandshakeRefused | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        wires.append(await open_wire(cluster.client_port, headers=named))
    except HandshakeRefused as refused:
        return refused
    return None


async def test_nginx_refuses_an_address_above_its_limits_with_429(tmp_path: Path):
    limits = {"connection_limit_per_address": LIMIT, "connection_rate_limit_per_address": RATE}
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
        attempts = [handshake(cluster, [], X_Forwarded_For="192.0.2.77") for _ in range(3 * RATE)]
        answers = await asyncio.gather(*attempts)
        assert {one.status for one in answers if one is not None} == {429}
        # The limit of connections lets six of them in.
        assert sum(one is None for one in answers) <= LIMIT
        for wire in wires:
            with contextlib.suppress(OSError):
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
