"""The page of results."""

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.hold.measure import Cost
from benchmarks.hold.plan import Plan

_SUMS = ("recovered", "unrecovered", "resumed_sessions", "lost", "doubled")


@dataclass(frozen=True, slots=True)
class Held:
    """What was measured. Seconds and bytes."""

    plan: Plan
    opened_seconds: float
    costs: Mapping[str, Cost]
    kernel_bytes: int
    broadcasts: list[float]
    roll_seconds: float
    publications: int
    said: list[Any]

    def sums(self) -> Counter[str]:
        """Sums over the processes with the connections."""
        total: Counter[str] = Counter()
        for one in self.said:
            total.update({name: one["totals"][name] for name in _SUMS})
            total["open"] += one["open"]
        return total

    def counts(self, name: str) -> Counter[str]:
        """Counts of a kind: close codes, or errors."""
        total: Counter[str] = Counter()
        for one in self.said:
            total.update(one["totals"][name])
        return total

    @property
    def ended_without_close_frame(self) -> int:
        """Connections that ended, and no close frame had come: all that were made, but those that are open."""
        ended: int = sum(one["totals"]["connects"] - one["open"] for one in self.said)
        return ended - sum(self.counts("closed").values())

    @property
    def faults(self) -> list[str]:
        sums, found = self.sums(), []
        if sums["lost"] or sums["doubled"] or sums["unrecovered"]:
            found.append(f"publications were lost or came twice: {dict(sums)}")
        if sums["open"] != self.plan.connections:
            found.append(
                f"{sums['open']} of {self.plan.connections} connections are open at the end"
            )
        return found


_PAGE = """\
# Connections held

Written by `python -m benchmarks.hold`: {connections:,} connections through nginx into {workers} workers, each
connected with a session and subscribed to one channel with history; pings run. The clients are {crowds}
processes on the same machine with loopback addresses of their own, and share its cores. The kernel's
memory is that of both ends: four sockets per connection.

| | KiB per connection | cores at rest |
| --- | --: | --: |
{rows}

- All were subscribed after {opened:.0f} s.
- A broadcast of 128 bytes to all of them: median {median:.1f} s until the last one had it ({taken}).
- A roll of all workers, with {in_between} publications meanwhile: all connections had everything after {rolled:.0f} s.
  Closed with {closed}; ended without a close frame: {unclosed:,}; {resumed:,} sessions resumed,
  {recovered:,} recoveries, lost {lost}, doubled {doubled}; attempts refused or failed: {errors}.

{machine}
"""


def page(held: Held, machine: str) -> str:
    """The page of a run on the machine that the line describes."""
    connections, sums = held.plan.connections, held.sums()
    rows = [
        f"| {name} | {cost.resident_bytes / connections / 1024:.1f} | {cost.cores:.2f} |"
        for name, cost in held.costs.items()
    ]
    rows.append(f"| kernel | {held.kernel_bytes / connections / 1024:.1f} | |")
    return _PAGE.format(
        connections=connections,
        workers=held.plan.workers,
        crowds=held.plan.crowds,
        rows="\n".join(rows),
        opened=held.opened_seconds,
        median=statistics.median(held.broadcasts),
        taken=", ".join(f"{one:.1f}" for one in held.broadcasts),
        in_between=held.publications - len(held.broadcasts),
        rolled=held.roll_seconds,
        closed=_listed(held.counts("closed")),
        unclosed=held.ended_without_close_frame,
        resumed=sums["resumed_sessions"],
        recovered=sums["recovered"],
        lost=sums["lost"],
        doubled=sums["doubled"],
        errors=_listed(held.counts("errors")),
        machine=machine,
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.most_common()) or "none"
