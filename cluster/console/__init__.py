"""The operator's web page: what the cluster does now, which alerts are on, and a test client.

`page` serves the files below static/, `routes` the requests, `access` decides who may read and who
may write, `broadcast` gives one collection to all viewers, `stats` and `alerts` are what is collected,
`silence_requests` is what an operator can do about alerts.

Rules
- Nothing is collected while there is no viewer.
- Every change needs `admin.key`, wherever the request comes from.
- Texts of alerts are not trusted: they are sent as JSON and become text nodes, never markup.
"""

from __future__ import annotations

from cluster.console.access import Denied, Guard, error_response
from cluster.console.routes import Console
from cluster.console.stats import ClusterState, EndedWorker, WorkerState

__all__ = [
    "ClusterState",
    "Console",
    "Denied",
    "EndedWorker",
    "Guard",
    "WorkerState",
    "error_response",
]
