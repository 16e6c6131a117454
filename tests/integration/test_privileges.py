"""A cluster that root starts: who its processes are, and what becomes of its files.

These need root, and a Python that other users can read: a copy, where they cannot read this one.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import certifi
import psutil
import pytest

from tests.harness import processes
from tests.harness.needs import is_not_permitted, needs_root
from tests.integration.running import ROOT, eventually

NOBODY = 65534
SITE = next(path for path in sys.path if path.endswith("site-packages"))
INSECURE = "[client]\ninsecure = true\n"


def places(program: str | Path) -> tuple[Path, Path]:
    """The checkout and the packages of a program: copies beside it, if others cannot read their own."""
    base = Path(program).parents[1]
    copies = base / "checkout", base / "packages"
    return copies if all(copy.exists() for copy in copies) else (ROOT, Path(SITE))


def import_paths(program: str | Path) -> dict[str, str]:
    return {
        "PYTHONPATH": ":".join(map(str, places(program))),
        "LD_LIBRARY_PATH": str(Path(program).parents[1] / "lib"),
    }


def link(source: str, target: str) -> None:
    """A second name of a file, or a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def public_python(folder: Path) -> str:
    """This Python at a place that other users can read, with its packages; empty if impossible."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    program = folder / "bin" / version
    program.parent.mkdir(parents=True)
    ignored = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "config-*")
    link(str((base / "bin" / version).resolve()), str(program))
    library = f"lib/{version}"
    shutil.copytree(base / library, folder / library, ignore=ignored, copy_function=link)
    for shared in (base / "lib").glob("libpython*.so.*"):
        link(str(shared), str(folder / "lib" / shared.name))
    if not runs_as_nobody(program):
        # The checkout, or a folder above it, can be entered by its owner only.
        shutil.copytree(SITE, folder / "packages", copy_function=link)
        for part in ("cluster", "nginx", "docker"):
            shutil.copytree(ROOT / part, folder / "checkout" / part)
    return str(program) if runs_as_nobody(program) else ""


def runs_as_nobody(program: Path) -> bool:
    done = subprocess.run(
        [program, "-c", "import aiohttp, cluster"],
        user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, check=False,
        env={"PATH": os.environ["PATH"]} | import_paths(program),
    )  # fmt: skip
    return done.returncode == 0


pytestmark = needs_root("only root can become another user")


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="ws-cluster-python-"))
    folder.chmod(0o755)
    found = ""
    with suppress(OSError):
        found = public_python(folder)
    if not found:
        shutil.rmtree(folder, ignore_errors=True)
        is_not_permitted("this Python, its packages or this checkout cannot be read by nobody")
    yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody can enter; pytest's own are closed to other users."""
    path = Path(tempfile.mkdtemp(prefix="ws-cluster-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


class Up:
    """`ws-cluster up` with nginx, Valkey and two workers."""

    def __init__(self, python: str, folder: Path, *flags: str, options: str = INSECURE) -> None:
        first = processes.free_ports(6)
        self.admin = first + 1
        self.data = folder / "data"
        self.config = folder / "cluster.toml"
        self.out = folder / "out"
        self.config.write_text(options, encoding="utf-8")
        command = [python, "-m", "cluster", "up", "--config", str(self.config)]
        command += ["--host", "127.0.0.1", "--port", str(first), "--admin-port", str(first + 1)]
        command += ["--workers", "2", "--data-dir", str(self.data), *flags]
        environment = os.environ | import_paths(python)
        environment["WS_CLUSTER_SERVER__WORKER_PORT_BASE"] = str(first + 2)
        with self.out.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=places(python)[0]
            )

    def ready(self) -> Up:
        eventually(self.is_ready_or_dead, "the cluster is ready")
        assert self.process.poll() is None, self.out.read_text(encoding="utf-8")
        return self

    def is_ready_or_dead(self) -> bool:
        if self.process.poll() is not None:
            return True
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=2)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def events(self, name: str) -> list[dict[str, object]]:
        lines = self.out.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in found if event["event"] == name]

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[int]:
        """The process ids of the workers; other children come and go, as those of nginx in a reload."""
        found = []
        for child in self.children():
            with suppress(psutil.NoSuchProcess):
                if "worker" in child.cmdline():
                    found.append(child.pid)
        return found

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture
def up(python: str, folder: Path) -> Iterator[object]:
    started: list[Up] = []

    def start(*flags: str, options: str = INSECURE) -> Up:
        started.append(Up(python, folder, *flags, options=options))
        return started[-1].ready()

    yield start
    for one in started:
        one.stop()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def assert_is_nobody(pid: int) -> None:
    status = status_of(pid)
    assert status["Uid"].split() == [str(NOBODY)] * 4, status["Name"]
    assert status["Gid"].split() == [str(NOBODY)] * 4, status["Name"]
    assert set(status["Groups"].split()) <= {str(NOBODY)}, status["Name"]
    assert status["NoNewPrivs"] == "1", status["Name"]
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0, status["Name"]


def owners(folder: Path) -> set[int]:
    return {folder.lstat().st_uid, *(path.lstat().st_uid for path in folder.rglob("*"))}


def test_started_as_root_every_process_is_an_ordinary_user_without_new_privileges(up):
    cluster = up()
    pids = [cluster.process.pid, *(child.pid for child in cluster.children())]
    names = " ".join(status_of(pid)["Name"] for pid in pids)
    assert len(pids) >= 6, names
    assert "nginx" in names
    assert "valkey" in names
    for pid in pids:
        assert_is_nobody(pid)
    assert owners(cluster.data) == {NOBODY}
    assert not cluster.events("privileges_kept")
    assert cluster.stop() == 0


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_whoever_the_processes_are_nginx_reaches_the_workers_over_unix_sockets(up, user: str):
    cluster = up(options=f'{INSECURE}[server]\nuser = "{user}"\n')
    conf = (cluster.data / "run/nginx/nginx.conf").read_text(encoding="utf-8")
    sockets = [Path(path) for path in re.findall(r'server "unix:(\S+)" max_fails=0;', conf)]
    assert [path.name for path in sockets] == ["w0", "w1"]
    assert {path.stat().st_uid for path in sockets} == {NOBODY if user == "nobody" else 0}
    for path in sockets:
        # Others can neither connect nor see them.
        assert not path.stat().st_mode & 0o007
        assert not path.parent.stat().st_mode & 0o007
    connection = http.client.HTTPConnection("127.0.0.1", cluster.admin - 1, timeout=10)
    connection.request("GET", "/connection/websocket")
    assert connection.getresponse().status == 400
    connection.close()
    assert cluster.stop() == 0
    assert not any(path.parent.exists() for path in sockets)


def test_a_roll_a_lost_worker_and_an_added_worker_are_that_user_too(up):
    cluster = up()
    before = {child.pid for child in cluster.children()}
    cluster.process.send_signal(signal.SIGHUP)
    eventually(
        lambda: [e for e in cluster.events("operation_finished") if e["done"]], "the roll is done"
    )
    cluster.process.send_signal(signal.SIGTTIN)
    eventually(lambda: len(cluster.events("operation_finished")) == 2, "a worker was added")
    assert cluster.events("operation_finished")[1]["done"]
    workers = [pid for pid in cluster.workers() if pid not in before]
    assert len(workers) == 3
    lost = workers[0]
    os.kill(lost, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(lost), "the worker is gone")
    eventually(cluster.is_ready_or_dead, "the cluster is ready again")
    eventually(lambda: len(cluster.workers()) == 3, "a new worker")
    for child in cluster.children():
        # One of nginx's may have ended meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            assert_is_nobody(child.pid)
    assert cluster.stop() == 0


def test_a_second_run_and_a_run_after_a_kill_find_their_files(up):
    assert up().stop() == 0
    killed = up()
    killed.process.kill()
    killed.process.wait(10)
    third = up()
    assert_is_nobody(third.process.pid)
    named = {child.environ().get("PROMETHEUS_MULTIPROC_DIR", "") for child in third.children()}
    [metrics] = {Path(name) for name in named if name}
    assert metrics.parent.name.startswith("ws-cluster-") or metrics.name.startswith("ws-cluster-")
    assert metrics.lstat().st_uid == NOBODY
    assert third.stop() == 0
    assert not metrics.exists()


def test_what_an_earlier_version_left_as_root_is_given_away_and_nothing_else(up, folder: Path):
    log = folder / "data/log"
    log.mkdir(parents=True)
    (log / "app.log").write_text("old\n", encoding="utf-8")
    outside = folder / "outside"
    outside.mkdir(mode=0o755)
    (outside / "secret").write_text("x", encoding="utf-8")
    (log / "link").symlink_to(outside)
    os.link(outside / "secret", log / "second-name")
    cluster = up()
    assert log.stat().st_uid == (log / "app.log").stat().st_uid == NOBODY
    assert outside.stat().st_uid == (outside / "secret").stat().st_uid == 0
    assert cluster.stop() == 0


def test_a_configuration_that_only_root_can_read_can_still_be_rolled(up, folder: Path):
    folder.joinpath("cluster.toml").touch(mode=0o600)
    cluster = up()
    [warning] = cluster.events("privileges_kept")
    assert "keeps root in reserve" in str(warning["reason"])
    assert "cluster.toml" in str(warning["reason"])
    cluster.process.send_signal(signal.SIGHUP)
    eventually(lambda: cluster.events("operation_finished"), "the roll has ended")
    assert cluster.events("operation_finished")[0]["done"], cluster.events("reload_failed")
    assert status_of(cluster.process.pid)["Uid"].split() == ["0", str(NOBODY), "0", str(NOBODY)]
    children = cluster.children()
    assert len(children) >= 5
    for child in children:
        assert_is_nobody(child.pid)
    assert owners(cluster.data) == {NOBODY}
    assert cluster.stop() == 0


@pytest.mark.parametrize("kept", ["closed folder", "foreign entry", "option"])
def test_root_is_kept_with_a_reason_where_the_user_could_not_work(up, folder: Path, kept: str):
    options = INSECURE
    if kept == "closed folder":
        folder.chmod(0o700)
    elif kept == "foreign entry":
        (folder / "data").mkdir()
        (folder / "data/thesis.txt").write_text("mine", encoding="utf-8")
    else:
        options += '[server]\nuser = "root"\n'
    cluster = up(options=options)
    reasons = [str(event["reason"]) for event in cluster.events("privileges_kept")]
    expected = {
        "closed folder": [f"nobody cannot enter {folder}"],
        "foreign entry": ["also holds thesis.txt"],
        "option": [],
    }[kept]
    assert len(reasons) == len(expected)
    for reason, part in zip(reasons, expected, strict=True):
        assert reason.startswith("every process stays root, because ")
        assert part in reason
    kept_files = (folder / "data", folder / "data/lock", *(folder / "data/valkey").rglob("*"))
    assert {path.lstat().st_uid for path in kept_files} == {0}
    cluster.process.send_signal(signal.SIGHUP)
    eventually(lambda: cluster.events("operation_finished"), "the roll has ended")
    assert cluster.events("operation_finished")[0]["done"]
    for child in cluster.children():
        assert status_of(child.pid)["NoNewPrivs"] == "1"
    assert cluster.stop() == 0


def test_a_certificate_that_only_root_can_read_keeps_root(python: str, folder: Path):
    key = folder / "ca.pem"
    shutil.copyfile(certifi.where(), key)
    key.chmod(0o600)
    url = f"rediss://127.0.0.1:1/0?ssl_ca_certs={key}"
    cluster = Up(python, folder, options=INSECURE + f'[broker]\nredis_urls = ["{url}"]\n')
    try:
        eventually(
            lambda: cluster.events("privileges_kept") or cluster.process.poll() is not None,
            "the warning is logged, or the program has ended",
        )
        assert f"nobody cannot read {key}" in str(cluster.events("privileges_kept"))
    finally:
        cluster.process.kill()
        cluster.process.wait(10)


def test_an_unknown_user_is_refused_with_a_sentence(python: str, folder: Path):
    cluster = Up(python, folder, options=INSECURE + '[server]\nuser = "no-such-user"\n')
    assert cluster.process.wait(30) == 78
    text = cluster.out.read_text(encoding="utf-8")
    assert "server.user" in text
    assert "give a user of this machine" in text


class MonitoringUp:
    """`ws-cluster monitoring up` with all of its programs; no cluster is scraped."""

    def __init__(self, python: str, folder: Path, *flags: str) -> None:
        first = processes.free_ports(5)
        self.data = folder / "monitoring"
        self.out = folder / "monitoring.out"
        command = [python, "-m", "cluster", "monitoring", "up", "--data-dir", str(self.data)]
        ports = ("prometheus", "alertmanager", "node-exporter", "receiver", "tracker")
        for number, name in enumerate(ports, first):
            command += [f"--{name}-port", str(number)]
        command += ["--app", f"127.0.0.1:{first + 5}", *flags]
        environment = os.environ | import_paths(python)
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=places(python)[0]
            )

    def text(self) -> str:
        return self.out.read_text(encoding="utf-8")

    def ready(self) -> MonitoringUp:
        eventually(
            lambda: "monitoring is ready" in self.text() or self.process.poll() is not None,
            "the monitoring is ready",
            90,
        )
        assert self.process.poll() is None, self.text()
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@pytest.fixture
def monitoring(python: str, folder: Path) -> Iterator[Callable[..., MonitoringUp]]:
    started: list[MonitoringUp] = []

    def start(*flags: str) -> MonitoringUp:
        started.append(MonitoringUp(python, folder, *flags))
        return started[-1].ready()

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in (folder, *folder.rglob("*"))}


def test_the_programs_of_the_monitoring_are_an_ordinary_user_and_their_files_private(monitoring):
    for _ in range(2):
        one = monitoring()
        pids = [one.process.pid, *(c.pid for c in psutil.Process(one.process.pid).children())]
        assert len(pids) == 6
        assert "stays root" not in one.text(), one.text()
        for pid in pids:
            assert_is_nobody(pid)
        assert owners(one.data) == {NOBODY}
        assert modes(one.data) == {0}

        assert one.stop() == 0


def test_a_secret_that_only_root_can_read_keeps_the_monitoring_root(monitoring, folder: Path):
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "slack_api_url").write_text("http://127.0.0.1:1/", encoding="utf-8")
    (secrets / "pagerduty_routing_key").write_text("key", encoding="utf-8")
    one = monitoring("--secrets-dir", str(secrets))
    reason = f"every process stays root, because nobody cannot read {secrets}"
    assert one.text().count(reason) == 1
    for child in psutil.Process(one.process.pid).children():
        assert status_of(child.pid)["NoNewPrivs"] == "1"
    assert modes(one.data) == {0}
    assert one.stop() == 0
