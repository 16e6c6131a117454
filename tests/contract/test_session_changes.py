"""A change reaches every worker that holds the session, whatever happens on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.errors import StoreRefused, StoreUnavailable
from cluster.sessions import BUCKETS, Session
from cluster.sessions.redis_sessions import RedisSessions
from tests.contract.stores import WAIT_SECONDS, Recorder, RedisBench, Worker
from tests.harness.waiting import until


class Slow(RedisSessions):
    """Its replies to an attach are held until the test releases them."""

    def __init__(self, worker: Worker, prefix: str, recorder: Recorder) -> None:
        super().__init__(
            worker.parts.router,
            worker.parts.subscriptions,
            prefix=prefix,
            ttl_seconds=60,
            state_max_size=65536,
            listener=recorder,
        )
        self.has_replied = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def _attached(self, user: str, session_id: str, *, resume: bool) -> Session | None:
        session = await super()._attached(user, session_id, resume=resume)
        self.has_replied.set()
        await self.may_go_on.wait()
        return session


async def test_a_change_that_overtakes_the_reply_to_an_attach_is_not_lost(real: RedisBench):
    one, two = await real.worker(), await real.worker(listens_to_sessions=False)
    made = await one.sessions.attach("ann", None, "h")
    recorder = Recorder()
    slow = Slow(two, real.prefix, recorder)
    await asyncio.wait_for(slow.start(), WAIT_SECONDS)
    attaching = asyncio.ensure_future(slow.attach("ann", made.id, "g"))
    await asyncio.wait_for(slow.has_replied.wait(), WAIT_SECONDS)
    await one.sessions.update(made.id, state={"n": 1}, channels=("news",))
    await until(lambda: made.id in slow._early, 10, "the change is here before the session")
    slow.may_go_on.set()
    held = await asyncio.wait_for(attaching, WAIT_SECONDS)
    assert (held.version, held.state, held.channels) == (1, b'{"n":1}', ("news",))
    assert (slow._early, dict(slow._attaching)) == ({}, {})


async def test_a_change_while_the_subscription_was_broken_is_read_when_it_is_back(own: RedisBench):
    one, two = await own.worker(), await own.worker()
    made = await one.sessions.attach("ann", None, "h")
    held = await two.sessions.attach("ann", made.id, "g")
    await own.break_subscriptions()
    await one.sessions.update(made.id, state={"n": 1}, channels=("news",))
    await two.recorder.until(lambda: held.version == 1)
    assert (held.state, held.channels) == (b'{"n":1}', ("news",))


@pytest.mark.parametrize("answer", ["CLUSTERDOWN The cluster is down", "", "NOPERM no"])
async def test_a_change_that_cannot_be_read_yet_is_read_later(real: RedisBench, answer: str):
    """The subscription is back before its store answers; "" means that the command link is down."""
    one, two = await real.worker(), await real.worker(listens_to_sessions=False)
    made = await one.sessions.attach("ann", None, "h")
    held = await two.sessions.attach("ann", made.id, "g")
    await one.sessions.update(made.id, state={"n": 1})
    submit, asked = two.parts.router.submit, 0

    def refuse_first(key: str, args: Any, done: Any, **options: Any) -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            submit(key, args, done, **options)
        else:
            done(StoreRefused(answer) if answer else StoreUnavailable("away"))

    two.parts.router.submit = refuse_first
    for bucket in range(BUCKETS):
        two.sessions._resumed(str(bucket))
    if answer.startswith("NOPERM"):
        await asyncio.sleep(2.5)
        assert (held.version, asked) == (0, 1), "what is never allowed is not asked for again"
    else:
        await until(lambda: held.version == 1, 10, "the change is read")
        assert (held.state, asked) == (b'{"n":1}', 3)


class OneAway(RedisSessions):
    """The first bucket that is renewed is refused."""

    refused = ""

    async def _renew_batch(self, tag: str, sessions: list[Any]) -> None:
        self.refused = self.refused or tag
        if tag == self.refused:
            raise StoreUnavailable("away")
        await super()._renew_batch(tag, sessions)


async def test_a_store_that_is_away_lets_no_session_of_another_expire(real: RedisBench):
    worker = await real.worker(listens_to_sessions=False)
    sessions = OneAway(
        worker.parts.router,
        worker.parts.subscriptions,
        prefix=real.prefix,
        ttl_seconds=60,
        state_max_size=65536,
        listener=worker.recorder,
    )
    held = [await sessions.attach("u", None, number) for number in range(20)]
    for session in held:
        session.received = 3
    with pytest.raises(StoreUnavailable):
        await sessions.renew()
    left = [session for session in held if session.received]
    assert 0 < len(left) < len(held), "only those of the store that is away"
