"""Members of one channel whose subscriptions differ: each is shown and told as its own says."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.node.members import membership_of
from cluster.node.user_commands import SubscribeUser
from cluster.presence import PresenceMode
from tests.harness.waiting import until
from tests.unit.local_worker import Caller, LocalWorker, ask
from tests.unit.test_presence import QUICK, WITHIN, config, events, members, person

HIDDEN = {"presence": False}
UNTOLD = {"join_leave": False}


async def put(
    worker: LocalWorker, caller: Caller, client: str, channel: str, **override: bool
) -> None:
    """Subscribe a client by the server API, with an override."""
    await worker.control.tell(
        "subscribe", SubscribeUser(user="", client=client, channel=channel, override=override)
    )
    await caller.until(
        lambda: any(
            one.get("push", {}).get("channel") == channel and "subscribe" in one["push"]
            for one in caller.heard
        )
    )


async def test_a_hidden_first_subscriber_hides_none_that_follow():
    async with LocalWorker(config()).open() as worker:
        hidden, one = await person(worker)
        shown, two = await person(worker)
        await put(worker, hidden, one, "both:a", **HIDDEN)
        await ask(shown, "subscribe", channel="both:a")
        assert set(await members(shown, "both:a")) == {two}
        assert worker.node.members is not None
        assert worker.node.members.entries == 1


async def test_one_that_must_be_hidden_is_hidden_among_others_that_are_shown():
    async with LocalWorker(config()).open() as worker:
        shown, one = await person(worker)
        hidden, two = await person(worker)
        await ask(shown, "subscribe", channel="both:a")
        await put(worker, hidden, two, "both:a", **HIDDEN)
        assert set(await members(shown, "both:a")) == {one}
        await ask(shown, "unsubscribe", channel="both:a")
        assert await members(shown, "both:a") == {}
        hidden.wire.abort()
        found = worker.node.members
        assert found is not None
        await until(lambda: not found._channels, WITHIN, "nothing is kept of the channel")
        assert found.entries == 0


@pytest.mark.parametrize("is_first", [True, False])
async def test_only_the_joins_and_leaves_of_those_that_are_told_are_told(is_first: bool):
    async with LocalWorker(config()).open() as worker:
        untold, one = await person(worker)
        told, two = await person(worker)
        if is_first:
            await put(worker, untold, one, "pushed:a", **UNTOLD)
        await ask(told, "subscribe", channel="pushed:a")
        if not is_first:
            await put(worker, untold, one, "pushed:a", **UNTOLD)
        assert set(await members(told, "pushed:a")) == {one, two}
        untold.wire.abort()
        await until(lambda: len(worker.server.clients) == 1, WITHIN, "it is gone")
        third, three = await person(worker)
        await ask(third, "subscribe", channel="pushed:a")
        await told.until(lambda: ("join", three) in events(told))
        assert events(told) == [("join", two), ("join", three)]
        assert set(await members(told, "pushed:a")) == {two, three}


async def test_changes_of_one_client_in_one_turn_are_done_in_order_whatever_their_modes():
    async with LocalWorker(config()).open() as worker:
        other, one = await person(worker)
        client, two = await person(worker)
        found = worker.node.members
        assert found is not None
        [subscriber] = [each for each in worker.server.clients if each.connection.client == two]
        [another] = [each for each in worker.server.clients if each.connection.client == one]
        shown = membership_of(PresenceMode(True, True), gets_pushes=False)
        untold = membership_of(PresenceMode(True, False), gets_pushes=False)
        found.enter("pushed:a", another, untold)
        found.enter("pushed:a", subscriber, shown)
        found.leave("pushed:a", subscriber)
        found.enter("pushed:a", subscriber, untold)
        assert set(await members(client, "pushed:a")) == {one, two}
        found.leave("pushed:a", another)
        found.leave("pushed:a", subscriber)
        found.enter("pushed:a", subscriber, shown)
        found.leave("pushed:a", subscriber)
        assert await members(other, "pushed:a") == {}
        assert found.entries == 0


async def test_of_a_channel_s_members_those_with_entries_are_renewed_and_the_hidden_stay_hidden():
    async with LocalWorker(config(**QUICK)).open() as worker:
        hidden, one = await person(worker)
        await put(worker, hidden, one, "pushed:a", **HIDDEN)
        shown, two = await person(worker)
        await ask(shown, "subscribe", channel="pushed:a")
        untold, three = await person(worker)
        await put(worker, untold, three, "pushed:a", **UNTOLD)
        renewals = worker.counters.presence_renewals
        await until(lambda: renewals["renewed"] > 5, WITHIN, "they are renewed")
        assert set(worker.store.members["pushed:a"]) == {two, three}
        worker.store.members.clear()
        await until(lambda: renewals["restored"] == 2, WITHIN, "they are back")
        assert set(await members(shown, "pushed:a")) == {two, three}
        ended: list[Any] = [event for event in events(shown) if event[0] == "leave"]
        assert ended == []


async def test_a_member_without_info_costs_no_object_of_its_own():
    mode = PresenceMode(True, False)
    one = membership_of(mode, gets_pushes=False)
    assert membership_of(PresenceMode(True, False), gets_pushes=False) is one
