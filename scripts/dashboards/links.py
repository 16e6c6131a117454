"""Where dashboards lead: from an alert to the log lines around it, and to its runbook."""

from __future__ import annotations

import json
import urllib.parse
from typing import Final

from scripts.dashboards.panels import Link

LOGS_UID: Final = "ws-logs"
_LOKI: Final = "loki"
# The columns of the table in which these links stand, in milliseconds since the epoch.
_FROM: Final = "${__data.fields.from.numeric}"
_TO: Final = "${__data.fields.to.numeric}"


def _explore(expr: str) -> str:
    """An address of Explore: `panes` as JSON (schema 1), in which Grafana fills in the variables."""
    pane = {
        "datasource": _LOKI,
        "queries": [
            {"refId": "A", "datasource": {"type": "loki", "uid": _LOKI}, "expr": expr},
        ],
        "range": {"from": _FROM, "to": _TO},
    }
    text = json.dumps({"logs": pane}, separators=(",", ":"))
    # A variable stays as it is written, and nothing else does.
    return f"/explore?schemaVersion=1&orgId=1&panes={urllib.parse.quote(text, safe='${}_.')}"


LOGS_AROUND: Final = (
    Link("Log lines around it", f"/d/{LOGS_UID}?from={_FROM}&to={_TO}"),
    Link("The same in Explore", _explore('{service="app"}')),
)
RUNBOOK: Final = Link("Runbook", "${runbooks}/${__value.raw}")
