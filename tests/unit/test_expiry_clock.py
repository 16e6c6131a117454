"""A step of the machine's clock neither ends what a token allows nor extends it."""

from __future__ import annotations

import time

import pytest

from cluster import expiry_clock
from tests.unit.local_worker import LocalWorker, ask
from tests.unit.test_subscription_tokens import config, entered, for_channel, token

HOUR = 3600


def step(monkeypatch: pytest.MonkeyPatch, worker: LocalWorker, seconds: int) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)
    # It has been given the clock when it was made.
    monkeypatch.setattr(worker.node.refreshes._authenticator, "_clock", time.time)


async def several_pings(worker: LocalWorker) -> None:
    """Expiries are looked at before each ping."""
    [client] = worker.server.clients
    for _ in range(3):
        client.ping(expiry_clock.now())
        client.connection.awaits_pong = False


async def test_a_step_forward_ends_neither_connections_nor_subscriptions(
    monkeypatch: pytest.MonkeyPatch,
):
    options = config(expired_close_delay=0.0, expired_sub_close_delay=0.0)
    async with LocalWorker(options).open() as worker:
        caller = await entered(worker, exp=time.time() + 600)
        text = for_channel("$a", exp=time.time() + 600)
        assert "subscribe" in await ask(caller, "subscribe", channel="$a", token=text)
        step(monkeypatch, worker, HOUR)
        await several_pings(worker)
        [client] = worker.server.clients
        assert "$a" in client.connection.channels
        # A token of now is read by the clock of now.
        caller.say({"id": 9, "refresh": {"token": token(sub="ann", exp=time.time() - 600)}})
        assert (await caller.closed())[0] == 3005


async def test_a_step_back_extends_no_connection(monkeypatch: pytest.MonkeyPatch):
    async with LocalWorker(config(expired_close_delay=0.0)).open() as worker:
        caller = await entered(worker, exp=int(time.time()) + 2)
        step(monkeypatch, worker, -HOUR)
        assert await caller.closed() == (3005, "connection expired")


async def test_a_step_back_extends_no_subscription(monkeypatch: pytest.MonkeyPatch):
    async with LocalWorker(config(expired_sub_close_delay=0.0)).open() as worker:
        caller = await entered(worker)
        text = for_channel("$a", exp=int(time.time()) + 2)
        assert "subscribe" in await ask(caller, "subscribe", channel="$a", token=text)
        step(monkeypatch, worker, -HOUR)
        await caller.until(lambda: "2501" in str(caller.heard))


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
async def test_what_is_extended_after_a_step_lasts_as_long_as_its_token_says(
    monkeypatch: pytest.MonkeyPatch, seconds: int
):
    async with LocalWorker(config(expired_close_delay=0.0)).open() as worker:
        caller = await entered(worker, exp=int(time.time()) + 600)
        step(monkeypatch, worker, seconds)
        result = await ask(caller, "refresh", token=token(sub="ann", exp=int(time.time()) + 2))
        assert result["refresh"]["ttl"] in (1, 2)
        assert await caller.closed() == (3005, "connection expired")
