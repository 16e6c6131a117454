"""`ws-cluster doctor`: the first limit, and what raises it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import cli
from cluster.config import Config
from cluster.doctor import Limit, Machine, limits, report

ROOMY = Machine(
    cpus=4, files=1 << 20, all_files=1 << 30, ports=28_232, tracked=1 << 30, backlog=4096,
    free_bytes=1 << 40,
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
        ({"free_bytes": 50 << 20}, "memory, 39 KiB for each idle connection", 1056),
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
    assert found.remedy_for(1000) == "set client.connection_limit to 250"


def test_what_the_kernel_does_not_say_is_left_out():
    found = limits(options(), Machine(cpus=1, files=20_000))
    assert [one.name for one in found] == ["connections of nginx", "open files of a worker"]


@given(files=st.integers(2000, 1 << 20), wanted=st.integers(1, 120_000))
def test_the_remedies_are_enough(files: int, wanted: int):
    """A limit that was raised as it says lets so many clients in."""
    given_options = options(nginx=False, connection_limit=100)
    machine = dataclasses.replace(ROOMY, files=files)
    need = {one.name: one.remedy_for(wanted) for one in limits(given_options, machine)}
    raised = dataclasses.replace(machine, files=int(need["open files of a worker"].split()[2]) + 1)
    limit = int(need["client.connection_limit"].split()[-1]) + 1
    after = limits(options(nginx=False, connection_limit=limit), raised)
    by_name = {one.name: one.connections for one in after}
    assert by_name["open files of a worker"] >= wanted
    assert by_name["client.connection_limit"] >= wanted


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
