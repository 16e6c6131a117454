"""The loads. Each opens its connections, warms up, measures one window and says what it cost.

- broadcast: all subscribers listen to one channel; a fixed number of publications is under way
  (a publication is under way until every probe has it), or they leave at a fixed pace.
- crowd: small channels, every subscriber publishes again when its own publication reaches it.
- echo: every connection calls again when its call is answered.
- connect: waves of connections are opened, held until the wave is complete, and closed.
- idle: connections are opened and left alone while the server's memory is read.
- flood: only listens, for a server that sends by itself (the floor).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.load.arrivals import ArrivalProbe
from benchmarks.load.clients import DIGITS, MARK, Probe, Requester, Sink, payload
from benchmarks.load.measure import Edge, Result, Watched, between, percentiles, settled
from benchmarks.load.pool import ConnectionPool
from benchmarks.proc import memory

CHANNEL = "bench"
PUBLISHERS = 8
FIRST_NUMBER = 3  # 1 and 2 are connect and subscribe


@dataclass(frozen=True, slots=True)
class Order:
    """One measurement as the command line gives it."""

    connections: int = 1000
    in_flight: int = 32
    rate: float = 0.0
    channels: int = 200
    size: int = 128
    warm_up_seconds: float = 1.0
    window_seconds: float = 2.0
    channel: str = CHANNEL
    answer: bytes = MARK
    is_awake: bool = False
    """Whether the generator polls instead of sleeping while it measures, see `_stay_awake`."""
    is_spread: bool = False
    """Whether the publishers of a broadcast sit at all workers; else at the first one."""
    has_arrivals: bool = False
    """Whether some subscribers of a broadcast say when publications arrive at their sockets."""
    watched: Watched = field(default_factory=dict)


def _stay_awake(loop: asyncio.AbstractEventLoop) -> None:
    """Keep the event loop from sleeping until it is closed.

    On one machine a send to a sleeping reader pays for waking it. A reader that is a little faster
    than the server sleeps between two sends and is woken for many of them; one that is a little
    slower is woken once. Clients elsewhere cost a server neither.
    """
    loop.call_soon(_stay_awake, loop)


async def _window(
    pool: ConnectionPool, order: Order, latencies: list[float], arrivals: list[float] | None = None
) -> Result:
    if order.is_awake:
        _stay_awake(asyncio.get_running_loop())
    arrivals = [] if arrivals is None else arrivals
    await asyncio.sleep(order.warm_up_seconds)
    latencies.clear()
    arrivals.clear()
    begin = Edge.now(pool.counters, order.watched)
    await asyncio.sleep(order.window_seconds)
    result = between(begin, Edge.now(pool.counters, order.watched), pool.counters, latencies)
    result.arrivals_ms = percentiles(arrivals)
    return result


class Publications:
    """Sends numbered publications and learns from the probes when each has arrived."""

    def __init__(
        self, pool: ConnectionPool, order: Order, publishers: list[Sink], probes: int
    ) -> None:
        self._pool, self._order, self._publishers, self._probes = pool, order, publishers, probes
        self._under_way: dict[int, tuple[float, int]] = {}
        self.latencies: list[float] = []
        self.arrivals: list[float] = []
        self.sent = 0
        self.is_closed_loop = False

    def send(self) -> None:
        number = FIRST_NUMBER + self.sent
        self.sent += 1
        data = payload(number, self._order.size)
        command = self._pool.protocol.publish(number, self._order.channel, data)
        self._under_way[number] = (time.perf_counter(), self._probes)
        self._publishers[number % len(self._publishers)].write(self._pool.protocol.frame(command))

    def seen(self, number: int, now: float) -> None:
        self._seen(number, now, self.latencies)

    def arrived(self, number: int, at: float) -> None:
        """As `seen`, of a probe that knows when the publication was at its socket."""
        self._seen(number, at, self.arrivals)

    def _seen(self, number: int, at: float, latencies: list[float]) -> None:
        sent_at, missing = self._under_way[number]
        latencies.append(at - sent_at)
        if missing > 1:
            self._under_way[number] = (sent_at, missing - 1)
            return
        del self._under_way[number]
        if self.is_closed_loop:
            self.send()

    async def send_at_pace(self, per_second: float) -> None:
        begun = time.perf_counter()
        for count in range(1, 1_000_000):
            self.send()
            await asyncio.sleep(max(0.0, begun + count / per_second - time.perf_counter()))


def _evenly(count: int, among: int) -> set[int]:
    return {round(step * (among - 1) / max(1, count - 1)) for step in range(count)}


async def broadcast(pool: ConnectionPool, order: Order) -> Result:
    publishers = [Sink(pool.counters, pool.protocol) for _ in range(PUBLISHERS)]
    probed = _evenly(20 if order.rate else 4, order.connections)
    beside = {(number - 1) % order.connections for number in probed} - probed
    arriving = beside if order.has_arrivals else set()
    publications = Publications(pool, order, publishers, len(probed | arriving))
    targets = pool.ports if order.is_spread else pool.ports[:1]
    await pool.open([("", publisher) for publisher in publishers], targets)

    def subscriber(number: int) -> Sink:
        if number in probed:
            return Probe(pool.counters, pool.protocol, publications.seen)
        if number in arriving:
            return ArrivalProbe(pool.counters, pool.protocol, publications.arrived)
        return Sink(pool.counters, pool.protocol)

    subscribers = map(subscriber, range(order.connections))
    await pool.open([(order.channel, subscriber) for subscriber in subscribers])
    pace = None
    if order.rate:
        pace = asyncio.create_task(publications.send_at_pace(order.rate))
    else:
        publications.is_closed_loop = True
        for _ in range(order.in_flight):
            publications.send()
    result = await _window(pool, order, publications.latencies, publications.arrivals)
    publications.is_closed_loop = False
    if pace is not None:
        pace.cancel()
    expected = publications.sent * order.connections
    if await settled(pool.counters, expected):
        result.lost = expected - pool.counters.marks
    return result


async def crowd(pool: ConnectionPool, order: Order) -> Result:
    latencies: list[float] = []
    numbers = range(order.connections)
    published = [0] * order.connections
    is_open = True

    def publish(requester: Requester) -> None:
        number = int(requester.tag[1:])
        now = time.perf_counter()
        if published[number] and number % 20 == 0:
            latencies.append(now - asked_at[number])
        if not is_open:
            return
        asked_at[number] = now
        published[number] += 1
        channel = f"{order.channel}{number % order.channels}"
        data = payload(number, order.size)
        command = pool.protocol.publish(published[number] + FIRST_NUMBER, channel, data)
        requester.write(pool.protocol.frame(command))

    asked_at = [0.0] * order.connections
    requesters = [
        Requester(pool.counters, pool.protocol, MARK + b"%0*d" % (DIGITS, number), publish)
        for number in numbers
    ]
    await pool.open(
        [(f"{order.channel}{int(one.tag[1:]) % order.channels}", one) for one in requesters]
    )
    for requester in requesters:
        publish(requester)
    result = await _window(pool, order, latencies)
    is_open = False
    expected = sum(published) * (order.connections // order.channels)
    if await settled(pool.counters, expected):
        result.lost = expected - pool.counters.marks
    return result


async def echo(pool: ConnectionPool, order: Order) -> Result:
    latencies: list[float] = []
    answered = 0
    asked_at: dict[Requester, float] = {}

    def call(requester: Requester) -> None:
        nonlocal answered
        now = time.perf_counter()
        if requester in asked_at:
            latencies.append(now - asked_at[requester])
            answered += 1
        asked_at[requester] = now
        number = answered + FIRST_NUMBER
        call_text = pool.protocol.call(number, payload(number, order.size))
        requester.write(pool.protocol.frame(call_text))

    requesters = [
        Requester(pool.counters, pool.protocol, order.answer, call)
        for _ in range(order.connections)
    ]
    await pool.open([("", requester) for requester in requesters])
    for requester in requesters:
        call(requester)
    await asyncio.sleep(order.warm_up_seconds)
    latencies.clear()
    before, begin = answered, Edge.now(pool.counters, order.watched)
    await asyncio.sleep(order.window_seconds)
    result = between(begin, Edge.now(pool.counters, order.watched), pool.counters, latencies)
    result.deliveries = answered - before
    return result


async def connect(pool: ConnectionPool, order: Order) -> Result:
    """Count complete connects; the closing of a wave happens outside of the measured time."""
    await _wave(pool, order)
    edges = [await _wave(pool, order) for _ in range(max(1, round(order.window_seconds)))]
    begin, end = edges[0]
    result = between(begin, end, pool.counters, ())
    result.deliveries = order.connections * len(edges)
    result.seconds = sum(end.at - begin.at for begin, end in edges)
    result.cpu_seconds = {
        name: sum(end.cpu[name] - begin.cpu[name] for begin, end in edges) for name in begin.cpu
    }
    result.latencies_ms = percentiles(pool.opening_seconds[order.connections :])
    return result


async def _wave(pool: ConnectionPool, order: Order) -> tuple[Edge, Edge]:
    wanted = [(order.channel, Sink(pool.counters, pool.protocol)) for _ in range(order.connections)]
    begin = Edge.now(pool.counters, order.watched)
    await pool.open(wanted)
    end = Edge.now(pool.counters, order.watched)
    await pool.close()
    await asyncio.sleep(1.0)
    return begin, end


async def idle(pool: ConnectionPool, order: Order) -> Result:
    await pool.open(_idlers(pool, order, 100))
    await pool.close()
    await asyncio.sleep(1.0)
    begin, before = Edge.now(pool.counters, order.watched), _memory(order)
    await pool.open(_idlers(pool, order, order.connections))
    await asyncio.sleep(order.window_seconds)
    result = between(begin, Edge.now(pool.counters, order.watched), pool.counters, ())
    result.deliveries = order.connections
    result.memory = {
        name: (after - before[name]) / order.connections for name, after in _memory(order).items()
    }
    return result


def _idlers(pool: ConnectionPool, order: Order, count: int) -> list[tuple[str, Sink]]:
    names = (f"{order.channel}{number % order.channels}" for number in range(count))
    return [(name, Sink(pool.counters, pool.protocol)) for name in names]


def _memory(order: Order) -> dict[str, int]:
    pids: Iterable[int] = order.watched.get("server", ())
    sizes = [memory(pid) for pid in pids]
    return {
        "rss_bytes": sum(size.rss_bytes for size in sizes),
        "pss_bytes": sum(size.pss_bytes for size in sizes),
    }


async def flood(pool: ConnectionPool, order: Order) -> Result:
    await pool.open([("", Sink(pool.counters, pool.protocol)) for _ in range(order.connections)])
    return await _window(pool, order, [])


RUNS: Mapping[str, Callable[[ConnectionPool, Order], Awaitable[Result]]] = {
    "broadcast": broadcast,
    "crowd": crowd,
    "echo": echo,
    "connect": connect,
    "idle": idle,
    "flood": flood,
}
