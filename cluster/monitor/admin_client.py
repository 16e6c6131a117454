"""What the operator's door of one `ws-cluster up` says about itself.

Numbers of the whole cluster are asked of Prometheus; this is for the machine at hand, and for when
Prometheus is away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.monitor.asking import Refused, Service

_HINT: Final = "start the cluster with `ws-cluster up`, or give its address with --admin-url"
_LINE: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class AdminReadiness:
    """Whether the cluster serves; if not, why; and the state of every child."""

    is_ready: bool
    reason: str
    children: Mapping[str, str] = field(default_factory=dict)


class AdminClient:
    """The admin door of a cluster at `url`."""

    def __init__(self, url: str) -> None:
        self.service: Final = Service("The cluster's admin door", url.rstrip("/"), _HINT)

    def health(self) -> Mapping[str, Any]:
        """Who answers: at least `version`."""
        answer = self.service.get("/health")
        if not isinstance(answer, dict) or "version" not in answer:
            raise self.service.malformed("/health", "no version")
        return answer

    def readiness(self) -> AdminReadiness:
        """The answer of /ready, which is a 503 when it is not."""
        try:
            text = self.service.text("/ready")
        except Refused as refused:
            if refused.status != 503:
                raise
            text = refused.body
        try:
            answer = json.loads(text)
            return AdminReadiness(answer["ready"], answer["reason"], dict(answer["children"]))
        except (KeyError, TypeError, ValueError) as error:
            raise self.service.malformed("/ready", repr(error)) from None

    def totals(self) -> dict[str, float]:
        """Every metric, summed over its labels."""
        found: dict[str, float] = {}
        for name, value in _LINE.findall(self.service.text("/metrics")):
            found[name] = found.get(name, 0.0) + float(value)
        return found
