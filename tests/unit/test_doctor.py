"""`ws-cluster doctor`: the first limit, and what raises it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import cli, doctor
from cluster.children.nginx import processes_for
from cluster.config import Config
from cluster.doctor import Limit, Machine, limits, report
from cluster.metrics.system import task_limit
from cluster.supervisor.limits import reachable_file_limit
from tests.architecture.tree import ROOT
from tests.unit.test_hold import capacity_rules_in

ROOMY = Machine(
    cpus=4, files=1 << 20, all_files=1 << 30, ports=28_232, tracked=1 << 30, backlog=4096,
    free_bytes=1 << 40, nr_open=1 << 40, tasks=1 << 30,
)  # fmt: skip


def options(*, workers: int = 4, nginx: bool = True, connection_limit: int = 0) -> Config:
    base = Config()
    return dataclasses.replace(
        base,
        server=dataclasses.replace(base.server, workers=workers, nginx=nginx),
        client=dataclasses.replace(base.client, connection_limit=connection_limit),
    )


def first(machine: Machine, *, connection_limit: int = 0) -> Limit:
    return limits(options(connection_limit=connection_limit), machine)[0]


@pytest.mark.parametrize(
    ("changed", "name", "clients"),
    [
        ({"files": 1064}, "connections of nginx", 4 * 500),
        ({"tracked": 5000}, "connections tracked by the firewall", 5000),
        ({"all_files": 3000}, "open files of the system", 1000),
        ({"free_bytes": 50 << 20}, "memory, 40 KiB for each idle connection", 1023),
    ],
)
def test_the_smallest_limit_comes_first(changed: dict[str, int], name: str, clients: int):
    found = first(dataclasses.replace(ROOMY, **changed))
    assert (found.name, found.connections) == (name, clients)


def test_without_nginx_a_client_needs_one_file_and_no_local_port():
    found = limits(options(nginx=False), dataclasses.replace(ROOMY, files=1064, ports=10))
    assert (found[0].name, found[0].connections) == ("open files of a worker", 4000)
    assert not any("nginx" in one.name for one in found)


def test_the_option_that_limits_connections_is_one_of_the_limits():
    found = first(ROOMY, connection_limit=100)
    assert (found.name, found.connections) == ("client.connection_limit", 400)
    assert found.remedy(1000) == "set client.connection_limit to 250"


def test_what_the_kernel_does_not_say_is_left_out():
    found = limits(options(), Machine(cpus=1, files=20_000))
    assert [one.name for one in found] == ["connections of nginx", "open files of a worker"]


def values_in(text: str) -> dict[str, int]:
    """What a remedy says to set: names as in the text, and the number behind them."""
    found = re.findall(
        r"(ulimit -Hn |fs.nr_open=|server.workers to |connection_limit to )(\d+)", text
    )
    return {name: int(number) for name, number in found}


@given(
    files=st.integers(2000, 1 << 20),
    wanted=st.integers(1, 2_000_000),
    workers=st.integers(1, 70),
    nginx=st.booleans(),
    nr_open=st.sampled_from([10_000, 1 << 20]),
)
def test_the_remedies_are_enough(
    *, files: int, wanted: int, workers: int, nginx: bool, nr_open: int
):
    """A limit that was raised as it says lets so many clients in, if it does not name another way."""
    files = min(files, nr_open)
    machine = dataclasses.replace(ROOMY, files=files, nr_open=nr_open)
    before = limits(options(workers=workers, nginx=nginx, connection_limit=100), machine)
    for one in before:
        said = one.remedy(wanted)
        values = values_in(said)
        if "more machines" in said:
            assert wanted > 64 * 32_768
            continue
        raised = dataclasses.replace(
            machine,
            files=values.get("ulimit -Hn ", files),
            nr_open=values.get("fs.nr_open=", nr_open),
        )
        assert raised.nr_open is not None
        assert raised.files <= raised.nr_open, "the kernel would refuse it"
        changed = options(
            workers=values.get("server.workers to ", workers),
            nginx=nginx,
            connection_limit=values.get("connection_limit to ", 100),
        )
        after = {two.name: two.connections for two in limits(changed, raised)}
        assert after[one.name] >= wanted, said


def test_every_worker_has_a_process_of_nginx_as_when_the_cluster_runs():
    """12 workers and 20,000 files each hold 100,000 clients, as benchmarks/results/hold.md shows."""
    found = limits(options(workers=12), dataclasses.replace(ROOMY, files=20_000))
    [nginx] = [one for one in found if one.name == "connections of nginx"]
    assert processes_for(12) == 12
    assert nginx.connections == 12 * 9_968


def test_more_clients_than_the_processes_of_nginx_can_hold_need_more_workers():
    """However many files a process may open, it has 65,536 connections, two for each client."""
    found = limits(options(workers=2), dataclasses.replace(ROOMY, files=20_000))
    [nginx] = [one for one in found if one.name == "connections of nginx"]
    assert nginx.remedy(60_000).startswith("ulimit -Hn 60064 (")
    assert nginx.remedy(100_000).startswith("set server.workers to 4 and ulimit -Hn 50064 (")
    assert "--no-nginx, or more machines" in nginx.remedy(3_000_000)


def test_a_limit_that_suffices_is_not_to_be_changed():
    """A command that sets the smallest sufficient value would lower what is higher already."""
    machine = dataclasses.replace(ROOMY, files=20_000, tracked=262_144, all_files=822_056)
    said = report(limits(options(workers=12), machine), machine, 100_000)
    assert "sysctl" not in said
    rows = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in said.splitlines()}
    assert rows["connections tracked by the firewall"] == "enough"
    assert rows["open files of the system"] == "enough"
    assert "100,000 clients fit." in said
    # Without a number to reach, the remedies are those for twice as many.
    assert "sysctl fs.file-max=1644108" in report(limits(options(workers=12), machine), machine, 0)


def test_files_above_what_the_kernel_allows_to_one_process_name_its_setting_first():
    machine = dataclasses.replace(ROOMY, files=20_000, nr_open=20_000)
    [files] = [
        one for one in limits(options(nginx=False), machine) if one.name == "open files of a worker"
    ]
    assert files.remedy(100_000).startswith("sysctl fs.nr_open=25064 and ulimit -Hn 25064 (")
    assert files.remedy(40_000).startswith("ulimit -Hn 10064 (")


def test_a_control_group_that_is_too_small_for_the_processes_holds_no_clients():
    assert not any("processes" in one.name for one in limits(options(workers=4), ROOMY))
    found = first(dataclasses.replace(ROOMY, tasks=20))
    assert (found.name, found.connections) == ("processes of the control group", 0)
    assert found.remedy(1000).startswith("pids.max of 32 (")


@pytest.mark.parametrize(
    ("cgroup", "files", "tasks"),
    [
        pytest.param("0::/a/b\n", {"a/b/pids.max": "max", "a/pids.max": "40"}, 40, id="v2, above"),
        pytest.param("0::/host/path\n", {"pids.max": "30"}, 30, id="v2, in a container"),
        pytest.param("8:pids:/a\n", {"pids/a/pids.max": "50"}, 50, id="v1"),
        pytest.param("8:pids:/host\n", {"pids/pids.max": "60"}, 60, id="v1, in a container"),
        pytest.param("0::/a\n", {"a/pids.max": "max"}, None, id="without a limit"),
    ],
)
def test_the_lowest_limit_of_processes_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], tasks: int | None
):
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(text + "\n")
    assert task_limit(cgroups, proc) == tasks


def test_a_short_backlog_is_said():
    found = limits(options(), ROOMY)
    assert "somaxconn" not in report(found, ROOMY, 0)
    assert "somaxconn=4096" in report(found, dataclasses.replace(ROOMY, backlog=128), 0)


def test_local_ports_are_said_to_be_no_limit_for_nginx():
    few = dataclasses.replace(ROOMY, ports=1000)
    assert not any("ports" in one.name for one in limits(options(), few))
    said = report(limits(options(), few), few, 0)
    assert "Local ports are no limit: nginx reaches the workers over unix sockets." in said
    assert "worker_sockets_not_opened, each worker gets 1,000 clients at most." in said
    assert "ports" not in report(limits(options(nginx=False), few), few, 0)


def test_the_kernels_files_are_read(tmp_path: Path):
    for name, text in {
        "fs/file-max": "9223372036854775807\n",
        "fs/nr_open": "1048576\n",
        "net/ipv4/ip_local_port_range": "32768\t60999\n",
        "net/ipv4/ip_local_reserved_ports": "8101-8104,40000,50000-50009\n",
        "net/core/somaxconn": "4096\n",
    }.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 400 kB\n")
    found = Machine.read(tmp_path, tmp_path / "nowhere")
    assert found.ports == 28_232 - 11
    assert (found.all_files, found.tracked, found.backlog) == (2**63 - 1, None, 4096)
    assert found.free_bytes == 400 << 10
    assert (found.nr_open, found.tasks) == (1 << 20, None)
    # Not the hard limit as it is, but what the supervisor would raise it to.
    assert found.files == reachable_file_limit(tmp_path)


def test_the_command_says_whether_so_many_fit(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor", "--connections", "1"]) == 0
    assert "1 clients fit." in capsys.readouterr().out
    assert cli.main(["doctor", "--connections", "1000000000"]) == 1
    said = capsys.readouterr().out
    assert "First limit: " in said
    assert "1,000,000,000 clients do not fit: " in said


@pytest.mark.parametrize("text", ["0", "-1", "many", "1000000001"])
def test_an_impossible_number_is_refused(text: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as refused:
        cli.main(["doctor", "--connections", text])
    assert refused.value.code == 2
    assert "give a number from 1 to 1000000000" in capsys.readouterr().err


def test_a_connection_is_not_thought_smaller_than_it_was_measured():
    measured = capacity_rules_in(ROOT / "docker" / "capacity.yml")
    # The clients were on the same machine: four ends of sockets.
    sizes = {
        "workers": doctor._WORKER_BYTES, "nginx": doctor._NGINX_BYTES, "kernel": 4 * doctor._SOCKET_BYTES,
    }  # fmt: skip
    for part, size in sizes.items():
        assert 1 <= size / measured["app_capacity_hold_bytes_per_connection", part] < 1.3, part
