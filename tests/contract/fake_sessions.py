"""In-memory sessions over a `MemoryStore`: see `tests.contract.fakes`."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import orjson

from cluster import json_text
from cluster.broker import Broker
from cluster.errors import StoreUnavailable
from cluster.sessions import (
    Session,
    SessionConflict,
    SessionGone,
    SessionListener,
    Sessions,
    StateInvalid,
    StateTooLarge,
)
from tests.contract.fakes import MemoryBroker, MemoryStore, Record, _now_ms


class MemorySessions:
    """See `cluster.sessions.Sessions`."""

    def __init__(
        self,
        store: MemoryStore,
        listener: SessionListener,
        *,
        ttl_seconds: float = 300.0,
        state_max_size: int = 65536,
    ) -> None:
        self.store = store
        self.held: dict[str, Session] = {}
        self._listener = listener
        self._ttl_ms = ttl_seconds * 1000
        self._state_max_size = state_max_size
        self._loop = asyncio.get_running_loop()
        store.holders.append(self)

    async def attach(self, user: str, session_id: str | None, holder: object) -> Session:
        await asyncio.sleep(0)
        self._must_be_up()
        record = self._valid(session_id) if session_id else None
        resumes = record is not None and record.session.user == user
        if record is None or not resumes:
            record = self._create(user)
        else:
            self.store.counters["resumed"] += 1
        record.attached += 1
        record.expires_ms = _now_ms() + self._ttl_ms
        return self._hold(record.session, holder, is_resumed=resumes)

    def _must_be_up(self) -> None:
        if not self.store.is_up:
            raise StoreUnavailable("the store is away")

    def _valid(self, session_id: str) -> Record | None:
        record = self.store.sessions.get(session_id)
        return record if record is not None and record.expires_ms >= _now_ms() else None

    def _create(self, user: str) -> Record:
        session = Session(secrets.token_hex(16), user, int(_now_ms()))
        record = self.store.sessions[session.id] = Record(session, 0.0)
        self.store.counters["created"] += 1
        return record

    def _hold(self, kept: Session, holder: object, *, is_resumed: bool) -> Session:
        held = self.held.get(kept.id)
        if held is None:
            held = self.held[kept.id] = replace(kept, is_resumed=is_resumed, holders=[])
        else:
            held.is_resumed = True
            held.messages = kept.messages
        held.holders.append(holder)
        return held

    def detach(self, session: Session, holder: object, *, may_end: bool) -> None:
        if holder in session.holders:
            session.holders.remove(holder)
        received, session.received = session.received, 0
        if not session.holders:
            self.held.pop(session.id, None)
        record = self.store.sessions.get(session.id)
        if record is None:
            return
        record.attached -= 1
        record.session.messages += received
        is_bare = record.session.version == 0
        if may_end and record.attached <= 0 and is_bare:
            del self.store.sessions[session.id]
        else:
            record.expires_ms = _now_ms() + self._ttl_ms

    async def flush(self) -> None:
        """No write is ever pending."""

    async def renew(self) -> None:
        await asyncio.sleep(0)
        self._must_be_up()
        for session in self.held.values():
            record = self.store.sessions.get(session.id)
            if record is not None:
                record.session.messages += session.received
                session.received = 0
                record.expires_ms = _now_ms() + self._ttl_ms

    async def update(
        self,
        session_id: str,
        *,
        state: Any = ...,
        channels: tuple[str, ...] | None = None,
        expected_version: int | None = None,
    ) -> int:
        await asyncio.sleep(0)
        written = self._written(state)
        self._must_be_up()
        record = self._valid(session_id)
        if record is None:
            raise SessionGone("there is no such session")
        session = record.session
        if expected_version is not None and session.version != expected_version:
            raise SessionConflict("the session has another version")
        session.version += 1
        session.state = session.state if state is ... else written
        session.channels = session.channels if channels is None else channels
        for worker in self.store.holders:
            self._loop.call_soon(worker.changed, session.id, replace(session))
        return session.version

    def _written(self, state: Any) -> bytes:
        try:
            written = b"" if state is ... else json_text.of(state)
        except (orjson.JSONEncodeError, json_text.JsonTextInvalid) as error:
            raise StateInvalid(str(error)) from None
        if len(written) > self._state_max_size:
            raise StateTooLarge(f"the state has {len(written)} bytes")
        return written

    def changed(self, session_id: str, change: Session) -> None:
        session = self.held.get(session_id)
        if session is None or change.version <= session.version:
            return
        session.version, session.state = change.version, change.state
        session.channels = change.channels
        self._listener.session_changed(session)


def _fakes_fit(broker: MemoryBroker, sessions: MemorySessions) -> tuple[Broker, Sessions]:
    """mypy checks the fakes against the protocols."""
    return broker, sessions
