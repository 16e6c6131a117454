"""The machine's clock is set an hour forward and back: connections, sessions, publications and drains go on.

The wall clock is faked with libfaketime (Debian package `libfaketime`), in every process of the cluster;
the monotonic clock goes on. LIBFAKETIME may name the library.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.harness.client import Client
from tests.harness.cluster import BASE_CONFIG, Cluster
from tests.harness.needs import needs
from tests.harness.waiting import until
from tests.harness.wire import open_wire
from tests.unit.test_auth import token as signed

KEY = "k" * 32
# Whether something has expired is looked at before each ping.
CONFIG = {
    "client": {
        "insecure": False,
        "ping_interval": "1s",
        "pong_timeout": "900ms",
        "expired_close_delay": "1s",
        "token": {"hmac_secret_key": KEY},
    },
    "channel": {
        "without_namespace": BASE_CONFIG["channel"]["without_namespace"]
        | {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
    },
}

LIBRARY = os.environ.get("LIBFAKETIME") or next(
    (str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), ""
)
pytestmark = needs(LIBRARY, "apt-get install libfaketime")


class FakedClock:
    """A file that libfaketime reads: the offset of the wall clock from the real one."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        self.set(0)
        for name, value in {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }.items():
            monkeypatch.setenv(name, value)

    def set(self, seconds: int) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}\n")
        temporary.replace(self._path)


@pytest.mark.parametrize("step", [3600, -3600], ids=["forward", "back"])
async def test_a_step_of_the_clock_drops_no_client_and_no_publication(tmp_path, monkeypatch, step):
    clock = FakedClock(tmp_path / "offset", monkeypatch)
    cluster = Cluster(tmp_path / "run", workers=2, config=CONFIG)
    await cluster.start(within=120)
    token = signed(key=KEY, sub="ann")
    client = Client(cluster.port, name="calm", connect_request={"token": token})
    await client.start()
    # Its token has ten minutes left, in which it may stay.
    token = signed(key=KEY, sub="bob", exp=int(time.time()) + 600)
    expiring = Client(cluster.port, name="expiring", connect_request={"token": token})
    await expiring.start()
    got: list[object] = []
    client.subscribe("calm", lambda _, publication: got.append(publication["data"]))
    await until(lambda: client.is_whole, 30, "the client is in its channel")
    await client.publish("calm", 0)
    clock.set(step)

    async def stepped() -> bool:
        metrics = await cluster.metrics()
        heard = metrics.total("app_broker_last_message_timestamp_seconds")
        return abs(heard - time.time() - step) < 600

    # The workers' canary has seen the new time; then some rounds of everything that is periodic.
    deadline = time.monotonic() + 60
    while not await stepped():
        assert time.monotonic() < deadline, "the step is seen"
        await asyncio.sleep(0.1)
    for number in range(1, 41):
        await client.publish("calm", number)
        await asyncio.sleep(0.1)
    await until(lambda: len(got) == 41, 30, "every publication arrives")
    assert got == list(range(41))
    assert client.history.attempts == 1
    assert expiring.history.attempts == 1
    assert expiring.is_connected
    await expiring.close()
    assert await cluster.is_ready()
    metrics = await cluster.metrics()
    assert metrics.total("app_worker_exits_total") == 0
    assert metrics.total("app_errors_total") == 0
    client.connect_request["data"] = {"session": client.result["data"]["session"]["id"]}
    await cluster.roll()
    await until(lambda: client.history.attempts > 1, 30, "the roll has moved the client")
    await until(lambda: client.is_whole, 30, "the client is back after the roll")
    # The store's clock has stepped with the others: forward over the 300 s for which it keeps a session.
    assert client.result["data"]["session"]["resumed"] is (step < 0)
    began = time.monotonic()
    assert await cluster.stop(within=60) == 0
    assert time.monotonic() - began < 30
    await client.close()


async def test_steps_of_the_clock_in_a_drain_neither_hurry_nor_delay_it(tmp_path, monkeypatch):
    clock = FakedClock(tmp_path / "offset", monkeypatch)
    # The limits that end a drain that is late are further away than the test may take, and nearer than an hour.
    config = {"shutdown": {"drain_window": "2s", "timeout": "500s", "stop_grace_period": "600s"}}
    async with Cluster(tmp_path / "run", workers=1, config=config, has_nginx=False) as cluster:
        ends: list[float] = []
        wires = [
            await open_wire(cluster.client_port, on_end=lambda *_: ends.append(time.monotonic()))
            for _ in range(200)
        ]
        for wire in wires:
            wire.send_text(b'{"id":1,"connect":{}}')
        await cluster.shows("app_commands_total", len(wires), method="connect")
        cluster.signal(signal.SIGTERM)
        await until(lambda: bool(ends), 30, "the first is closed")
        clock.set(3600)
        await until(lambda: len(ends) > len(wires) / 4, 30, "the drain goes on")
        clock.set(-3600)
        await until(lambda: len(ends) == len(wires), 30, "all are closed")
        assert {wire.close_code for wire in wires} == {3001}
        assert ends[-1] - ends[0] > 0.5, "closing is spread over the drain window"
        assert await cluster.stop(within=30) == 0
