"""The HTTP client of the admin port of one `ws-cluster up`.

Numbers of the whole cluster come from Prometheus; this client is for one machine, and for when
Prometheus does not answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from cluster.alerting.http import HttpService
from cluster.errors import HttpStatusError

_HINT: Final = "start the cluster with `ws-cluster up`, or give its address with --admin-url"
_LINE: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class AdminReadiness:
    """The answer of /ready: whether the cluster serves, else why not, and the state of every child."""

    is_ready: bool
    reason: str
    children: Mapping[str, str] = field(default_factory=dict)


class AdminClient:
    """The admin port of a cluster at `url`."""

    def __init__(self, url: str) -> None:
        self.service: Final = HttpService("The cluster's admin port", url.rstrip("/"), _HINT)

    def health(self) -> Mapping[str, Any]:
        """The answer of /health, which has at least `version`."""
        answer = self.service.get("/health")
        if not isinstance(answer, dict) or "version" not in answer:
            raise self.service.malformed("/health", "no version")
        return answer

    def readiness(self) -> AdminReadiness:
        """The answer of /ready, which has the status 503 if the cluster does not serve."""
        try:
            text = self.service.text("/ready")
        except HttpStatusError as error:
            if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            text = error.body
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
