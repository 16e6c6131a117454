"""Parts of queries that many panels have."""

from __future__ import annotations

from typing import Final

APP: Final = 'job="$job",instance=~"$instance"'
RATE: Final = "[$__rate_interval]"
#: The colours of log levels, by their names.
LEVELS: Final = (("warning", "yellow"), ("error", "red"), ("critical", "dark-red"))


def rate_of(family: str, by: str = "", more: str = "") -> str:
    clause = f" by ({by})" if by else ""
    return f"sum{clause} (rate({family}{{{APP}{more}}}{RATE}))"


def quantile(share: float, family: str, by: str = "", window: str = RATE) -> str:
    labels = f"le,{by}" if by else "le"
    rates = f"sum by ({labels}) (rate({family}_bucket{{{APP}}}{window}))"
    # Without an observation it is NaN, and the legend would have a name without a line.
    return f"histogram_quantile({share}, {rates}) >= 0"


def some(expr: str, label: str) -> str:
    """The series that are not 0; one called `none` is always there, so that a quiet panel is not empty."""
    return f'({expr}) > 0 or label_replace(vector(0), "{label}", "none", "", "")'


def of(family: str, more: str = "") -> str:
    return f"{family}{{{APP}{more}}}"
