"""Channels that an application gives to sessions: every connection of the session is subscribed to them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import cluster
from tests.contract.fakes import MemoryStore
from tests.unit.api_workers import connected, push
from tests.unit.local_worker import RECOVERABLE, Caller, LocalWorker, ask, configured


def giving() -> cluster.Application:
    app = cluster.Application()

    @app.rpc("give")
    async def give(client: cluster.ApplicationClient, channel: str) -> list[str]:
        try:
            await client.session.subscribe(channel)
        except cluster.ClientError as error:
            raise cluster.ApplicationError(error.code + 1000, error.message) from None
        return sorted(client.session.channels)

    @app.rpc("take")
    async def take(client: cluster.ApplicationClient, channel: str) -> list[str]:
        await client.session.unsubscribe(channel)
        return sorted(client.session.channels)

    return app


def worker(store: MemoryStore, **client: Any) -> LocalWorker:
    config = configured(options=RECOVERABLE, **client)
    return LocalWorker(config, store=store, application=giving())


async def test_every_tab_is_subscribed_and_one_that_comes_later_or_again():
    store = MemoryStore()
    async with worker(store).open() as one, worker(store).open() as two:
        first, _, session = await connected(one)
        second, _, _ = await connected(two, session)
        assert (await ask(first, "rpc", method="give", data="news"))["rpc"] == {"data": ["news"]}
        for tab in (first, second):
            assert (await push(tab, "subscribe"))["channel"] == "news"
        assert "publish" in await ask(second, "publish", channel="news", data=1)
        for tab in (first, second):
            await tab.until(partial(_heard, tab))
        third = await two.caller()
        result = await third.connect(data={"session": session})
        assert list(result["subs"]) == ["news"]
        assert result["subs"]["news"]["recoverable"] is True


async def test_a_channel_that_is_taken_ends_with_2000_and_does_not_come_back():
    store = MemoryStore()
    async with worker(store).open() as one:
        caller, _, session = await connected(one)
        await ask(caller, "rpc", method="give", data="news")
        await push(caller, "subscribe")
        assert (await ask(caller, "rpc", method="take", data="news"))["rpc"] == {"data": []}
        assert (await push(caller, "unsubscribe"))["unsubscribe"]["code"] == 2000
        assert (await ask(caller, "rpc", method="take", data="news"))["rpc"] == {"data": []}
        again = await one.caller()
        assert "subs" not in await again.connect(data={"session": session})


async def test_a_channel_that_cannot_be_is_an_error_and_changes_nothing():
    async with worker(MemoryStore(), channel_limit=2).open() as one:
        caller, _, _ = await connected(one)
        for channel, code in (("nowhere:a", 1102), ("ä", 1107), ("x" * 300, 1107)):
            answer = await ask(caller, "rpc", method="give", data=channel)
            assert answer["error"]["code"] == code
        for channel in ("a", "b"):
            assert "rpc" in await ask(caller, "rpc", method="give", data=channel)
        assert (await ask(caller, "rpc", method="give", data="c"))["error"]["code"] == 1106
        again = await ask(caller, "rpc", method="give", data="a")
        assert again["rpc"] == {"data": ["a", "b"]}, "one that it has already is no error"
        assert (await ask(caller, "rpc", method="take", data="a"))["rpc"] == {"data": ["b"]}
        assert one.counters.errors["handler"] == 0


async def test_changes_at_the_same_time_at_two_workers_are_all_made():
    store = MemoryStore()
    async with worker(store).open() as one, worker(store).open() as two:
        first, _, session = await connected(one)
        second, _, _ = await connected(two, session)
        names = [f"channel-{number}" for number in range(16)]
        tabs = [first, second]
        for number, name in enumerate(names):
            tabs[number % 2].say({"id": 10 + number, "rpc": {"method": "give", "data": name}})
        answers = await asyncio.gather(
            *(tabs[number % 2].reply(10 + number) for number in range(len(names)))
        )
        assert all("rpc" in one for one in answers), answers
        third = await one.caller()
        assert sorted((await third.connect(data={"session": session}))["subs"]) == sorted(names)


def _heard(caller: Caller) -> bool:
    return caller.pubs() == [1]
