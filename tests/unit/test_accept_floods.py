"""Connections that are no HTTP, and requests that do not wait for answers: what each may cost the others."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from aiohttp import web

from cluster.lingering import LINGERING_SECONDS
from cluster.websocket.accept import PendingConnection
from tests.harness.waiting import until
from tests.unit.local_worker import LocalWorker, configured
from tests.unit.raw_socket import ended, raw


async def test_what_is_no_http_is_answered_at_once_and_its_connection_is_not_soon_replaced():
    """An attacker that opens one connection after the other is slowed down; a client has its answer."""
    async with LocalWorker(configured()).open() as worker:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for turn in range(2):
            reader, writer = await raw(worker)
            opened = loop.time()
            writer.write(b"GARBAGE\r\n\r\n" + b"x" * 4_000_000)
            assert (await ended(reader)).startswith(b"HTTP/1.1 400 ")
            answered = loop.time()
            with pytest.raises(ConnectionError):
                await writer.drain()
            assert loop.time() - began >= (turn + 1) * LINGERING_SECONDS
            assert answered - opened < LINGERING_SECONDS
            writer.close()


async def test_a_connection_that_is_no_http_is_gone_when_its_time_is_up():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        writer.write(b"GARBAGE\r\n\r\n")
        assert (await ended(reader)).startswith(b"HTTP/1.1 400 ")
        [pending] = worker.server._pending
        assert isinstance(pending, PendingConnection)
        writer.close()
        await until(lambda: pending.transport is None, 10, "the connection is gone")


async def test_of_many_connections_that_are_no_http_only_the_last_ones_stay_open(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("cluster.lingering.MOST_LINGERING", 8)
    monkeypatch.setattr("cluster.lingering.LINGERING_SECONDS", 600.0)
    async with LocalWorker(configured(stale_close_delay=600)).open() as worker:
        connections = []
        for _ in range(24):
            reader, writer = await raw(worker)
            writer.write(b"GARBAGE\r\n\r\n")
            assert (await ended(reader)).startswith(b"HTTP/1.1 400 ")
            connections.append(writer)
        await until(lambda: len(worker.server._pending) == 8, 10, "the others are gone")
        for writer in connections:
            writer.close()


async def test_requests_that_did_not_wait_for_answers_share_the_turns_of_the_loop():
    """One of them is handled in a turn, however many connections send them."""
    turn, handled = 0, Counter[int]()

    async def counted(request: web.Request) -> web.Response:
        handled[turn] += 1
        return web.Response()

    local = LocalWorker(configured())
    local.routes.append(web.get("/counted", counted))
    async with local.open() as worker:
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal turn
            turn += 1
            if handled.total() < 400:
                loop.call_soon(count)

        connections = [await raw(worker) for _ in range(8)]
        loop.call_soon(count)
        for _, writer in connections:
            writer.write(b"GET /counted HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        await until(lambda: handled.total() >= 400, 10, "all are answered")
        for _, writer in connections:
            writer.close()
    # The first of each connection does not wait.
    assert sum(count > 1 for count in handled.values()) <= 8
