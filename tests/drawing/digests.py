"""Which dashboard a picture is of."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def picture_of(uid: str) -> str:
    """The name of a dashboard's picture, without its suffix."""
    return uid.replace("ws-", "grafana-", 1)


def digest(dashboard: dict[str, Any]) -> str:
    """What a picture's file `.sha256` has: it tells whether the dashboard is still the one that was drawn."""
    return hashlib.sha256(json.dumps(dashboard, sort_keys=True).encode()).hexdigest() + "\n"
