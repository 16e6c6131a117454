"""Alternating rounds of several ways to do one thing, and the table of their medians."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from statistics import median

from benchmarks.report import machine_facts

CASE_TIMEOUT_SECONDS = 60
_FACTS = (
    "date",
    "cpu",
    "cores",
    "kernel",
    "load before",
    "ws-cluster",
    "Python",
    "aiohttp",
    "uvloop",
)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do something; `measure` returns this process's CPU time for each, in µs."""

    what: str
    name: str
    measure: Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one way costs: µs of CPU for each, in every round."""

    what: str
    name: str
    rounds: list[float]


async def measured(ways: Sequence[Way], rounds: int) -> list[Figure]:
    """Measure all ways, `rounds` times in turn, so that a disturbance meets all of them."""
    figures = [Figure(way.what, way.name, []) for way in ways]
    for _ in range(rounds):
        for way, figure in zip(ways, figures, strict=True):
            async with asyncio.timeout(CASE_TIMEOUT_SECONDS):
                figure.rounds.append(await way.measure())
    return figures


def table(figures: Sequence[Figure]) -> str:
    """Format medians and extremes; the first way of each `what` is the measure of the others."""
    base: dict[str, float] = {}
    lines = [
        "| what | way | CPU µs each | lowest to highest | against the first |",
        "| --- | --- | --: | --: | --: |",
    ]
    for figure in figures:
        middle = median(figure.rounds)
        first = base.setdefault(figure.what, middle)
        spread = f"{min(figure.rounds):.2f} to {max(figure.rounds):.2f}"
        lines.append(
            f"| {figure.what} | {figure.name} | {middle:.2f} | {spread} | {middle / first:.1f} × |"
        )
    return "\n".join(lines)


def machine(*, is_pinned: bool = True) -> str:
    """Describe the machine and the versions in one line; `is_pinned` if server and load have a core each."""
    facts = machine_facts(is_pinned=is_pinned)
    given = [f"{name} {facts[name]}" for name in _FACTS]
    given += [f"{name} {metadata.version(name)}" for name in ("hiredis", "redis")]
    return "Machine: " + "; ".join(given) + "."
