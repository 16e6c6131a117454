"""The results of `benchmarks.hold` as recording rules of docker/capacity.yml, beside those of `ws-cluster capacity`.

Rule: they are made of results/hold.json and of the machine named in results/hold.md, which one run writes.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.paths import REPOSITORY, RESULTS
from loadtest.capacity import OTHERS_BEGIN

FILE: Final = REPOSITORY / "docker" / "capacity.yml"
_OWN: Final = re.compile(r"\n  # Written by `python -m benchmarks\.hold`.*", re.DOTALL)
_GROUP: Final = f"""\
{OTHERS_BEGIN} `python -m benchmarks.hold` from benchmarks/results/hold.json: measure again instead of editing it.
  # {{machine}}
  # {{connections:,}} connections with session and subscription through nginx into {{workers}} workers. The kernel's memory is of
  # both ends, the clients' too.
  - name: websocket_hold_constants
    interval: 1m
    rules:
{{rules}}
"""


def _rules(results: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Name, part and value of each rule."""
    connections = results["plan"]["connections"]
    memory = {name: cost["resident_bytes"] for name, cost in results["costs"].items()}
    memory["kernel"] = results["kernel_bytes"]
    yield "app_capacity_hold_connections", "", connections
    for name, resident in memory.items():
        yield "app_capacity_hold_bytes_per_connection", name.lower(), resident / connections
    yield "app_capacity_hold_broadcast_seconds", "", results["median"]


def group(results: Mapping[str, Any], machine: str) -> str:
    """The group of rules, as text.

    Args:
        results: as in hold.json.
    """
    lines = []
    for name, part, value in _rules(results):
        lines += [f"      - record: {name}", f"        expr: vector({value:.6g})"]
        lines += [f"        labels: {{part: {part}}}"] if part else []
    plan = results["plan"]
    return _GROUP.format(
        machine=machine,
        connections=plan["connections"],
        workers=plan["workers"],
        rules="\n".join(lines),
    )


def stored() -> str:
    """The group of the stored results."""
    [machine] = re.findall(r"^Machine: (.*)$", (RESULTS / "hold.md").read_text(), re.MULTILINE)
    return group(json.loads((RESULTS / "hold.json").read_text()), machine)


def write(file: Path = FILE) -> None:
    """Put the group of the stored results into the file, in place of an earlier one."""
    text = _OWN.sub("\n", file.read_text())
    file.write_text(text + stored())
