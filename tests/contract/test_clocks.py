"""Machines of one cluster whose clocks differ: the life of a session is measured by the store's clock."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.contract.stores import RedisBench

HOUR = 3600.0


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_a_machine_whose_clock_is_an_hour_off_ends_no_session_and_keeps_none(
    real: RedisBench, monkeypatch: pytest.MonkeyPatch, offset: float
):
    worker, other = await real.worker(), await real.worker()
    session = await worker.sessions.attach("ann", None, "h")
    before = await real.statistics()
    now = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + offset)
        assert (await real.statistics())["expired"] == before["expired"]
        resumed = await other.sessions.attach("ann", session.id, "g")
        assert resumed.is_resumed
        await other.sessions.renew()
        await other.sessions.update(session.id, state=1)
        other.sessions.detach(resumed, "g", may_end=False)
        await asyncio.wait_for(other.sessions.flush(), 10)
    assert (await real.statistics())["expired"] == before["expired"]
    worker.sessions.detach(session, "h", may_end=False)
    await asyncio.wait_for(worker.sessions.flush(), 10)
    third = await real.worker()
    assert (await third.sessions.attach("ann", session.id, "h")).is_resumed
