"""What a store has lost in a failover: its subscribers are told, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.local_worker import RECOVERABLE, LocalWorker, ask, configured, entered, published


async def fail_over(worker: LocalWorker, *, lost: int, anew: int) -> None:
    """The store becomes a replica that lacks the last publications, and gives their offsets to others."""
    stream = worker.store.streams["a"]
    for _ in range(lost):
        stream.entries.pop()
    stream.top -= lost
    policy = worker.node.channels._permissions.history("a")
    for number in range(anew):
        # Before a worker has subscribed at the new master.
        worker.store.append("a", b'{"data":"anew %d"}' % number, policy, 0)
    worker.store.cut()


@pytest.mark.parametrize(("lost", "anew"), [(1, 0), (2, 1), (2, 2), (1, 3)])
async def test_subscribers_are_told_of_what_a_failover_has_lost(lost: int, anew: int):
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        result = (await ask(caller, "subscribe", channel="a"))["subscribe"]
        await published(caller, 4)
        await caller.until(lambda: caller.pubs() == [1, 2, 3, 4])
        await fail_over(worker, lost=lost, anew=anew)
        told: dict[str, Any] = await caller.until(
            lambda: next(
                (one["push"] for one in caller.heard if "unsubscribe" in one.get("push", ())), {}
            )
        )
        assert told["unsubscribe"]["code"] == 2500
        assert caller.pubs() == [1, 2, 3, 4]
        again = await ask(
            caller, "subscribe", channel="a", recover=True, epoch=result["epoch"], offset=4
        )
        # What it has is not what the stream has, whatever the offsets say.
        assert not again["subscribe"].get("recovered")
        assert again["subscribe"]["epoch"] != result["epoch"]
        await published(caller, 1, first=9)
        await caller.until(lambda: caller.pubs()[-1:] == [9])


@pytest.mark.parametrize(("lost", "anew"), [(1, 0), (1, 1), (2, 1), (1, 3)])
async def test_subscribers_are_told_of_the_loss_of_what_was_acknowledged_and_never_delivered(
    lost: int, anew: int
):
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        await published(caller, 3)
        await caller.until(lambda: caller.pubs() == [1, 2, 3])
        worker.store.delivers = False
        await published(caller, lost, first=4)
        worker.store.delivers = True
        await fail_over(worker, lost=lost, anew=anew)
        await caller.until(
            lambda: any("unsubscribe" in one.get("push", ()) for one in caller.heard)
        )
        assert caller.pubs() == [1, 2, 3]


async def test_what_was_acknowledged_and_not_delivered_is_filled_if_the_store_has_it():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        worker.store.delivers = False
        await published(caller, 2)
        worker.store.delivers = True
        await fail_over(worker, lost=0, anew=1)
        await caller.until(lambda: caller.pubs() == [1, 2, "anew 0"])
        assert not any("unsubscribe" in one.get("push", ()) for one in caller.heard)
        await published(caller, 1, first=4)
        await caller.until(lambda: caller.pubs()[-1:] == [4])


async def test_a_failover_that_has_lost_nothing_is_not_noticed():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        await published(caller, 3)
        await fail_over(worker, lost=0, anew=2)
        await caller.until(lambda: caller.pubs() == [1, 2, 3, "anew 0", "anew 1"])
        assert not any("unsubscribe" in one.get("push", ()) for one in caller.heard)
