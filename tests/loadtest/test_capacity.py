"""What `ws-cluster capacity` writes is a page and rules that Prometheus takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from loadtest import capacity
from loadtest.capacity import Capacity
from tests.architecture.tree import ROOT

FOUND = Capacity(
    workers=2,
    bytes_per_connection=6000,
    messages_per_second_per_core=500_000,
    knee_users=900,
    knee="at 1000 users p99 was 300 ms, above 250 ms",
    load_cores=0.95,
    load_ms_per_user_second=0.4,
    connections_by_files=20_000,
    connections_by_memory=1_500_000,
)
MACHINE = {
    "cores": 2,
    "processor": "x",
    "memory_bytes": 24 << 30,
    "kernel": "6",
    "python": "3.11",
}


def test_whichever_ends_first_is_the_capacity():
    assert FOUND.connections_per_worker == 20_000


def test_the_page_has_every_figure_and_the_machine():
    text = capacity.page(FOUND, MACHINE, "2026-01-01")
    for words in (
        "5.9 KiB",
        "500,000",
        "900",
        "p99 was 300 ms",
        "**20,000**",
        "2 cores (x), 24 GiB",
    ):
        assert words in text, words


def test_the_rules_are_constants_that_prometheus_takes(tmp_path: Path):
    file = tmp_path / "capacity.yml"
    file.write_text(capacity.rules(FOUND, MACHINE, "2026-01-01"))
    subprocess.run(["promtool", "check", "rules", str(file)], check=True, capture_output=True)
    [group] = yaml.safe_load(file.read_text())["groups"]
    values = {rule["record"]: rule["expr"] for rule in group["rules"]}
    assert values["app_capacity_connections_per_worker"] == "vector(20000)"


def test_what_is_kept_here_has_the_form_that_is_written_now():
    wanted = yaml.safe_load(capacity.rules(FOUND, MACHINE, "2026-01-01"))["groups"][0]["rules"]
    kept = yaml.safe_load((ROOT / "docker" / "capacity.yml").read_text())["groups"][0]["rules"]
    assert [rule["record"] for rule in kept] == [rule["record"] for rule in wanted]


def test_what_is_kept_here_are_the_figures_of_the_page():
    page = (ROOT / "docs" / "reference" / "capacity.md").read_text()
    group = yaml.safe_load((ROOT / "docker" / "capacity.yml").read_text())["groups"][0]
    values = {one["record"]: float(one["expr"][len("vector(") : -1]) for one in group["rules"]}
    shown = {
        "app_capacity_connections_per_worker": "| **connections per worker** | **{:,.0f}** |",
        "app_capacity_messages_per_second_per_core": "of one channel) | {:,.0f} |",
        "app_capacity_knee_users": "before the ramp broke | {:,.0f} |",
    }
    for name, row in shown.items():
        assert row.format(values[name]) in page, name
    kibibytes = values["app_capacity_bytes_per_connection"] / 1024
    assert f"| memory per idle connection | {kibibytes:.1f} KiB |" in page


def test_a_family_is_summed_by_name_and_label():
    text = 'a{x="1"} 2\na{x="2"} 3\nab 9\n# HELP a\n'
    measuring: Any = capacity._Measuring.__new__(capacity._Measuring)
    measuring._admin = SimpleNamespace(text=lambda path: text)
    assert measuring._sum("a") == 5
    assert measuring._sum("a", 'x="2"') == 3


@pytest.mark.parametrize("words", [["--target", "ws://127.0.0.1:9"], ["--admin-url", "http://x"]])
def test_a_target_needs_both_its_urls(words: list[str]):
    command = [sys.executable, "-m", "cluster", "capacity", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 78
    assert "--admin-url" in done.stderr
