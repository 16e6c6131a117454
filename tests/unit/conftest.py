"""The door's tests run on the loop that workers run on; everything else on asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
import uvloop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    """uvloop for the doors, whose transports behave in their own way."""
    if item.path.stem.startswith("test_websocket"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
