"""`ws-cluster monitoring up`: what it refuses to start with, and that it leaves no process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.process_signals import UNUSED_SIGNALS
from tests.harness.cluster import REPOSITORY, http_get
from tests.harness.processes import family, free_ports, is_running
from tests.harness.waiting import until, until_async
from tests.integration.monitoring import CHILDREN, READY_WITHIN, Monitoring, environment
from tests.integration.test_stuck_output import full_pipe


def refused(
    one: Monitoring, *more: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it with something that prevents the start."""
    one.directory.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [*one.command(), *more],
        cwd=REPOSITORY,
        env={**environment(), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def one(tmp_path: Path) -> Monitoring:
    return Monitoring(tmp_path, apps=(free_ports(1),))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Monitoring]:
    """A monitoring in compressed time without a cluster, so that ServiceDown fires."""
    folder = tmp_path_factory.mktemp("monitoring")
    async with Monitoring(folder, apps=(free_ports(1),), compress=15) as monitoring:
        yield monitoring


# --- what it refuses -----------------------------------------------------------------------


def test_missing_programs_are_named_with_their_packages(one: Monitoring, tmp_path: Path):
    done = refused(one, env={"PATH": str(tmp_path)})
    assert done.returncode == 69
    assert "prometheus, alertmanager, node_exporter were not found on PATH" in done.stderr
    assert (
        "apt-get install prometheus prometheus-alertmanager prometheus-node-exporter" in done.stderr
    )


def test_only_programs_that_are_needed_are_named(one: Monitoring, tmp_path: Path):
    for name in ("prometheus", "alertmanager"):
        (tmp_path / name).symlink_to("/bin/true")
    done = refused(one, env={"PATH": str(tmp_path)})
    assert done.returncode == 69
    assert "node_exporter was not found" in done.stderr
    done = refused(one, "--no-node-exporter", env={"PATH": str(tmp_path)})
    assert done.returncode != 69


def test_every_port_in_use_is_named(one: Monitoring):
    with socket.socket() as first, socket.socket() as second:
        for listener, port in ((first, one.prometheus), (second, one.receiver)):
            listener.bind(("127.0.0.1", port))
            listener.listen()
        done = refused(one)
    assert done.returncode == 78
    assert f"--prometheus-port: {one.prometheus} is not allowed" in done.stderr
    assert f"--receiver-port: {one.receiver} is not allowed" in done.stderr
    assert "--alertmanager-port" not in done.stderr


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "does not exist"),
        ({"slack_api_url": "https://hooks.example/x"}, "pagerduty_routing_key"),
        ({"slack_api_url": "", "pagerduty_routing_key": "k"}, "is empty"),
        (
            {
                "slack_api_url": "https://hooks.example/x",
                "pagerduty_routing_key": "k",
                "pagerduty_change_key": " ",
            },
            "pagerduty_change_key is empty",
        ),
    ],
    ids=["none", "half", "empty", "the optional one is empty"],
)
def test_half_configured_secrets_are_refused(
    one: Monitoring, tmp_path: Path, files: dict[str, str], says: str
):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, text in files.items():
        (secrets / name).write_text(text)
    done = refused(one, "--secrets-dir", str(secrets))
    assert done.returncode == 78, done.stderr
    assert says in done.stderr


@pytest.mark.parametrize("character", ["*", "?", "[", "\\"])
def test_a_data_directory_that_prometheus_would_take_for_a_pattern_is_refused(
    tmp_path: Path, character: str
):
    """It would find no rules, or those of another directory."""
    folder = tmp_path / f"a{character}b"
    done = refused(Monitoring(folder, apps=(free_ports(1),)))
    assert done.returncode == 78
    assert "--data-dir: " in done.stderr
    assert "give a path without any of * ? [ " in done.stderr


async def test_any_other_name_of_a_data_directory_works(tmp_path: Path):
    folder = tmp_path / "a$b ${HOME} \"c' {{d}} #%e;ü]"
    async with Monitoring(folder, apps=(free_ports(1),)) as monitoring:
        rules = http_get(monitoring.prometheus, "/api/v1/rules").body
        assert json.loads(rules)["data"]["groups"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("groups:", "groups: ["),
        ("expr: vector(1)", "expr: vector(1"),
        ("alert: Watchdog", "alrt: x"),
    ],
    ids=["no YAML", "no PromQL", "no rule"],
)
def test_a_malformed_rule_file_is_refused(one: Monitoring, tmp_path: Path, old: str, new: str):
    folder = tmp_path / "docker"
    shutil.copytree(REPOSITORY / "docker", folder)
    rules = folder / "alert_rules.yml"
    assert old in rules.read_text()
    rules.write_text(rules.read_text().replace(old, new, 1))
    done = refused(one, "--rules-dir", str(folder))
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_folder_without_rules_is_refused(one: Monitoring, tmp_path: Path):
    assert refused(one, "--rules-dir", str(tmp_path / "nothing")).returncode == 69
    assert refused(one, "--rules-dir", str(tmp_path)).returncode == 78


@pytest.mark.parametrize("factor", ["0.5", "-1", "nan", "inf", "500"])
def test_an_impossible_compression_is_refused(one: Monitoring, factor: str):
    done = refused(one, "--compress", factor)
    assert done.returncode == 78
    assert "compress" in done.stderr


# --- while it runs ------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
async def test_a_second_one_on_the_same_directory_is_refused(running: Monitoring, tmp_path: Path):
    second = Monitoring(tmp_path, apps=(1,))
    second.data_dir = running.data_dir
    done = await asyncio.to_thread(refused, second)
    assert done.returncode == 78
    assert "another `monitoring up` runs on it" in done.stderr


@pytest.mark.asyncio(loop_scope="module")
async def test_the_commands_find_it_by_its_directory_alone(running: Monitoring):
    await until_async(lambda: running.firing("ServiceDown"), 60, "ServiceDown fires")
    done = await running.ask("alerts", "--print")
    assert done.stdout == f"http://127.0.0.1:{running.alertmanager}\n"
    done = await running.ask("targets")
    assert re.search(r"websocket-app +\S+ +down", done.stdout)
    done = await running.ask("runbook", "ServiceDown", "--url")
    assert done.stdout.strip().endswith("ServiceDown.md")


@pytest.mark.asyncio(loop_scope="module")
async def test_silences_are_made_shown_and_ended_at_a_real_alertmanager(running: Monitoring):
    done = await running.ask("silence", "HighDiskUsage", "instance=~a|b", "--note", "new disk")
    assert done.returncode == 0, done
    number = done.stdout.splitlines()[0]
    listing = (await running.ask("silence")).stdout
    assert number in listing
    assert 'instance=~"a|b"' in listing
    assert "new disk" in listing
    assert (await running.ask("unsilence", number)).returncode == 0
    assert number not in (await running.ask("silence")).stdout
    assert (await running.ask("unsilence", number)).returncode == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_resolve_by_hand_warns_that_the_condition_still_holds(running: Monitoring):
    await until_async(lambda: running.firing("ServiceDown"), 60, "ServiceDown fires")
    await running.arrives("pagerduty", "ServiceDown", "^trigger", 60)
    done = await running.ask("resolve", "ServiceDown", "--note", "no cluster here")
    assert done.returncode == 0, done
    assert "still holds" in done.stderr
    await running.arrives("pagerduty", "ServiceDown", "^resolve", 30)
    assert "no cluster here" in (await running.ask("history")).stdout
    assert (await running.ask("resolve", "ServiceDown", "--note", "x")).returncode == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_child_that_dies_is_started_again(running: Monitoring):
    old = running.child("alertmanager")
    os.kill(old, signal.SIGKILL)

    async def is_back() -> bool:
        with contextlib.suppress(LookupError, OSError, AssertionError):
            await running.get("/api/v2/status", running.alertmanager)
            return running.child("alertmanager") != old
        return False

    await until_async(is_back, 30, "Alertmanager is back")
    assert "alertmanager ended with -9" in running.log()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CHILDREN)
async def test_every_child_has_its_log(running: Monitoring, name: str):
    done = await running.ask("logs", name, "--no-alerts")
    assert done.returncode == 0, done
    if name != "receiver":
        assert done.stdout.strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_cleanly_and_leaves_no_process(one: Monitoring, number: int):
    await one.start()
    assert await one.stop(number) == 0
    assert one.left == []
    assert not (one.data_dir / "addresses.json").exists()
    assert "Traceback" not in one.log()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGPWR, signal.SIGXCPU])
async def test_it_ends_as_with_term(one: Monitoring, number: int):
    await one.start()
    assert await one.stop(number) == 0
    assert one.left == []
    assert not (one.data_dir / "addresses.json").exists()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["itself", "receiver", "tracker"])
async def test_no_signal_without_a_meaning_ends_it(running: Monitoring, name: str):
    assert running.process is not None
    pid = running.process.pid if name == "itself" else running.child(name)
    for number in (signal.SIGUSR1, *UNUSED_SIGNALS):
        os.kill(pid, number)
    os.kill(alertmanager := running.child("alertmanager"), signal.SIGKILL)

    def is_restarted() -> bool:
        with contextlib.suppress(LookupError):
            return running.child("alertmanager") != alertmanager
        return False

    # It has taken all its signals when it acts on the end of a child; the others have by then.
    await until(is_restarted, 45, "Alertmanager is started again")
    assert is_running(pid)
    assert name == "itself" or running.child(name) == pid


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["receiver", "tracker"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
async def test_a_child_of_ours_that_is_told_to_end_ends_in_order(
    running: Monitoring, name: str, number: int
):
    port = running.receiver if name == "receiver" else running.tracker
    # It listens when it has its handlers.
    await until(lambda: _listens(port), 45, f"the {name} listens")
    before = running.log().count(f"{name} ended with 0")
    old = running.child(name)
    os.kill(old, number)

    def is_back() -> bool:
        with contextlib.suppress(LookupError):
            return running.child(name) != old
        return False

    await until(is_back, 45, f"the {name} is started again")
    assert running.log().count(f"{name} ended with 0") == before + 1


async def test_an_output_that_nobody_reads_stops_neither_restarts_nor_the_end(one: Monitoring):
    reads, writes = full_pipe()
    one.spawn(writes)
    os.close(writes)
    addresses = one.data_dir / "addresses.json"
    await until(addresses.exists, READY_WITHIN, "the monitoring is ready")
    os.kill(old := one.child("alertmanager"), signal.SIGKILL)

    def is_back() -> bool:
        with contextlib.suppress(LookupError):
            return one.child("alertmanager") != old
        return False

    try:
        await until(is_back, 30, "Alertmanager is started again")
    finally:
        code = await one.stop(signal.SIGTERM)
        os.close(reads)
    assert (code, one.left) == (0, [])


async def test_its_children_end_with_it_even_if_it_is_killed(one: Monitoring):
    await one.start()
    assert one.process is not None
    processes = family(one.process.pid)
    assert len(processes) >= len(CHILDREN)
    one.process.kill()
    await until(lambda: not any(map(is_running, processes)), 15, "every process has ended")
    await one.stop()
