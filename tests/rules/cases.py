"""Every alert's cases, in the order of docker/alert_rules.yml."""

from __future__ import annotations

from tests.rules.cases_applications import APPLICATIONS
from tests.rules.cases_more import CAPACITY, WORKERS
from tests.rules.cases_rest import MONITORING, QUALITY
from tests.rules.cases_seed import SEED
from tests.rules.timeline import Case

CASES: dict[str, list[Case]] = {
    **SEED, **WORKERS, **CAPACITY, **QUALITY, **APPLICATIONS, **MONITORING,
}  # fmt: skip

# Questions that have no answer, and why.
INAPPLICABLE: dict[str, dict[str, str]] = {
    "Watchdog": {
        "below": "it has no threshold",
        "resolves": "it never does",
    },
}
