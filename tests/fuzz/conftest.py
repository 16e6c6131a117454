"""The event loop of the fuzz tests: that of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import uvloop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    """uvloop, as in a worker."""
    return {"uvloop": uvloop.new_event_loop}
