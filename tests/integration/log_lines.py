"""Log lines of a cluster as docker/alloy/config.alloy sends them, and a Loki with the configuration of compose.

Alloy cannot be had where the tests run: what its stages do is read from its configuration and done here.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import urllib.parse
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.harness.cluster import REPOSITORY
from tests.harness.processes import free_ports
from tests.harness.waiting import until_async
from tests.rules.test_logging import block

CONFIGURATION = REPOSITORY / "docker" / "loki.yml"


def stage_values(name: str) -> list[str]:
    return re.findall(r'(\w+) += ""', block(name))


def entry(line: str, discovered: dict[str, str]) -> dict[str, Any]:
    """One stream of the push API with one line, as the stages of config.alloy make it."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = {}
    labels = discovered | {
        name: fields[name] for name in stage_values("stage.labels") if name in fields
    }
    kept = set(re.findall(r'"(\w+)"', block("stage.label_keep")))
    when = datetime.fromisoformat(fields["ts"]) if "ts" in fields else datetime.now().astimezone()
    metadata = {
        name: fields[name] for name in stage_values("stage.structured_metadata") if name in fields
    }
    return {
        "stream": {name: text for name, text in labels.items() if name in kept},
        "values": [[str(round(when.timestamp() * 1e9)), line, metadata]],
    }


class Loki:
    """A Loki that runs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._url = f"http://127.0.0.1:{port}/loki/api/v1"

    async def push(self, streams: Iterable[dict[str, Any]]) -> None:
        """Send streams to the push API."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self._url}/push", json={"streams": list(streams)}) as answer,
        ):
            assert answer.status == 204, await answer.text()

    async def ask(self, expr: str, begin: float, end: float, step: float = 0) -> dict[str, Any]:
        """The `data` of a query over a range, or with a step of 0 of one at its end."""
        words = {"query": expr, "limit": "500", "direction": "backward"}
        if step:
            words |= {"start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step:g}s"}
        else:
            words["time"] = f"{end:.3f}"
        path = "query_range" if step else "query"
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self._url}/{path}?{urllib.parse.urlencode(words)}") as answer,
        ):
            assert answer.status == 200, (expr, await answer.text())
            found: dict[str, Any] = (await answer.json())["data"]
            return found

    async def is_ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session:
                address = f"http://127.0.0.1:{self.port}/ready"
                return (await session.get(address)).status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def loki(program: str, folder: Path) -> AsyncIterator[Loki]:
    """Loki with docker/loki.yml; only its ports and its folder are others."""
    folder.mkdir(parents=True)
    port = free_ports(2)
    text = CONFIGURATION.read_text(encoding="utf-8").replace("/loki", str(folder))
    config = yaml.safe_load(text)
    config["server"] |= {
        "http_listen_address": "127.0.0.1",
        "http_listen_port": port,
        "grpc_listen_address": "127.0.0.1",
        "grpc_listen_port": port + 1,
    }
    # Its parts find each other at the address of an interface otherwise, where it does not listen here.
    config["common"]["instance_addr"] = "127.0.0.1"
    path = folder / "loki.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with (folder / "loki.log").open("ab") as log:
        process = subprocess.Popen(
            [program, f"-config.file={path}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    server = Loki(port)
    try:
        await until_async(server.is_ready, 90, "Loki is ready")
        yield server
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
