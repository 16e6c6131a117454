"""Publishing through the server API: publishes per second and core, and a broadcast's longest turn.

One worker without a supervisor, a Valkey of its own, and a generator that sends over eight kept-alive
connections, each with one request in flight. Per core is publishes divided by the CPU seconds of the
worker's process. The longest turn is what a broadcast to 10,000 channels holds the event loop at most,
measured in the worker by how late a timer of one millisecond is; and by the CPU time that the loop's thread
has used between two of these timers, which other processes of a busy machine do not lengthen.

    python -m benchmarks.api [--seconds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

KEY = "benchmark-key-of-the-server-api-0123456789"
CONNECTIONS = 8
CHANNELS = 10_000
DATA = {"text": "x" * 100}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def serve(file: str, port: int, redis_url: str) -> int:
    """Be the worker; `rpc` of the method `turns` returns the longest turn of the loop since the last call, by clock and by CPU time."""
    from benchmarks import one_worker

    longest = [0.0, 0.0]
    watch: list[asyncio.Task[None]] = []

    async def measure() -> None:
        while True:
            due, used = time.monotonic() + 0.001, time.thread_time()
            await asyncio.sleep(0.001)
            longest[0] = max(longest[0], time.monotonic() - due)
            longest[1] = max(longest[1], time.thread_time() - used)

    def turns(user: str, data: Any) -> Any:
        if not watch:
            watch.append(asyncio.get_running_loop().create_task(measure()))
        found, longest[:] = list(longest), (0.0, 0.0)
        return found

    return one_worker.serve(Path(file), port, redis_url, {"turns": turns})


@contextlib.contextmanager
def started() -> Iterator[tuple[int, int]]:
    """A Valkey and a worker; yields the worker's port and pid."""
    from cluster.children.binaries import valkey_program

    with tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as directory:
        store_port, port = free_port(), free_port()
        file = Path(directory) / "config.json"
        spaces = [{"name": "kept", "history_size": 100, "history_ttl": "60s"}]
        config = {
            "client": {"insecure": True},
            "http_api": {"key": KEY},
            "channel": {"namespaces": spaces},
        }
        file.write_text(json.dumps(config), encoding="utf-8")
        store = subprocess.Popen(
            [valkey_program(), "--port", str(store_port), "--save", "", "--dir", directory],
            stdout=subprocess.DEVNULL,
        )
        url = f"redis://127.0.0.1:{store_port}"
        await_port(store_port)
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.api", "--serve", str(file), str(port), url],
            stdout=subprocess.DEVNULL,
        )
        try:
            await_port(port)
            yield port, worker.pid
        finally:
            for process in (worker, store):
                process.send_signal(signal.SIGTERM)
            for process in (worker, store):
                process.wait(20)


def await_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


async def raw_publishes(port: int, channel: str, until: float) -> int:
    """Publish over one connection as fast as the answers come; a client library would cost more than we do."""
    body = json.dumps({"channel": channel, "data": DATA}).encode()
    head = (
        f"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.monotonic() < until:
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(answer.decode())
        length = next(
            int(line.partition(b":")[2])
            for line in answer.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        if b'"result"' not in await reader.readexactly(length):
            raise SystemExit("a publish was refused")
        count += 1
    writer.close()
    return count


async def measured_publishes(port: int, pid: int, channel: str, seconds: float) -> dict[str, float]:
    await raw_publishes(port, channel, time.monotonic() + 0.5)
    began, cpu = time.monotonic(), cpu_seconds(pid)
    counts = await asyncio.gather(
        *(raw_publishes(port, channel, began + seconds) for _ in range(CONNECTIONS))
    )
    wall, used = time.monotonic() - began, cpu_seconds(pid) - cpu
    return {"per_second": sum(counts) / wall, "per_core": sum(counts) / used}


async def call(http: aiohttp.ClientSession, port: int, method: str, params: Any) -> Any:
    url = f"http://127.0.0.1:{port}/api/{method}"
    async with http.post(url, json=params, headers={"X-API-Key": KEY}) as response:
        return (await response.json())["result"]


async def measured_broadcast(port: int, rounds: int) -> dict[str, float]:
    channels = [f"kept:{number}" for number in range(CHANNELS)]
    turns, durations = [], []
    async with aiohttp.ClientSession() as http:
        await call(http, port, "rpc", {"method": "turns"})
        for _ in range(rounds):
            await call(http, port, "rpc", {"method": "turns"})
            since = time.monotonic()
            found = await call(http, port, "broadcast", {"channels": channels, "data": DATA})
            durations.append(time.monotonic() - since)
            if len(found["responses"]) != CHANNELS:
                raise SystemExit("a broadcast lacks responses")
            turns.append((await call(http, port, "rpc", {"method": "turns"}))["data"])
    return {
        "seconds": sorted(durations)[rounds // 2],
        "longest_turn_ms": 1000 * max(wall for wall, _ in turns),
        "longest_cpu_ms": 1000 * max(cpu for _, cpu in turns),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load of publishes")
    parser.add_argument("--serve", nargs=3, metavar=("FILE", "PORT", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        file, port, url = arguments.serve
        return serve(file, int(port), url)
    with started() as (port, pid):
        for name, channel in (("without history", "news"), ("with history", "kept:one")):
            found = asyncio.run(measured_publishes(port, pid, channel, arguments.seconds))
            print(
                f"publish {name}: {found['per_second']:,.0f} per second,"
                f" {found['per_core']:,.0f} per second and core"
            )
        found = asyncio.run(measured_broadcast(port, 5))
        print(
            f"broadcast to {CHANNELS:,} channels: {found['seconds']:.3f} s,"
            f" longest turn {found['longest_turn_ms']:.1f} ms, {found['longest_cpu_ms']:.1f} ms of CPU"
        )
    print("load average: " + " ".join(f"{one:.1f}" for one in os.getloadavg()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
