"""What a carrier needs of the door that let it in."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from cluster.metrics.tally import Tally
from cluster.node.node import Node

C = TypeVar("C")


class Host(Generic[C]):
    """Implemented by `Door` for its carriers."""

    node: Node
    tally: Tally
    session_short_lived_seconds: float

    def entered(self, carrier: C) -> int:
        """The connect has worked; returns the slot on the wheel."""
        raise NotImplementedError

    def closing(self, carrier: C) -> None:
        """A close frame has been written; the socket must end soon."""
        raise NotImplementedError

    def left(self, carrier: C) -> None:
        """The socket has ended."""
        raise NotImplementedError

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the event loop's other work and keep it alive."""
        raise NotImplementedError
