"""A running stack: pauses before a restart, and the names of targets."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.line_writer import LineWriter, open_for_append
from cluster.monitor.stack import up
from cluster.monitor.stack.up import pause_seconds


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 1), (1, 2), (4, 16), (5, 30), (2000, 30), (10**6, 30)]
)
def test_a_child_that_keeps_ending_is_started_again_after_half_a_minute_at_most(
    failures: int, seconds: float
):
    assert pause_seconds(failures) == seconds


class AdminPort(BaseHTTPRequestHandler):
    name = "first:8001"

    def do_GET(self) -> None:
        body = json.dumps({"status": "ok", "version": "1", "instance": AdminPort.name}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Write nothing."""


def test_a_full_disk_keeps_the_old_names_of_targets_and_is_said_once(tmp_path: Path):
    targets, output = tmp_path / "websocket-app.json", tmp_path / "output"
    targets.write_text("old")
    # A directory in its place cannot be written, also not by root.
    (tmp_path / "websocket-app.new").mkdir()
    options: Any = SimpleNamespace(apps=("127.0.0.1:8001",))
    rendered: Any = SimpleNamespace(targets=targets)
    writer = LineWriter(open_for_append(str(output)), path=str(output))
    one = up._Stack(options, [], rendered, writer)
    for _ in range(3):
        one._are_named = False
        one._name_targets()
    assert targets.read_text() == "old"
    (tmp_path / "websocket-app.new").rmdir()
    one._name_targets()
    assert "127.0.0.1:8001" in targets.read_text(), "it is tried again"
    one._name_targets()
    writer.close()
    said = output.read_text().splitlines()
    assert len(said) == 2
    assert f"{targets} cannot be written (Is a directory): it is kept as it was" in said[0]
    assert f"{targets} is written again, after 3 failures" in said[1]


def test_a_target_has_the_instance_name_of_its_logs_also_after_a_change(tmp_path: Path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), AdminPort)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    app = f"127.0.0.1:{server.server_port}"
    targets = tmp_path / "websocket-app.json"
    options: Any = SimpleNamespace(apps=(app,))
    rendered: Any = SimpleNamespace(targets=targets)
    one = up._Stack(options, [], rendered, LineWriter(os.open(os.devnull, os.O_WRONLY)))

    def shown() -> str:
        [group] = json.loads(targets.read_text())
        assert group["targets"] == [app]
        return str(group["labels"]["instance"])

    try:
        one._name_targets()
        assert shown() == "first:8001"
        AdminPort.name = "second:8001"
        one._name_targets()
        assert shown() == "first:8001", "it is not asked all the time"
        one._name_again_at[app] = 0.0
        one._name_targets()
        assert shown() == "second:8001"
    finally:
        server.shutdown()
        server.server_close()
