"""The admin port: `admin_server` has its routes, `connections` accepts and bounds its connections."""

from __future__ import annotations

from cluster.admin.admin_server import AdminServer, Readiness

__all__ = ["AdminServer", "Readiness"]
