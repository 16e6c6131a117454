"""Clients that do not pong, do not read or want too much, with either codec, over nginx and two workers.

The official suites have no test of these. Each is ended or refused with the code of the protocol page, at
whichever worker it is; one that comes back has lost nothing, and another client does not notice.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import Client, Json, NoReply, ReplyError, Subscription
from tests.harness.cluster import Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.protobuf_client import ProtobufClient
from tests.harness.store import Store
from tests.harness.under_load import assert_no_traceback, assert_nothing_lost, cluster_under_load
from tests.harness.waiting import until, until_async

MESSAGE_LIMIT, CHANNEL_LIMIT, RATE_LIMIT = 32_768, 4, 50
CONFIG: dict[str, Any] = {
    "client": {
        # A client that does not read must be found slow before its pong is missed, and the neighbours
        # have to pong in time on a busy machine too.
        "ping_interval": "10s",
        "pong_timeout": "3s",
        "queue_max_size": 262144,
        "channel_limit": CHANNEL_LIMIT,
        "command_rate_limit": RATE_LIMIT,
        "command_burst": 4 * RATE_LIMIT,
    },
    "websocket": {"message_size_limit": MESSAGE_LIMIT},
}
# The sockets between a worker, nginx and a client buffer about 4 MB together.
THICK, PUBLICATIONS = "x" * 32_000, 10
SIZE = Size(subscribers=60, channels=10, workers=2, publishes_per_second=40)


class Silent(Client):
    """A client that does not pong."""

    def _pong(self) -> None:
        pass


class SilentProtobufClient(ProtobufClient):
    """The same in Protobuf."""

    def _pong(self) -> None:
        pass


codecs = pytest.mark.parametrize("kind", [Client, ProtobufClient], ids=["json", "protobuf"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module: after whatever one test sends, it must serve the next."""
    started = Cluster(tmp_path_factory.mktemp("faulty") / "run", workers=2, config=CONFIG)
    asyncio.run(started.start())
    try:
        yield started
        metrics = asyncio.run(started.metrics())
        assert metrics.total("app_errors_total") == 0
        assert metrics.total("app_worker_restarts_total") == 0
    finally:
        asyncio.run(started.stop())
    assert_no_traceback(started)


@pytest.fixture
async def neighbours(cluster: Cluster) -> AsyncIterator[list[Client]]:
    """Clients of both workers, which keep their connections."""
    clients = [await Client(cluster.worker_port(slot)).start() for slot in (0, 1)]
    yield clients
    for client in clients:
        assert client.is_connected
        assert client.history.codes() == {}
        await client.close()


class Inbox:
    """A subscription and what it has got."""

    def __init__(self, client: Client, channel: str) -> None:
        self.got: list[Any] = []
        self.recovered: list[bool] = []
        self.subscription = client.subscribe(channel, self._take)
        self.subscription.on_subscribed = self._subscribed

    def _subscribed(self, _: Subscription, result: Json) -> None:
        self.recovered.append(result.get("recovered", False))

    def _take(self, _: Subscription, publication: Json) -> None:
        self.got.append(publication["data"])


@pytest.mark.parametrize("kind", [Silent, SilentProtobufClient], ids=["json", "protobuf"])
async def test_a_client_that_does_not_pong_is_closed_and_recovers(
    cluster: Cluster, neighbours: list[Client], kind: type[Client]
):
    before = (await cluster.metrics()).total("app_connections_closed_total", code="3012")
    client = kind(cluster.port)
    inbox = Inbox(client, f"silent-{kind.__name__}")
    await client.start()
    await until(lambda: client.is_whole, 10, "it is subscribed")
    sent = 0

    async def is_closed() -> bool:
        nonlocal sent
        await neighbours[sent % 2].publish(inbox.subscription.channel, sent)
        sent += 1
        return client.history.codes()[3012] > 0

    await until_async(is_closed, 40, "it is closed")
    for _ in range(5):
        await is_closed()
    await until(lambda: len(inbox.got) == sent, 30, "everything has come")
    assert inbox.got == list(range(sent))
    assert set(client.history.codes()) == {3012}
    await client.close()
    closed = before + client.history.codes()[3012]
    await cluster.shows("app_connections_closed_total", closed, code="3012")


@codecs
async def test_a_client_that_does_not_read_is_closed_as_slow_and_recovers(
    cluster: Cluster, neighbours: list[Client], kind: type[Client]
):
    thick = f"thick-{kind.__name__}"
    for _ in range(PUBLICATIONS):
        await neighbours[0].publish(thick, THICK)
    client = kind(cluster.port)
    inbox, thick_inbox = Inbox(client, f"slow-{kind.__name__}"), Inbox(client, thick)
    await client.start()
    await until(lambda: client.is_whole, 10, "it is subscribed")
    metrics = await cluster.metrics()
    slow = metrics.total("app_slow_consumers_total")
    closed = metrics.total("app_connections_closed_total", code="3008")
    wire = client.wire
    wire.stop_reading()
    asked = {"channel": thick, "limit": PUBLICATIONS}
    client._send([client._command("history", asked, lambda _: None) for _ in range(5)])
    sent = 0

    async def is_closed() -> bool:
        nonlocal sent
        for neighbour in neighbours:
            await asyncio.gather(*(neighbour.publish(thick, THICK) for _ in range(5)))
        sent += 5 * len(neighbours)
        return (await cluster.metrics()).total("app_connections_closed_total", code="3008") > closed

    await until_async(is_closed, 60, "it is closed as slow")
    await cluster.shows("app_slow_consumers_total", slow + 1)
    for number in range(5):
        await neighbours[1].publish(inbox.subscription.channel, number)
    wire.resume_reading()
    await until(lambda: inbox.got == list(range(5)), 30, "it has what it missed")
    await until(lambda: len(thick_inbox.recovered) == 2, 30, "it is back in the other channel")
    assert inbox.recovered == [False, True]
    # What it missed of the other channel may be more than may be unsent: then it is told so.
    assert thick_inbox.recovered == [False, thick_inbox.got == [THICK] * sent]
    # It finds the close frame, or that nginx has given it up.
    assert set(client.history.codes()) <= {3008, None}
    await client.close()


@codecs
async def test_one_channel_more_than_the_limit_is_refused_with_106(
    cluster: Cluster, neighbours: list[Client], kind: type[Client]
):
    client = await kind(cluster.port).start()
    for number in range(CHANNEL_LIMIT):
        await client.call("subscribe", {"channel": f"limit-{number}"})
    for number in (CHANNEL_LIMIT, CHANNEL_LIMIT + 1):
        with pytest.raises(ReplyError) as refused:
            await client.call("subscribe", {"channel": f"limit-{number}"})
        assert refused.value.code == 106
    await client.call("unsubscribe", {"channel": "limit-0"})
    await client.call("subscribe", {"channel": f"limit-{CHANNEL_LIMIT}"})
    assert client.history.codes() == {}
    await client.close()


@codecs
async def test_a_message_above_the_limit_closes_with_1009(
    cluster: Cluster, neighbours: list[Client], kind: type[Client]
):
    client = await kind(cluster.port).start()
    await client.publish("sizes", "x" * (MESSAGE_LIMIT - 200))
    with pytest.raises(NoReply):
        await client.publish("sizes", "x" * MESSAGE_LIMIT)
    await until(lambda: client.is_terminated, 10, "it is closed")
    assert client.history.codes() == {1009: 1}
    await client.close()


@codecs
async def test_commands_above_the_rate_get_111_and_then_3013(
    cluster: Cluster, neighbours: list[Client], kind: type[Client]
):
    client = await kind(cluster.port).start()
    errors: list[int] = []

    def settle(reply: Json | None) -> None:
        if reply is not None and "error" in reply:
            errors.append(reply["error"]["code"])

    async def is_closed() -> bool:
        asked = {"channel": "rate", "limit": 0}
        client._send([client._command("history", asked, settle) for _ in range(RATE_LIMIT)])
        return 3013 in client.history.codes()

    await until_async(is_closed, 60, "it is closed")
    assert errors
    assert set(errors) == {111}
    await client.close()


# --- the end of a worker in the middle of a subscribe -------------------------------------------

NEW = ["new-a", "new-b", "new-c"]
ENDING: dict[str, Any] = {"shutdown": {"drain_window": 0.5}, "broker": {"timeout": 20}}


@pytest.fixture
def patient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients do not give up a subscribe that is not answered: the server ends it."""
    monkeypatch.setattr("tests.harness.client.COMMAND_TIMEOUT", 120.0)


async def subscribes_wait(cluster: Cluster, crowd: Crowd) -> None:
    """Every subscriber subscribes to a new channel; the store is stopped, so none is answered."""
    for place, client in enumerate(crowd.subscribers):
        crowd.watch(client, NEW[place % len(NEW)])
    await cluster.shows("app_commands_total", 2 * len(crowd.subscribers), method="subscribe")
    assert len(crowd.outside()) == len(crowd.subscribers)


async def test_a_worker_that_ends_in_the_middle_of_subscribes_loses_nothing(
    tmp_path: Path, patient_clients: None
):
    async with (
        Store(tmp_path / "store") as store,
        cluster_under_load(tmp_path, SIZE, config=ENDING, redis_urls=(store.url,)) as (
            cluster,
            crowd,
        ),
    ):
        with store.paused():
            await subscribes_wait(cluster, crowd)
            cluster.signal(signal.SIGTTOU)
            await until(lambda: crowd.codes()[3001] > 0, 20, "clients are closed")
        await until(lambda: len(cluster.workers()) == SIZE.workers - 1, 20, "one has ended")
        await crowd.traffic(60)
        for channel in 3 * NEW:
            assert await crowd.publish_once(crowd.publishers[-1], channel)
        await assert_nothing_lost(crowd, within=60)
        got = [
            crowd.ledger.delivered(one.name, NEW[n % len(NEW)])
            for n, one in enumerate(crowd.subscribers)
        ]
        assert set(got) == {3}
        assert crowd.codes()[3001] < len(crowd.clients)


async def test_a_shutdown_in_the_middle_of_subscribes_is_clean(
    tmp_path: Path, patient_clients: None
):
    async with Store(tmp_path / "store") as store:
        cluster = Cluster(tmp_path / "run", workers=2, config=ENDING, redis_urls=(store.url,))
        async with cluster:
            crowd = Crowd(cluster.port, SIZE)
            await crowd.gather()
            with store.paused():
                await subscribes_wait(cluster, crowd)
                cluster.signal(signal.SIGTERM)
                await until(
                    lambda: not any(c.is_connected for c in crowd.clients), 20, "all are closed"
                )
            assert cluster.process is not None
            assert await asyncio.to_thread(cluster.process.wait, 30) == 0
            assert set(crowd.codes()) == {3001}
            await crowd.close()
        assert_no_traceback(cluster)
