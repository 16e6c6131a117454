"""The contract of the sessions: what `cluster.sessions.Sessions` promises with every kind of store."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from cluster.sessions import BUCKETS, SessionConflict, SessionGone, StateInvalid, StateTooLarge
from tests.contract.stores import Bench, RedisBench, Worker
from tests.harness.waiting import until


async def flushed(worker: Worker) -> None:
    await asyncio.wait_for(worker.sessions.flush(), 10)


async def left(worker: Worker, session: Any, holder: object, *, may_end: bool = False) -> None:
    worker.sessions.detach(session, holder, may_end=may_end)
    await flushed(worker)


async def test_a_new_session_is_empty_and_belongs_to_its_user(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    assert len(session.id) == 32
    assert int(session.id, 16) >= 0
    assert (session.user, session.is_resumed, session.messages) == ("ann", False, 0)
    assert (session.state, session.channels, session.version) == (b"null", (), 0)
    assert session.holders == ["h"]


async def test_every_session_has_its_own_id(bench: Bench):
    worker = await bench.worker()
    made = await asyncio.gather(*(worker.sessions.attach("u", None, n) for n in range(50)))
    assert len({session.id for session in made}) == 50


async def test_a_session_is_resumed_at_another_worker_with_what_it_holds(bench: Bench):
    one, two = await bench.worker(), await bench.worker()
    session = await one.sessions.attach("ann", None, "h")
    session.received = 5
    await one.sessions.update(session.id, state={"cart": [1]}, channels=("news",))
    await left(one, session, "h")
    resumed = await two.sessions.attach("ann", session.id, "g")
    assert (resumed.id, resumed.is_resumed, resumed.messages) == (session.id, True, 5)
    assert (resumed.state, resumed.channels, resumed.version) == (
        b'{"cart":[1]}',
        ("news",),
        1,
    )
    assert resumed.created_ms == session.created_ms


@pytest.mark.parametrize("wanted", ["", "nonsense", "0" * 32, "{x}", "a:b\n", "ü" * 100, "\x00"])
async def test_an_unknown_session_starts_a_new_one(bench: Bench, wanted: str):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", wanted, "h")
    assert not session.is_resumed
    assert session.id != wanted


async def test_another_users_session_starts_a_new_one_and_stays_untouched(bench: Bench):
    worker, other = await bench.worker(), await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    stranger = await other.sessions.attach("bob", session.id, "g")
    assert not stranger.is_resumed
    assert stranger.id != session.id
    assert (await other.sessions.attach("ann", session.id, "k")).is_resumed


async def test_an_anonymous_session_can_be_resumed_by_an_anonymous_user(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("", None, "h")
    await left(worker, session, "h")
    assert (await worker.sessions.attach("", session.id, "h")).is_resumed


async def test_connections_of_one_worker_share_the_session(bench: Bench):
    worker = await bench.worker()
    one = await worker.sessions.attach("ann", None, "h")
    two = await worker.sessions.attach("ann", one.id, "g")
    assert one is two
    assert one.holders == ["h", "g"]
    await left(worker, one, "h")
    assert two.holders == ["g"]
    await worker.sessions.update(two.id, state=1)
    await worker.recorder.until(lambda: bool(worker.recorder.changes))


async def test_a_session_ends_after_its_ttl(bench: Bench):
    worker = await bench.worker(ttl=1.0)
    session = await worker.sessions.attach("ann", None, "h")
    await left(worker, session, "h")
    assert (await worker.sessions.attach("ann", session.id, "h")).is_resumed
    await left(worker, session, "h")
    async with asyncio.timeout(5):
        while (await bench.statistics())["tracked"]:
            await asyncio.sleep(0.05)
    assert not (await worker.sessions.attach("ann", session.id, "h")).is_resumed


async def test_renewing_keeps_an_attached_session_and_writes_its_messages(bench: Bench):
    worker, other = await bench.worker(ttl=2.0), await bench.worker(ttl=2.0)
    session = await worker.sessions.attach("ann", None, "h")
    # Longer than the life of a session, with pauses so short that a busy machine may double them.
    for _ in range(6):
        await asyncio.sleep(0.5)
        session.received = 1
        await worker.sessions.renew()
    assert session.received == 0
    resumed = await other.sessions.attach("ann", session.id, "g")
    assert (resumed.is_resumed, resumed.messages) == (True, 6)


async def test_messages_are_counted_over_all_connections(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    for _ in range(3):
        session.received = 4
        await left(worker, session, "h")
        session = await worker.sessions.attach("ann", session.id, "h")
    assert session.messages == 12


async def test_a_change_reaches_every_worker_that_holds_the_session(bench: Bench):
    one, two, three = [await bench.worker() for _ in range(3)]
    session = await one.sessions.attach("ann", None, "h")
    await two.sessions.attach("ann", session.id, "g")
    assert await three.sessions.update(session.id, state={"x": 1}, channels=("a", "b")) == 1
    for worker in (one, two):
        await worker.recorder.until(lambda worker=worker: bool(worker.recorder.changes))  # type: ignore[misc]
        assert worker.recorder.changes == [(session.id, 1, {"x": 1}, ("a", "b"))]
    assert three.recorder.changes == []


async def test_state_and_channels_change_one_without_the_other(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    await worker.sessions.update(session.id, state="s")
    await worker.sessions.update(session.id, channels=("a",))
    await worker.sessions.update(session.id, state=None)
    await worker.recorder.until(lambda: len(worker.recorder.changes) == 3)
    assert [change[1:] for change in worker.recorder.changes] == [
        (1, "s", ()),
        (2, "s", ("a",)),
        (3, None, ("a",)),
    ]


async def test_channels_can_be_taken_away_again(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    await worker.sessions.update(session.id, channels=("a", "b"))
    await worker.sessions.update(session.id, channels=())
    await worker.recorder.until(lambda: len(worker.recorder.changes) == 2)
    assert [change[3] for change in worker.recorder.changes] == [("a", "b"), ()]


async def test_versions_grow_and_an_expected_one_must_match(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    assert await worker.sessions.update(session.id, state=1, expected_version=0) == 1
    with pytest.raises(SessionConflict):
        await worker.sessions.update(session.id, state=2, expected_version=0)
    assert await worker.sessions.update(session.id, state=2, expected_version=1) == 2


async def test_of_two_conditional_changes_one_wins(bench: Bench):
    one, two = await bench.worker(), await bench.worker()
    session = await one.sessions.attach("ann", None, "h")
    outcomes = await asyncio.gather(
        one.sessions.update(session.id, state="one", expected_version=0),
        two.sessions.update(session.id, state="two", expected_version=0),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["SessionConflict", "int"]


async def test_a_session_that_is_not_there_cannot_be_changed(bench: Bench):
    worker = await bench.worker()
    with pytest.raises(SessionGone):
        await worker.sessions.update("0" * 32, state=1)


async def test_a_state_too_large_changes_nothing(bench: Bench):
    worker = await bench.worker(state_max_size=100)
    session = await worker.sessions.attach("ann", None, "h")
    assert await worker.sessions.update(session.id, state="x" * 98) == 1
    with pytest.raises(StateTooLarge, match="103 bytes"):
        await worker.sessions.update(session.id, state="x" * 101)
    assert await worker.sessions.update(session.id, channels=()) == 2


@pytest.mark.parametrize(
    "state", [None, 0, "", [], {}, "ä:ö", {"a": [1, {"b": None}]}, 1.5], ids=str
)
async def test_a_state_is_any_json(bench: Bench, state: Any):
    one, two = await bench.worker(), await bench.worker()
    session = await one.sessions.attach("ann", None, "h")
    await one.sessions.update(session.id, state=state)
    await one.recorder.until(lambda: bool(one.recorder.changes))
    assert orjson.loads(session.state) == state
    assert (await two.sessions.attach("ann", session.id, "g")).state == session.state


async def test_a_state_that_is_no_json_changes_nothing(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    for state in ({1, 2}, orjson.loads(b"[" * 300 + b"]" * 300)):
        with pytest.raises(StateInvalid):
            await worker.sessions.update(session.id, state=state)
    assert await worker.sessions.update(session.id, channels=()) == 1


async def test_a_short_session_with_nothing_in_it_ends_with_its_connection(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    await left(worker, session, "h", may_end=True)
    assert (await bench.statistics())["tracked"] == 0
    assert not (await worker.sessions.attach("ann", session.id, "h")).is_resumed


async def test_a_short_session_with_something_in_it_lives_on(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    await worker.sessions.update(session.id, state=1)
    await left(worker, session, "h", may_end=True)
    assert (await worker.sessions.attach("ann", session.id, "h")).is_resumed


async def test_a_short_session_that_another_worker_holds_lives_on(bench: Bench):
    one, two = await bench.worker(), await bench.worker()
    session = await one.sessions.attach("ann", None, "h")
    await two.sessions.attach("ann", session.id, "g")
    await left(one, session, "h", may_end=True)
    assert (await one.sessions.attach("ann", session.id, "h")).is_resumed


async def test_sessions_are_counted_over_all_buckets(bench: Bench):
    worker = await bench.worker(ttl=2.0)
    made = [await worker.sessions.attach("u", None, n) for n in range(40)]
    resumed = [await worker.sessions.attach("u", session.id, "again") for session in made[:10]]
    assert all(session.is_resumed for session in resumed)
    now = await bench.statistics()
    assert (now["created"], now["resumed"], now["tracked"] + now["expired"]) == (40, 10, 40)
    async with asyncio.timeout(10):
        while (now := await bench.statistics())["tracked"]:
            await asyncio.sleep(0.05)
    assert now == {"tracked": 0, "created": 40, "resumed": 10, "expired": 40}


async def test_an_expired_session_is_counted_once_however_many_sweep(bench: Bench):
    one, _ = await bench.worker(ttl=0.05), await bench.worker(ttl=0.05)
    await one.sessions.attach("u", None, "h")
    await asyncio.sleep(0.1)
    sweeps = await asyncio.gather(*(bench.statistics() for _ in range(5)))
    assert max(sweep["expired"] for sweep in sweeps) == 1


async def test_leaving_twice_changes_nothing(bench: Bench):
    worker = await bench.worker()
    session = await worker.sessions.attach("ann", None, "h")
    await left(worker, session, "h")
    await left(worker, session, "h")
    assert (await worker.sessions.attach("ann", session.id, "h")).is_resumed


# --- how it stands in a real server ---------------------------------------------------------


async def test_sessions_are_spread_over_the_buckets(real: RedisBench):
    worker = await real.worker()
    for _ in range(400):
        await worker.sessions.attach("u", None, "h")
    with real.servers[0].client() as client:
        keys = {key.decode() for key in client.scan_iter(f"{{{real.prefix}:s:*.sessions")}
    assert BUCKETS * 0.8 < len(keys) <= BUCKETS


async def test_a_record_leaves_the_server_by_itself(real: RedisBench):
    worker = await real.worker(ttl=1.0)
    session = await worker.sessions.attach("ann", None, "h")
    with real.servers[0].client() as client:
        [key] = list(client.scan_iter(f"*.session.{session.id}"))
        assert 0 < client.pttl(key) <= 61_000


async def test_a_change_of_another_layout_is_left_alone_and_breaks_nothing(real: RedisBench):
    worker = await real.worker()
    session = await worker.sessions.attach("ann", None, "h")
    await worker.subscribe()
    with real.servers[0].client() as client:
        [key] = list(client.scan_iter(f"*.session.{session.id}"))
        changes = key.decode().split(".")[0] + ".changes"
        for payload in (b"2:x", b"", b"1:a:b", b"9:%b:5:{}" % session.id.encode(), b"\xff:\xff"):
            client.execute_command("SPUBLISH", changes, payload)
    await worker.sessions.update(session.id, state="after")
    await worker.recorder.until(lambda: bool(worker.recorder.changes))
    assert worker.recorder.changes[0][2] == "after"
    assert worker.recorder.resumptions == []


@pytest.mark.parametrize("resumes", [False, True])
async def test_an_attach_that_is_given_up_while_its_answer_is_on_the_way_is_undone(
    real: RedisBench, resumes: bool
):
    worker = await real.worker()
    made = await worker.sessions.attach("ann", None, "h")
    attaching = asyncio.ensure_future(
        worker.sessions.attach("ann", made.id if resumes else None, "g")
    )
    await asyncio.sleep(0)
    attaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attaching

    def attached() -> dict[str, int]:
        """How many connections each record has, by the session's id."""
        with real.servers[0].client() as client:
            keys = list(client.scan_iter(f"{{{real.prefix}:*.session.*"))
            return {key.decode()[-32:]: int(client.hget(key, "attached")) for key in keys}

    await until(lambda: attached() == {made.id: 1}, 10, "only the first is attached")
    assert set(worker.sessions._held) == {made.id}
    await left(worker, made, "h", may_end=True)
    assert attached() == {}
