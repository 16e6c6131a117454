"""A scrape as numbers: families summed over whatever labels are not asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the exposition format."""

    name: str
    labels: dict[str, str]
    value: float


class Metrics:
    """All samples of one scrape."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def has(self, name: str) -> bool:
        """Whether there is a sample of this name."""
        return any(sample.name == name for sample in self.samples)

    def total(self, name: str, **labels: str) -> float:
        """Add up the samples of this name that carry these labels; 0 when there are none."""
        wanted = labels.items()
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and wanted <= sample.labels.items()
        )

    def quantile(self, name: str, share: float) -> float:
        """The upper edge of the bucket that holds this share of a histogram's observations."""
        edges: dict[float, float] = {}
        for sample in self.samples:
            if sample.name == f"{name}_bucket":
                edge = float(sample.labels["le"])
                edges[edge] = edges.get(edge, 0.0) + sample.value
        whole = max(edges.values(), default=0.0)
        return min((edge for edge, count in edges.items() if count >= share * whole), default=0.0)


def parse_metrics(text: str) -> Metrics:
    """Read the Prometheus text format."""
    samples = []
    for line in text.splitlines():
        if line.startswith("#") or not (match := _LINE.match(line)):
            continue
        name, labels, value = match.groups()
        samples.append(Sample(name, dict(_LABEL.findall(labels or "")), float(value)))
    return Metrics(samples)
