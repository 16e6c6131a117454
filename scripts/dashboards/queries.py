"""Parts of queries that many panels have."""

from __future__ import annotations

from typing import Final

APP: Final = 'job="$job",instance=~"$instance"'
RATE: Final = "[$__rate_interval]"


def rate_of(family: str, by: str = "", more: str = "") -> str:
    clause = f" by ({by})" if by else ""
    return f"sum{clause} (rate({family}{{{APP}{more}}}{RATE}))"


def quantile(share: float, family: str, by: str = "", window: str = RATE) -> str:
    labels = f"le,{by}" if by else "le"
    return (
        f"histogram_quantile({share}, sum by ({labels}) (rate({family}_bucket{{{APP}}}{window})))"
    )


def of(family: str, more: str = "") -> str:
    return f"{family}{{{APP}{more}}}"
