"""The program as a user starts it: real workers, Valkey and nginx."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import websockets.sync.client

from tests.harness.processes import cpu_seconds
from tests.integration.running import ROOT, eventually, free_ports

PROGRAM = (sys.executable, "-m", "cluster")


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=ROOT,
        env=os.environ | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class PseudoTerminal:
    """The program on a pseudo-terminal."""

    def __init__(self, data_dir, *arguments: str) -> None:
        ports = free_ports(6)
        self.public = ports[0]
        self.screen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            flags = ["--port", ports[0], "--admin-port", ports[1], "--worker-port-base", ports[2]]
            flags += ["--development", "--data-dir", data_dir, "--workers", 2]
            os.execv(sys.executable, [*PROGRAM, "up", *(str(flag) for flag in flags), *arguments])

    def read(self) -> str:
        while select.select([self.fd], [], [], 0.05)[0]:
            try:
                chunk = os.read(self.fd, 65536)
            except OSError:
                break
            if not chunk:
                break
            self.screen += chunk.decode()
        return self.screen

    def waits_for(self, text: str) -> None:
        eventually(lambda: text in self.read(), f"{text!r} is on the screen")

    def exit_code(self) -> int:
        code: list[int] = []

        def ended() -> bool:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code.append(os.waitstatus_to_exitcode(status))
            return pid != 0

        eventually(ended, "the program has ended")
        os.close(self.fd)
        return code[-1]


@pytest.fixture
def a_terminal(tmp_path):
    opened = []

    def make(*arguments: str) -> PseudoTerminal:
        opened.append(PseudoTerminal(tmp_path / "data", *arguments))
        return opened[-1]

    yield make
    for terminal in opened:
        if psutil.pid_exists(terminal.pid):
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)


def test_a_client_is_served_through_nginx_and_ctrl_c_leaves_nothing(a_terminal, tmp_path):
    terminal = a_terminal()
    terminal.waits_for("2/2 workers ready")
    for text in (
        f"ws://127.0.0.1:{terminal.public}/connection/websocket",
        "admin    http://127.0.0.1:",
        "workers  2 at 127.0.0.1:",
        f"state    {tmp_path}/data",
        "insecure mode",
        "loopback only",
    ):
        assert text in terminal.screen
    url = f"ws://127.0.0.1:{terminal.public}/connection/websocket"
    with websockets.sync.client.connect(url) as client:
        client.send('{"id":1,"connect":{}}')
        assert json.loads(client.recv())["connect"]["data"]["session"]["resumed"] is False
        terminal.waits_for("1 connections")
        family = psutil.Process(terminal.pid).children(recursive=True)
        os.write(terminal.fd, b"\x03")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            client.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3001
    assert terminal.exit_code() == 0
    assert [p for p in family if p.is_running() and p.status() != "zombie"] == []
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "admin.key",
        "lock",
        "log",
        "shutdowns.jsonl",
        "valkey",
    ]


def test_closing_the_terminal_ends_the_cluster(a_terminal, tmp_path):
    terminal = a_terminal()
    terminal.waits_for("2/2 workers ready")
    family = psutil.Process(terminal.pid).children(recursive=True)
    os.close(terminal.fd)
    eventually(lambda: os.waitpid(terminal.pid, os.WNOHANG)[0], "the program has ended")
    assert [p for p in family if p.is_running() and p.status() != "zombie"] == []


def test_a_session_and_a_token_never_reach_nginx_s_log(a_terminal, tmp_path):
    terminal = a_terminal()
    terminal.waits_for("2/2 workers ready")
    url = f"ws://127.0.0.1:{terminal.public}/connection/websocket?session=5ec2e7&token=5ec2e7"
    with websockets.sync.client.connect(url):
        pass
    os.write(terminal.fd, b"\x03")
    assert terminal.exit_code() == 0
    lines = (tmp_path / "data/log/access.log").read_text().splitlines()
    assert [json.loads(line)["uri"] for line in lines] == ["/connection/websocket"]
    assert "5ec2e7" not in "".join(lines) + terminal.screen


def test_supervisor_and_workers_log_into_one_file_beside_the_screen(a_terminal, tmp_path):
    terminal = a_terminal()
    terminal.waits_for("2/2 workers ready")
    os.write(terminal.fd, b"\x03")
    assert terminal.exit_code() == 0
    text = (tmp_path / "data/log/app.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line.get("worker") for line in lines} >= {None, "w0a", "w1a"}
    assert "cluster_started" in {line["event"] for line in lines}
    assert "5ec2e7" not in text
    shown = run("monitor", "logs", "app", "--cluster-dir", str(tmp_path / "data"))
    assert shown.returncode == 0
    assert "cluster_started" in shown.stdout


def test_metrics_are_served_through_nginx_to_private_addresses(a_terminal):
    terminal = a_terminal()
    terminal.waits_for("2/2 workers ready")
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{terminal.public}/metrics") as answer:
        assert b"app_workers_alive 2.0" in answer.read()
    os.write(terminal.fd, b"\x03")
    assert terminal.exit_code() == 0


def test_a_killed_nginx_leaves_no_worker_of_its_own_and_comes_back(a_terminal):
    terminal = a_terminal()
    terminal.waits_for("2/2 workers ready")
    family = psutil.Process(terminal.pid).children()
    master = next(p for p in family if "nginx" in " ".join(p.cmdline()))
    orphans = master.children()
    master.kill()
    eventually(lambda: not any(p.is_running() and p.status() != "zombie" for p in orphans), "gone")

    def upgrades() -> bool:
        url = f"ws://127.0.0.1:{terminal.public}/connection/websocket"
        try:
            with websockets.sync.client.connect(url, open_timeout=5):
                return True
        except (OSError, websockets.exceptions.InvalidStatus):
            return False

    eventually(upgrades, "nginx serves again")
    os.write(terminal.fd, b"\x03")
    assert terminal.exit_code() == 0


def test_without_insecure_mode_and_without_keys_the_error_says_what_to_set():
    done = run("up")
    assert done.returncode == 78
    assert "client.token.hmac_secret_key" in done.stderr
    assert "client.insecure = true for development" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_all_mistakes_of_file_environment_and_flags_are_reported_at_once(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text("[client]\ninsecure = true\nping_intervall = 3\n")
    done = run("up", "--config", str(file), "--port", "99999", WS_CLUSTER_SESSION__TTL="never")
    assert done.returncode == 78
    for text in (
        "client.ping_intervall",
        "nearest is client.ping_interval",
        "server.port: 99999",
        "session.ttl",
    ):
        assert text in done.stderr


def test_check_config_tells_good_from_bad(tmp_path):
    good = run("check-config", "cluster/config/development.toml")
    assert (good.returncode, good.stdout) == (0, "cluster/config/development.toml is fine\n")
    missing = run("check-config", str(tmp_path / "none.toml"))
    assert missing.returncode == 78
    assert "cannot be read: No such file or directory" in missing.stderr


def test_the_version_is_printed():
    done = run("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"ws-cluster \d+\.\d+\.\d+\n", done.stdout)


def test_the_supervisor_does_not_import_the_worker():
    code = "import sys, cluster.supervisor, cluster.cli; print('cluster.worker' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_worker_imports_the_libraries_of_signatures_only_for_a_key():
    code = (
        "import sys, cluster.worker; from cluster.auth import Authenticator;"
        "from cluster.config import Config; from cluster.metrics.counters import Counters;"
        "Authenticator(Config(), Counters()); print('jwt' in sys.modules, 'cryptography.hazmat' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]


def test_a_worker_of_an_embedded_valkey_starts_without_redis_py():
    code = (
        "import sys, cluster.worker; from cluster.resp.router import Router;"
        "import asyncio\n"
        "async def make(): Router(['unix:///a/socket'], timeout_seconds=1)\n"
        "asyncio.run(make()); print('redis' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_an_import_looks_for_no_garbage_and_what_follows_does():
    code = (
        "import gc; found = []; import cluster.quick_imports\n"
        "gc.callbacks.append(lambda phase, about: found.append(phase))\n"
        "import cluster.__main__; print(len(found), gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["0", "True", "True"]


def test_with_another_host_address_the_workers_still_listen_on_loopback(tmp_path):
    port, admin, base = free_ports(3)
    flags = [
        "--host",
        "127.0.0.2",
        "--port",
        port,
        "--admin-port",
        admin,
        "--worker-port-base",
        base,
    ]
    flags += ["--development", "--data-dir", tmp_path / "data", "--workers", 1]
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [*PROGRAM, "up", *(str(flag) for flag in flags)], cwd=ROOT, stdout=file
        )
    try:
        eventually(lambda: '"cluster_started"' in out.read_text(), "it has started")
        with websockets.sync.client.connect(
            f"ws://127.0.0.2:{port}/connection/websocket", proxy=None
        ) as client:
            client.send('{"id":1,"connect":{}}')
            assert '"connect"' in client.recv(10)
        with socket.create_connection(("127.0.0.1", base), 5):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", base), 5)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    log = (tmp_path / "data" / "log" / "access.log").read_text().splitlines()
    assert json.loads(log[0])["instance"] == json.loads(out.read_text().splitlines()[0])["instance"]


@pytest.mark.alone
def test_four_workers_are_ready_after_three_seconds_of_two_cores(tmp_path):
    ports = free_ports(7)
    flags = ["--port", ports[0], "--admin-port", ports[1], "--worker-port-base", ports[2]]
    flags += ["--development", "--data-dir", tmp_path / "data", "--workers", 4]
    out = tmp_path / "out"
    began = time.monotonic()
    with out.open("wb") as file:
        process = subprocess.Popen(
            [*PROGRAM, "up", *(str(flag) for flag in flags)], cwd=ROOT, stdout=file
        )
    eventually(lambda: '"cluster_started"' in out.read_text(), "it has started")
    waited = time.monotonic() - began
    worked = cpu_seconds(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    # The goal is 3 s on an idle machine with two cores, which a benchmark measures. Here the machine
    # may be busy, so the work is bounded, and the wait only generously.
    assert worked < 6
    assert waited < 30
