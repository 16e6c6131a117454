"""ASKING: how a command follows ASK to the node that is about to get its slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cluster.errors import StoreRefused

Callback = Callable[[Any], None]


def ask_before(submit: Callable[[Sequence[str], Callback], None], done: Callback) -> Callback:
    """Let the next command of this turn use a slot that this node is about to get.

    Args:
        submit: sends a command to the node.
        done: gets the reply of the next command.

    Returns:
        The callback to give to that command instead of `done`. A node that refuses ASKING itself
        redirects the command again, and then `done` gets the refusal, which says why.
    """
    refusals: list[StoreRefused] = []

    def asked(reply: Any) -> None:
        if isinstance(reply, StoreRefused):
            refusals.append(reply)

    def answered(reply: Any) -> None:
        done(refusals[0] if refusals and isinstance(reply, StoreRefused) else reply)

    submit(("ASKING",), asked)
    return answered
