"""A self-hosted WebSocket cluster: several workers, one door, no message lost between them."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
