"""A cluster whose clients a backend knows: behind nginx, on two workers, over a roll."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.waiting import until, until_async
from tests.unit.test_proxies import a_backend


async def test_a_backend_decides_for_every_worker_also_after_a_roll(tmp_path: Path):
    async with a_backend() as backend:
        endpoint = f"http://127.0.0.1:{backend.port}"
        backend.answers["connect"] = {"result": {"user": "42", "data": {"from": "backend"}}}
        backend.answers["rpc"] = {"result": {"data": {"sum": 3}}}
        config = {
            "client": {
                "insecure": False,
                "proxy": {"connect": {"enabled": True, "endpoint": f"{endpoint}/connect"}},
            },
            "rpc": {
                "proxy": {"endpoint": f"{endpoint}/rpc"},
                "without_namespace": {"proxy_enabled": True},
            },
        }
        async with Cluster(tmp_path / "cluster", workers=2, config=config) as cluster:
            clients = [Client(cluster.client_port, name=f"c{n}") for n in range(4)]
            for client in clients:
                await client.start()
                assert client.result["data"]["from"] == "backend"
                assert await client.call("rpc", {"method": "add", "data": [1, 2]}) == {
                    "data": {"sum": 3}
                }
            await cluster.roll(within=60)
            await until(lambda: all(one.is_connected for one in clients), 30, "they are back")
            assert await clients[0].call("rpc", {"method": "add", "data": []}) == {
                "data": {"sum": 3}
            }
            for client in clients:
                await client.close()
        assert len(backend.of("connect")) >= 8
        assert {about["user"] for about in backend.of("rpc")} == {"42"}


async def test_a_backend_extends_subscriptions_at_every_worker_until_it_says_that_they_have_expired(
    tmp_path: Path,
):
    async with a_backend() as backend:

        def soon(_: object) -> dict[str, Any]:
            return {"result": {"expire_at": int(time.time()) + 2}}

        backend.answers["subscribe"] = backend.answers["sub_refresh"] = soon
        endpoint = f"http://127.0.0.1:{backend.port}"
        kept = {"name": "kept", "subscribe_proxy_enabled": True, "sub_refresh_proxy_enabled": True}
        config = {
            "client": {"expired_sub_close_delay": "1s"},
            "channel": {
                "proxy": {
                    "subscribe": {"endpoint": f"{endpoint}/subscribe"},
                    "sub_refresh": {"endpoint": f"{endpoint}/sub_refresh"},
                },
                "namespaces": [kept],
            },
        }
        async with Cluster(tmp_path / "cluster", workers=2, config=config) as cluster:
            clients = [Client(cluster.port, name=f"c{n}") for n in range(4)]
            for number, client in enumerate(clients):
                await client.start()
                client.subscribe(f"kept:{number}", lambda *_: None)

            def refreshes(of: Client) -> int:
                asked = [one["client"] for one in backend.of("sub_refresh")]
                return asked.count(of.result["client"])

            await until(
                lambda: all(refreshes(one) >= 2 for one in clients), 60, "each is extended twice"
            )
            subscriptions = [one for client in clients for one in client.subscriptions.values()]
            assert all((one.state, one.codes) == ("subscribed", []) for one in subscriptions)
            assert len(backend.of("subscribe")) == len(clients)

            backend.answers["sub_refresh"] = {"result": {"expired": True}}
            await until(
                lambda: all(2501 in one.codes for one in subscriptions), 60, "each has ended"
            )
            await until(
                lambda: len(backend.of("subscribe")) >= 2 * len(clients), 60, "all come again"
            )

            async def are_counted() -> bool:
                metrics = await cluster.metrics()
                failures = metrics.total("app_refresh_failures_total", kind="subscription")
                return failures >= len(clients)

            await until_async(are_counted, 30, "the ends are counted")
            for client in clients:
                await client.close()
