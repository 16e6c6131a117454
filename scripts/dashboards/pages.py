"""All dashboards."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.alerting import ALERTS
from scripts.dashboards.applications import APPLICATIONS
from scripts.dashboards.capacity_planning import CAPACITY
from scripts.dashboards.load_and_drills import LOAD
from scripts.dashboards.log_lines import LOGS
from scripts.dashboards.monitoring_itself import MONITORING
from scripts.dashboards.overview import OVERVIEW
from scripts.dashboards.shutdowns import SHUTDOWNS
from scripts.dashboards.store import STORE
from scripts.dashboards.workers import WORKERS

PAGES: Final = (
    OVERVIEW, CAPACITY, ALERTS, SHUTDOWNS, WORKERS, STORE, MONITORING, LOAD, APPLICATIONS, LOGS,
)  # fmt: skip
