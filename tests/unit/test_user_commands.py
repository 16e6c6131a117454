"""A command of the server API that fails at one of a user's connections is carried out at the others."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.connection import Connection
from tests.harness.waiting import until
from tests.unit.api_workers import call, two_workers
from tests.unit.local_worker import Caller, LocalWorker, ask, entered

WITHIN = 10.0
#: By command: the method of the state machine that fails, and what the others are sent.
COMMANDS = {
    "refresh": ("expiry_set", "refresh"),
    "subscribe": ("subscribe_added", "subscribe"),
    "unsubscribe": ("unsubscribe", "unsubscribe"),
    "disconnect": ("disconnect", ""),
}


def fail_at(monkeypatch: pytest.MonkeyPatch, method: str, clients: list[str]) -> None:
    """Have a method of the state machine raise for these clients."""
    real = getattr(Connection, method)

    def sometimes(connection: Connection, *args: Any, **options: Any) -> Any:
        if connection.client in clients:
            raise ValueError("at this one it fails")
        return real(connection, *args, **options)

    monkeypatch.setattr(Connection, method, sometimes)


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_that_fails_at_two_connections_is_carried_out_at_the_others(
    command: str, monkeypatch: pytest.MonkeyPatch
):
    method, push = COMMANDS[command]
    async with two_workers() as (one, _):
        callers = [await entered(one) for _ in range(6)]
        if command == "unsubscribe":
            for each in callers:
                await ask(each, "subscribe", channel="kept:a")
        # In the order in which the command meets them.
        order = [client.connection.client for client in one.node.clients.of("")]
        by_id = {each.heard[0]["connect"]["client"]: each for each in callers}
        fail_at(monkeypatch, method, order[:2])
        params = {"refresh": {"expire_at": 0}, "disconnect": {}}.get(command, {"channel": "kept:a"})
        with capture_logs() as logged:
            await call(one, command, user="", **params)
            for client in order[2:]:
                await carried_out(by_id[client], push)
        failed = [line for line in logged if line["log_level"] == "error"]
        assert [line["event"] for line in failed] == ["user_command_failed"]
        assert one.counters.errors["internal"] == 2
        if command != "disconnect":
            for client in order[:2]:
                assert (await by_id[client].closed())[0] == 3004
        settled(one)
        monkeypatch.undo()


async def carried_out(caller: Caller, push: str) -> None:
    """Wait until a client is sent this push, or its close."""
    if not push:
        assert (await caller.closed())[0] == 3503
        return
    await caller.until(lambda: [one for one in caller.heard if push in one.get("push", {})])


def settled(worker: LocalWorker) -> None:
    """What the worker counts at its end is what this test has caused."""
    worker.counters.errors["internal"] = 0


async def test_a_subscribe_that_fails_at_a_connection_leaves_no_subscription_in_the_store(
    monkeypatch: pytest.MonkeyPatch,
):
    async with two_workers() as (one, _):
        await entered(one)
        [client] = one.node.clients
        fail_at(monkeypatch, "subscribe_added", [client.connection.client])
        await call(one, "subscribe", user="", channel="kept:a")
        await until(lambda: one.counters.errors["internal"] == 1, WITHIN, "it has failed")
        assert (one.node.hub.channels, one.broker.wanted) == ({}, {})
        settled(one)
