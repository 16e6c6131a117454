"""A worker without clients: it boots, accepts, sends heartbeats and drains like a real one.

The file `mode` in the directory FAKE_WORKER_DIR selects a fault: `boot` fails to boot, `final` too and says
that it would again, `away` unless the worker is told to wait for the store, `mute` never reports ready,
`stubborn` ignores SIGTERM, `slow` takes a second to drain, `held` until a file `release` exists. While a file
`not_ready` exists, the worker reports not_ready. With FAKE_WORKER_METRICS it writes real multiprocess files.
Its exit code after a drain is the number of further stop signals, which hurry a real worker.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

HEARTBEAT_SECONDS = 0.2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for flag in ("slot", "lane", "instance", "listen-fd", "status-fd", "config-fd"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--local-fd")
    parser.add_argument("--patient", action="store_true")
    return parser.parse_args()


class FakeWorker:
    def __init__(self) -> None:
        given = arguments()
        self.lane = given.lane
        self.is_patient = given.patient
        self.status_fd = int(given.status_fd)
        fds = [int(fd) for fd in (given.listen_fd, given.local_fd) if fd]
        self.listeners = [socket.socket(fileno=fd) for fd in fds]
        with os.fdopen(int(given.config_fd), "rb") as document:
            self.config = json.loads(document.read())
        self.folder = Path(os.environ["FAKE_WORKER_DIR"])
        mode = self.folder / "mode"
        self.mode = mode.read_text().strip() if mode.exists() else ""
        self.stop_signals: list[int] = []

    def report(self, state: str, **more: str) -> None:
        os.write(self.status_fd, json.dumps({"state": state, **more}).encode() + b"\n")

    def run(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: self.stop_signals.append(1))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.report("starting")
        if self.mode == "boot" or (self.mode == "away" and not self.is_patient):
            self.report("failed", reason="the fake worker fails because of its mode")
            return 3
        if self.mode == "final":
            self.report("failed", reason="the fake worker fails because of its mode", final="yes")
            return 3
        if os.environ.get("FAKE_WORKER_METRICS"):
            self.write_metrics()
        while self.mode == "mute":
            time.sleep(0.05)
            if self.stop_signals:
                return 0
        self.serve()
        return self.drain()

    def write_metrics(self) -> None:
        from cluster.metrics.counters import Counters
        from cluster.metrics.worker_metrics import WorkerMetrics

        metrics, counters = WorkerMetrics(self.lane), Counters()
        counters.connections_opened += 1
        metrics.set("app_active_connections", 7)
        metrics.flush(counters)

    def serve(self) -> None:
        self.report("ready")
        while not self.stop_signals or self.mode == "stubborn":
            readable, _, _ = select.select(self.listeners, [], [], HEARTBEAT_SECONDS / 4)
            for listener in readable:
                self.answer(listener)
            if self.is_not_ready():
                self.report("not_ready", reason="not_ready: the file exists")
            else:
                self.report("ready")

    def is_not_ready(self) -> bool:
        return (self.folder / "not_ready").exists()

    def answer(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        with connection:
            connection.settimeout(2)
            connection.recv(65536)
            body = f"{self.lane} {os.getpid()} {self.config['client']['channel_limit']}".encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)

    def drain(self) -> int:
        for listener in self.listeners:
            listener.close()
        self.report("draining", phase="clients")
        if self.mode == "slow":
            time.sleep(1.0)
        while self.mode == "held" and not (self.folder / "release").exists():
            self.report("draining", phase="clients")
            time.sleep(HEARTBEAT_SECONDS)
        self.report("draining", phase="broker")
        self.report("draining", phase="sessions")
        return max(0, len(self.stop_signals) - 1)


if __name__ == "__main__":
    sys.exit(FakeWorker().run())
