"""A worker without clients: it boots, accepts, beats and drains as the supervisor expects.

What it does wrong on purpose is named in the file `mode` of the directory FAKE_WORKER_DIR:
`boot` fails to boot, `mute` never says that it is ready, `stubborn` ignores SIGTERM,
`slow` takes a second to drain. While a file `deaf` is there it is not ready. With FAKE_WORKER_METRICS it writes real multiprocess files.
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

BEAT_SECONDS = 0.2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for flag in ("slot", "lane", "instance", "listen-fd", "status-fd", "config-fd"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--patient", action="store_true")
    return parser.parse_args()


class FakeWorker:
    def __init__(self) -> None:
        given = arguments()
        self.lane = given.lane
        self.status_fd = int(given.status_fd)
        self.listener = socket.socket(fileno=int(given.listen_fd))
        with os.fdopen(int(given.config_fd), "rb") as document:
            self.config = json.loads(document.read())
        self.folder = Path(os.environ["FAKE_WORKER_DIR"])
        mode = self.folder / "mode"
        self.mode = mode.read_text().strip() if mode.exists() else ""
        self.asked: list[int] = []

    def say(self, state: str, **more: str) -> None:
        os.write(self.status_fd, json.dumps({"state": state, **more}).encode() + b"\n")

    def run(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: self.asked.append(1))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.say("starting")
        if self.mode == "boot":
            self.say("failed", reason="the fake worker was told to fail; tell it otherwise")
            return 3
        if os.environ.get("FAKE_WORKER_METRICS"):
            self.write_metrics()
        while self.mode == "mute":
            time.sleep(0.05)
            if self.asked:
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
        self.say("ready")
        while not self.asked or self.mode == "stubborn":
            readable, _, _ = select.select([self.listener], [], [], BEAT_SECONDS / 4)
            if readable:
                self.answer()
            if self.is_deaf():
                self.say("not_ready", reason="deaf: the fake worker was told so")
            else:
                self.say("ready")

    def is_deaf(self) -> bool:
        return (self.folder / "deaf").exists()

    def answer(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return
        with connection:
            connection.settimeout(2)
            connection.recv(65536)
            body = f"{self.lane} {os.getpid()} {self.config['client']['channel_limit']}".encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)

    def drain(self) -> int:
        self.listener.close()
        self.say("draining", phase="clients")
        if self.mode == "slow":
            time.sleep(1.0)
        self.say("draining", phase="broker")
        self.say("draining", phase="sessions")
        return 0


if __name__ == "__main__":
    sys.exit(FakeWorker().run())
