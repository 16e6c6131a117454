"""A cluster whose clients a backend knows: behind nginx, on two workers, over a roll."""

from __future__ import annotations

from pathlib import Path

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.waiting import until
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
