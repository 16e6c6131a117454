"""The sessions over Redis or Valkey.

In 64 buckets by id, each with one hash tag (`cluster.resp.keys`): `.session.<id>` (hash:
user, created, messages, version, state, channels, attached), `.sessions` (zset id -> expiry ms,
which decides), `.counters`, shard channel `.changes` with payloads
`1:id:version:length of channels:channels` and the state, both JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import zlib
from collections import Counter, deque
from functools import partial
from typing import Any, NamedTuple

import orjson

from cluster import json_text
from cluster.errors import StoreError, StoreRefused
from cluster.log import get_logger
from cluster.resp.keys import KIND_SESSIONS
from cluster.resp.router import Router
from cluster.resp.scripts import (
    SESSION_ATTACH,
    SESSION_DETACH,
    SESSION_RENEW,
    SESSION_UPDATE,
)
from cluster.resp.subscriptions import Subscriptions
from cluster.sessions import (
    BUCKETS,
    Session,
    SessionConflict,
    SessionGone,
    SessionListener,
    StateInvalid,
    StateTooLarge,
)

log = get_logger()

_RENEW_BATCH = 200
_REREAD_SECONDS = 1.0
_READS_IN_FLIGHT = 32


def _bucket(session_id: str) -> str:
    return str(zlib.crc32(session_id.encode()) % BUCKETS)


def _bucket_tag(prefix: str, session_id: str) -> str:
    return f"{{{prefix}:{KIND_SESSIONS}:{_bucket(session_id)}}}"


class _Change(NamedTuple):
    session_id: str
    version: int
    channels: tuple[str, ...]
    state: bytes

    @classmethod
    def parse(cls, payload: bytes) -> _Change:
        layout, session_id, version, size, rest = payload.split(b":", 4)
        if layout != b"1":
            raise ValueError("another layout")
        channels = orjson.loads(rest[: int(size)])
        return cls(session_id.decode(), int(version), tuple(channels), rest[int(size) :])

    def apply_to(self, session: Session) -> None:
        """Bring a session to this version."""
        session.version, session.state, session.channels = self.version, self.state, self.channels


class RedisSessions:
    """See `Sessions` and the module's guarantees.

    Args:
        ttl_seconds: how long a session lives past its last connection.
        listener: called when a session held here has changed.
    """

    def __init__(
        self,
        router: Router,
        subscriptions: Subscriptions,
        *,
        prefix: str,
        ttl_seconds: float,
        state_max_size: int,
        listener: SessionListener,
    ) -> None:
        self._router = router
        self._subscriptions = subscriptions
        self._prefix = prefix
        self._ttl_ms = int(ttl_seconds * 1000)
        self._state_max_size = state_max_size
        self._listener = listener
        self._held: dict[str, Session] = {}
        self._attaching: Counter[str] = Counter()
        self._early: dict[str, _Change] = {}
        self._detaching: set[asyncio.Future[None]] = set()
        self._unread: set[str] = set()
        self._reading: asyncio.TimerHandle | None = None
        self._to_read: deque[str] = deque()
        self._reads = 0
        self._is_sending = False

    async def start(self) -> None:
        """Subscribe to the changes of every bucket.

        Raises:
            StoreUnavailable: when the store does not confirm.
        """
        await asyncio.gather(
            *(
                self._subscriptions.subscribe(
                    f"{{{self._prefix}:{KIND_SESSIONS}:{bucket}}}.changes",
                    str(bucket),
                    self._changed,
                    self._resumed,
                )
                for bucket in range(BUCKETS)
            )
        )

    # --- attaching -----------------------------------------------------------------------

    async def attach(self, user: str, session_id: str | None, holder: object) -> Session:
        if session_id:
            session = await self._resume(user, session_id)
            if session is not None:
                return self._hold(session, holder)
        created = await self._attached(user, os.urandom(16).hex(), resume=False)
        assert created is not None, "the script creates a session that it may not resume"
        return self._hold(created, holder)

    async def _resume(self, user: str, session_id: str) -> Session | None:
        """Attach, and apply what was changed while the reply was in flight.

        Reply and changes arrive over two connections: a newer change may arrive first. (A new session
        cannot be changed by others.)
        """
        self._attaching[session_id] += 1
        try:
            session = await self._attached(user, session_id, resume=True)
            early = self._early.get(session_id)
            if session is not None and early is not None and early.version > session.version:
                early.apply_to(session)
            return session
        finally:
            self._attaching[session_id] -= 1
            if not self._attaching[session_id]:
                del self._attaching[session_id]
                self._early.pop(session_id, None)

    async def _attached(self, user: str, session_id: str, *, resume: bool) -> Session | None:
        reply = await self._asked(user, session_id, resume=resume)
        if not reply:
            return None
        created, messages, version, state, channels = reply
        return Session(
            id=session_id,
            user=user,
            created_ms=int(created),
            messages=int(messages),
            version=int(version),
            state=state or b"null",
            channels=tuple(orjson.loads(channels)) if channels else (),
            is_resumed=resume,
        )

    async def _asked(self, user: str, session_id: str, *, resume: bool) -> Any:
        """Ask the store to attach; if that is given up, what the store has attached is detached."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(reply: Any) -> None:
            if answer.cancelled():
                undo(reply)
            elif isinstance(reply, StoreError):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

        def undo(reply: Any) -> None:
            if reply and not isinstance(reply, StoreError):
                self._send_detach(session_id, 0, may_end=not resume)

        tag = _bucket_tag(self._prefix, session_id)
        self._router.run_script(
            SESSION_ATTACH,
            (f"{tag}.session.{session_id}", f"{tag}.sessions", f"{tag}.counters"),
            (session_id, user, self._ttl_ms, int(resume)),
            done,
        )
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:
                # Both in one turn: the answer had come when this was cancelled.
                undo(answer.result())
            raise

    def _hold(self, session: Session, holder: object) -> Session:
        held = self._held.get(session.id)
        if held is None:
            held = self._held[session.id] = session
        else:
            held.is_resumed = True
            held.messages = session.messages
            if session.version > held.version:
                held.version = session.version
                held.state = session.state
                held.channels = session.channels
        held.holders.append(holder)
        return held

    def detach(self, session: Session, holder: object, *, may_end: bool) -> None:
        with contextlib.suppress(ValueError):
            session.holders.remove(holder)
        received, session.received = session.received, 0
        if not session.holders:
            self._held.pop(session.id, None)
        self._send_detach(session.id, received, may_end=may_end)

    def _send_detach(self, session_id: str, received: int, *, may_end: bool) -> None:
        tag = _bucket_tag(self._prefix, session_id)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._detaching.add(future)

        def done(reply: Any) -> None:
            if isinstance(reply, StoreError):
                # The record expires anyway; only the last count of messages is lost.
                log.debug("session_detach_failed", reason=str(reply))
            self._detaching.discard(future)
            if not future.done():
                future.set_result(None)

        self._router.run_script(
            SESSION_DETACH,
            (f"{tag}.session.{session_id}", f"{tag}.sessions", f"{tag}.counters"),
            (session_id, self._ttl_ms, received, int(may_end)),
            done,
        )

    async def flush(self) -> None:
        """Wait until every detach in flight has been answered; the caller bounds the time."""
        while self._detaching:
            await asyncio.wait(list(self._detaching))

    # --- renewing ------------------------------------------------------------------------

    @property
    def renew_interval_seconds(self) -> float:
        """How often `renew` must be called so that no attached session expires."""
        return self._ttl_ms / 3000

    async def renew(self) -> None:
        """Renew the attached sessions in batches per bucket and add up their messages."""
        buckets: dict[str, list[Session]] = {}
        for session in self._held.values():
            buckets.setdefault(_bucket_tag(self._prefix, session.id), []).append(session)
        failed: StoreError | None = None
        for tag, sessions in buckets.items():
            for first in range(0, len(sessions), _RENEW_BATCH):
                try:
                    await self._renew_batch(tag, sessions[first : first + _RENEW_BATCH])
                except StoreError as error:
                    # One of several servers; the sessions of the others must be renewed all the same.
                    failed = error
        if failed is not None:
            raise failed

    async def _renew_batch(self, tag: str, sessions: list[Session]) -> None:
        keys = [f"{tag}.sessions"]
        args: list[int | str] = [self._ttl_ms]
        taken = []
        for session in sessions:
            received, session.received = session.received, 0
            taken.append(received)
            keys.append(f"{tag}.session.{session.id}")
            args += [session.id, received]
        try:
            await self._router.call_script(SESSION_RENEW, keys, args)
        except StoreError:
            for session, received in zip(sessions, taken, strict=True):
                session.received += received
            raise

    # --- changing ------------------------------------------------------------------------

    async def update(
        self,
        session_id: str,
        *,
        state: Any = ...,
        channels: tuple[str, ...] | None = None,
        expected_version: int | None = None,
    ) -> int:
        try:
            state_json = b"" if state is ... else json_text.of(state)
        except (orjson.JSONEncodeError, json_text.JsonTextInvalid) as error:
            raise StateInvalid(f"the state is no JSON: {error}") from None
        if len(state_json) > self._state_max_size:
            raise StateTooLarge(
                f"the state has {len(state_json)} bytes; {self._state_max_size} are allowed"
            )
        tag = _bucket_tag(self._prefix, session_id)
        version = await self._router.call_script(
            SESSION_UPDATE,
            (f"{tag}.session.{session_id}", f"{tag}.sessions"),
            (
                session_id,
                state_json,
                b"" if channels is None else orjson.dumps(channels),
                "" if expected_version is None else expected_version,
                f"{tag}.changes",
            ),
        )
        if version == -1:
            raise SessionGone("there is no such session")
        if version == -2:
            raise SessionConflict("the session has another version")
        return int(version)

    def _changed(self, bucket: str, payloads: list[bytes]) -> None:
        for payload in payloads:
            try:
                change = _Change.parse(payload)
            except ValueError:
                # From another version of this program, or from something else.
                log.warning("session_change_not_understood", bucket=bucket)
                continue
            self._take(change)

    def _take(self, change: _Change) -> None:
        name = change.session_id
        session = self._held.get(name)
        if session is not None and change.version > session.version:
            change.apply_to(session)
            self._listener.session_changed(session)
        if name in self._attaching:
            before = self._early.get(name)
            if before is None or change.version > before.version:
                self._early[name] = change

    def _resumed(self, bucket: str) -> None:
        """Changes may have been missed: read every session of the bucket that is held here."""
        self._unread.add(bucket)
        self._read_in(0.0)

    def _read_in(self, seconds: float) -> None:
        # Buckets are resumed together, and fail together: one pass over the sessions serves all.
        if self._reading is not None:
            if seconds:
                return
            self._reading.cancel()
        self._reading = asyncio.get_running_loop().call_later(seconds, self._read_unread)

    def _read_unread(self) -> None:
        self._reading = None
        buckets, self._unread = self._unread, set()
        self._to_read.extend(name for name in self._held if _bucket(name) in buckets)
        self._read_next()

    def _read_next(self) -> None:
        """Read a few at a time: a store must hold the replies, and a state may be large."""
        if self._is_sending:
            return  # A read was refused at once, by this loop.
        self._is_sending = True
        try:
            while self._to_read and self._reads < _READS_IN_FLIGHT:
                name = self._to_read.popleft()
                if name in self._held:
                    self._reads += 1
                    key = f"{_bucket_tag(self._prefix, name)}.session.{name}"
                    command = ("HMGET", key, "version", "state", "channels")
                    self._router.submit(key, command, partial(self._read, name))
        finally:
            self._is_sending = False

    def _read(self, session_id: str, reply: Any) -> None:
        self._reads -= 1
        self._read_next()
        if isinstance(reply, StoreError):
            self._read_failed(_bucket(session_id), reply)
            return
        version, state, channels = reply
        if version is not None:
            names = tuple(orjson.loads(channels)) if channels else ()
            self._take(_Change(session_id, int(version), names, state or b"null"))

    def _read_failed(self, bucket: str, error: StoreError) -> None:
        """The store is not available yet: its other link is down, or the slot has no owner."""
        if bucket in self._unread:
            return
        if not self._unread:
            log.warning("session_read_failed", reason=str(error))
        if not isinstance(error, StoreRefused) or error.is_temporary:
            self._unread.add(bucket)
            self._read_in(_REREAD_SECONDS * random.uniform(0.5, 1.0))
