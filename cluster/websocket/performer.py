"""Passes a client's messages to its state machine and performs the actions that come back, in order.

A subclass has what each action does; see `client`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar

from cluster.connection import Action, Connection, actions
from cluster.errors import SERVER_ERROR
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.node import Node
from cluster.protocol import text_frame
from cluster.sessions import Session
from cluster.websocket.frames import FrameProtocol

log = get_logger()


class ActionPerformer(FrameProtocol):
    """A socket and the state machine of its connection.

    Attributes:
        connection: the state machine.
        session: of the connected client.
    """

    __slots__ = ("_counted", "_counters", "_node", "connection", "session")

    _performers: ClassVar[Mapping[type, Callable[[Any, Any], None]]]

    def __init__(self, connection: Connection, node: Node, counters: Counters) -> None:
        super().__init__()
        self._node = node
        self._counters = counters
        self._counted = 0
        self.connection = connection
        self.session: Session | None = None

    def receive(self, data: bytes) -> None:
        self._counters.bytes_in += len(data)
        connection = self.connection
        self.perform(connection.receive(data))
        self._count()
        if connection.is_congested:
            self.pause()

    def next_turn(self) -> None:
        self.perform(self.connection.next_turn())
        self._count()

    def _count(self) -> None:
        """Add the commands handled since the last call to the session's messages."""
        session, commands = self.session, self.connection.commands
        if session is not None:
            session.received += commands - self._counted
            self._counted = commands

    def perform(self, wanted: list[Action]) -> None:
        """Perform the actions that the state machine returned, in order.

        Successive replies are written together: a system call costs more than everything else here.
        """
        frames: list[bytes] = []
        for action in wanted:
            if type(action) is actions.Send:
                frames.append(self._frame(action))
            elif type(action) is actions.Subscribe:
                self._subscribe(action, frames)
            else:
                self._write_all(frames)
                self._performers[type(action)](self, action)
        self._write_all(frames)
        connection = self.connection
        if connection.budget <= 0 and connection.has_waiting:
            self.schedule_turn()
        elif self._is_paused and not self._is_turn_scheduled and not connection.is_congested:
            self.resume()

    def _frame(self, action: actions.Send) -> bytes:
        frame = text_frame(action.payload)
        self._counters.messages_out += 1
        self._counters.bytes_out += len(frame)
        return frame

    def _write_all(self, frames: list[bytes]) -> None:
        if frames:
            self.write(frames[0] if len(frames) == 1 else b"".join(frames))
            frames.clear()

    def _subscribe(self, action: actions.Subscribe, frames: list[bytes]) -> None:
        """Subscribe; `frames` are still to be written before the reply."""
        raise NotImplementedError

    # --- what waits for the store ------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._node.run(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            self._counters.errors["internal"] += 1
            log.exception("client_failed", client=self.connection.client)
            self.perform(self.connection.disconnect(SERVER_ERROR))
