"""The operator's page: what the cluster does now, which alerts are on, and a client to try it with.

`page` serves the files below static/, `door` the routes, `guard` says who may read and who may
write, `broadcast` hands one collection to all viewers, `readings` and `alerts` are what is
collected, `asking` and `alertmanager` speak to Prometheus and Alertmanager.

Rules
- Nothing is collected while nobody looks.
- Whatever changes something needs `admin.key`, wherever the request came from.
- Texts of alerts are anybody's: they travel as JSON and become text nodes, never markup.
"""

from __future__ import annotations

from cluster.console.routes import Console
from cluster.console.stats import ClusterState, EndedWorker, WorkerState

__all__ = ["ClusterState", "Console", "EndedWorker", "WorkerState"]
