"""The servers of the API that are measured: one worker of ours, and Centrifugo with its Redis engine.

Both have the same key and the same namespace with history, one core, and the one Valkey.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import install
from benchmarks.install import CENTRIFUGO
from benchmarks.paths import PEERS, REPOSITORY
from benchmarks.processes import HOST, Process, ServerFailed, accepts, free_ports
from benchmarks.servers import Running, Server, Valkey

KEY = "benchmark-key-of-the-server-api-0123456789"
_CHANNELS = {"namespaces": [{"name": "kept", "history_size": 100, "history_ttl": "60s"}]}


def _written(scratch: Path, name: str, config: dict[str, Any]) -> Path:
    file = scratch / f"{name}.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return file


def _running(command: tuple[str | Path, ...], port: int, log: Path) -> Running:
    process = Process(command, log, cwd=REPOSITORY)
    try:
        process.wait_until(lambda: accepts(port), "listening port")
    except ServerFailed:
        process.stop()
        raise
    return Running(process, "http", [port], {"server": [process.pid]})


def _ours(store: Valkey, scratch: Path) -> Running:
    port = free_ports()
    config = {
        "client": {"insecure": True},
        "http_api": {"key": KEY},
        "channel": _CHANNELS,
        "log": {"level": "warning"},
    }
    file = _written(scratch, "ours", config)
    worker = (sys.executable, "-m", "benchmarks.api.api_worker", file, str(port), store.url)
    return _running(worker, port, scratch / "ours.log")


def _centrifugo(store: Valkey, scratch: Path) -> Running:
    port = free_ports()
    config = {
        "http_server": {"address": HOST, "port": str(port)},
        "engine": {"type": "redis", "redis": {"address": store.url}},
        "http_api": {"key": KEY},
        "channel": _CHANNELS,
        "log": {"level": "error"},
    }
    file = _written(scratch, "centrifugo", config)
    command = (install.centrifugo(), "--config", file)
    return _running(command, port, scratch / "centrifugo.log")


def centrifugo_version() -> str:
    """The version of Centrifugo that go.mod names."""
    lines = (PEERS / "centrifugo" / "go.mod").read_text(encoding="utf-8").splitlines()
    [version] = [line.split()[1] for line in lines if line.strip().startswith(f"{CENTRIFUGO} ")]
    return version


API_SERVERS = {
    "ours": Server("ws-cluster, one worker", _ours),
    "centrifugo": Server("Centrifugo", _centrifugo, install.centrifugo),
}
