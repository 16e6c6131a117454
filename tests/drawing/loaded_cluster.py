"""Eight minutes in the life of a cluster, for pictures of the dashboards: growth, faults, a roll, a crash.

Three replicas of two workers on one Valkey, the product's nginx in front, the exporters of both, `ws-cluster monitoring
up` in time that passes five times faster, and real clients. What ends when:

- the clients become more in three steps, beside a load test by Locust that runs throughout;
- drills prove three alerts in an environment of their own;
- an application fails and users are refused twice for a while, so that alerts fire and resolve; the first is
  acknowledged, and another marked as a false positive;
- one replica is rolled, a worker of another is killed, and the third stops and comes back, so that
  connections move to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.harness.cluster import Cluster, http_get, merge
from tests.harness.crowd import Crowd, Size
from tests.harness.front_nginx import FrontNginx
from tests.harness.processes import free_ports
from tests.harness.store import Store, ask
from tests.harness.waiting import until_async
from tests.integration.access_load import CONFIG, access_load, write_application
from tests.integration.load_and_drills import acknowledge, drills, load_test
from tests.integration.log_lines import Loki, entry, loki
from tests.integration.monitoring import Monitoring

COMPRESS: Final = 5
SCRAPE_SECONDS: Final = 15 / COMPRESS
_CONFIG: Final = merge(
    CONFIG,
    {
        # So few that the cluster can be seen to fill.
        "client": {"connection_limit": 120},
        "balance": {"enabled": True, "interval": "2s", "after": "10s"},
    },
)
_DRILLS: Final = ("HighSessionCount", "DeploymentCompleted", "HighRefusalRate")
_PROGRAMS: Final = {
    "prometheus": "prometheus",
    "prometheus-redis-exporter": "prometheus-redis-exporter",
    "prometheus-nginx-exporter": "prometheus-nginx-exporter",
    "nginx": "nginx, with its module stub_status",
}


class Programs(NamedTuple):
    """Paths of what the pictures need beside what the tests need."""

    prometheus: str
    redis_exporter: str
    nginx_exporter: str
    nginx: str

    @classmethod
    def found(cls) -> Programs:
        """Look along PATH.

        Raises:
            SystemExit: one is missing; the text names Debian's packages.
        """
        places = {name: shutil.which(name) or "" for name in _PROGRAMS}
        missing = [_PROGRAMS[name] for name, place in places.items() if not place]
        if missing:
            raise SystemExit(f"not found on PATH: {', '.join(missing)} (packages of Debian)")
        return cls(*places.values())


class Loaded(NamedTuple):
    """What can be asked while the load runs.

    Attributes:
        prometheus: port of the Prometheus that scrapes the cluster.
        exporters: port of the Prometheus that scrapes the exporters of Valkey and nginx, and the replicas too, for
            queries of all these.
        loki: the Loki that has the lines of the replicas; none if there is no program.
        began: when the load began, in seconds since the epoch.
    """

    prometheus: int
    exporters: int
    loki: Loki | None
    began: float


@asynccontextmanager
async def _running(command: list[str], log: Path) -> AsyncIterator[None]:
    """A process for the length of the block."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=log.parent
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _answers(port: int, path: str) -> None:
    async def is_there() -> bool:
        with contextlib.suppress(OSError):
            return (await asyncio.to_thread(http_get, port, path)).status == 200
        return False

    await until_async(is_there, 30, f"port {port} answers {path}")


@asynccontextmanager
async def _exporters(
    folder: Path, programs: Programs, store: Store, front: FrontNginx, apps: tuple[int, ...]
) -> AsyncIterator[int]:
    """The exporters of Valkey and nginx, with a Prometheus of their own; gives its port.

    `ws-cluster monitoring up` scrapes neither: on one machine without containers there are none.
    """
    folder.mkdir()
    port, redis, nginx = (first := free_ports(3)), first + 1, first + 2
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{at}" for at in ports]}]}
        for name, ports in (("redis", [redis]), ("nginx", [nginx]), ("websocket-app", apps))
    ]
    pace = f"{SCRAPE_SECONDS:g}s"
    text = yaml.safe_dump({"global": {"scrape_interval": pace}, "scrape_configs": jobs})
    (folder / "prometheus.yml").write_text(text)
    commands = {
        "redis": [
            *(programs.redis_exporter, f"--web.listen-address=127.0.0.1:{redis}"),
            f"--redis.addr={store.url}",
        ],
        "nginx": [
            *(programs.nginx_exporter, f"-web.listen-address=127.0.0.1:{nginx}"),
            f"-nginx.scrape-uri=http://127.0.0.1:{front.status_port}/stub_status",
        ],
        "prometheus": [
            *(programs.prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=data"),
            f"--web.listen-address=127.0.0.1:{port}",
        ],
    }
    async with AsyncExitStack() as parts:
        for name, command in commands.items():
            await parts.enter_async_context(_running(command, folder / f"{name}.log"))
        for one, path in ((redis, "/metrics"), (nginx, "/metrics"), (port, "/-/ready")):
            await _answers(one, path)
        yield port


class _Story:
    """What happens to the cluster; every step says on the terminal that it begins."""

    def __init__(
        self,
        replicas: list[Cluster],
        front: FrontNginx,
        monitoring: Monitoring,
        parts: AsyncExitStack,
    ) -> None:
        self._replicas = replicas
        self._monitoring = monitoring
        self._front = front
        self._parts = parts
        self._began = time.monotonic()

    async def _for(self, seconds: float, what: str) -> None:
        print(f"{time.monotonic() - self._began:5.0f} s  {what}", flush=True)
        await asyncio.sleep(seconds)

    async def _more(self, subscribers: int, publishes: int) -> None:
        size = Size(subscribers=subscribers, channels=4, workers=2, publishes_per_second=publishes)
        crowd = Crowd(self._front.port, size, token_key="")
        self._parts.push_async_callback(crowd.close)
        await crowd.gather()
        crowd.begin_publishing()

    async def _mark_false_positive(self) -> None:
        """The first alert, not a note, that nobody has acknowledged."""
        incidents = json.loads((await self._monitoring.ask("history", "--json")).stdout)
        first = next(
            one for one in incidents if one["acknowledged_at"] is None and one["severity"] != "info"
        )
        done = await self._monitoring.ask("history", "--false-positive", str(first["id"]))
        assert done.returncode == 0, done.stderr

    async def tell(self) -> None:
        """Eight minutes."""
        first, second, third = self._replicas
        await self._more(120, 20)
        await self._for(60, "120 subscribers on three replicas")
        async with access_load(self._front.port):
            await acknowledge(self._monitoring, "HighErrorRate", 120)
            await self._for(50, "handlers fail, users are refused, HighErrorRate is acknowledged")
        await self._more(120, 20)
        await self._for(50, "240 subscribers")
        await self._mark_false_positive()
        await first.roll(within=90)
        await self._for(50, "one replica was rolled")
        os.kill(second.workers()[0].pid, signal.SIGKILL)
        await self._for(40, "a worker was killed")
        await third.stop()
        await self._for(60, "a replica was stopped")
        await third.start()
        await self._more(60, 20)
        await self._for(70, "it is back, with 300 subscribers")
        async with access_load(self._front.port):
            await self._for(60, "handlers fail, users are refused")


@asynccontextmanager
async def loaded_cluster(folder: Path) -> AsyncIterator[Loaded]:
    """Run the story; inside the block it has been told, and everything still runs."""
    programs = Programs.found()
    modules = write_application(folder)
    async with AsyncExitStack() as parts:
        store = await parts.enter_async_context(Store(folder / "store"))
        replicas = [_replica(folder, number, store.url, modules) for number in range(3)]
        for one in replicas:
            parts.push_async_callback(one.stop)
        await asyncio.gather(*(one.start() for one in replicas))
        await ask(store.port, "CONFIG", "SET", "maxmemory", "64mb")
        front = await parts.enter_async_context(
            FrontNginx(folder / "front", replicas, program=programs.nginx, has_status=True)
        )
        apps = tuple(one.admin_port for one in replicas)
        load, drill = (first := free_ports(2)), first + 1
        monitoring = Monitoring(folder, apps=apps, compress=COMPRESS, load_tests=(load, drill))
        await parts.enter_async_context(monitoring)
        exporters = await parts.enter_async_context(
            _exporters(folder / "exporters", programs, store, front, apps)
        )
        began = time.time()
        await parts.enter_async_context(load_test(folder, front.port, load, users=20))
        await parts.enter_async_context(drills(folder, drill, *_DRILLS))
        await _Story(replicas, front, monitoring, parts).tell()
        logs = await parts.enter_async_context(loki(*at)) if (at := _loki_at(folder)) else None
        if logs is not None:
            await logs.push(_lines(replicas, folder / "front"))
        yield Loaded(monitoring.prometheus, exporters, logs, began)


def _loki_at(folder: Path) -> tuple[str, Path] | None:
    program = shutil.which("loki")
    return (program, folder / "loki") if program else None


def _lines(replicas: list[Cluster], front: Path) -> list[dict[str, Any]]:
    """The lines of the replicas and of nginx, as Alloy would send them."""
    found = []
    for number, one in enumerate(replicas, 1):
        discovered = {"service": "app", "instance": f"ws-cluster-app-{number}"}
        found += [entry(line, discovered) for line in one.log().splitlines()]
    log = front / "access.log"
    discovered = {"service": "nginx", "instance": "ws-cluster-nginx-1"}
    found += [entry(line, discovered) for line in log.read_text().splitlines()[-200:]]
    return found


def _replica(folder: Path, number: int, redis_url: str, modules: Path) -> Cluster:
    config: dict[str, Any] = dict(_CONFIG)
    return Cluster(
        folder / f"replica-{number}",
        workers=2,
        config=config,
        redis_urls=(redis_url,),
        has_nginx=False,
        modules=modules,
    )
