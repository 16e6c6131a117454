"""Puts the loads on the servers, round by round, and keeps every sample.

A sample that went wrong is kept with its reason: a server that loses deliveries or closes
connections must not look fast.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import install
from benchmarks.load.measure import Result
from benchmarks.paths import LOAD_CORE, REPOSITORY
from benchmarks.plan import AWAKE, SUBSCRIBERS, Load, Scale
from benchmarks.processes import Process, ServerFailed, free_ports
from benchmarks.servers import SERVERS, Running, Valkey

FLOOR = "floor"
FAN_OUTS = frozenset({"broadcast", "paced", "asleep", "calm"})
FRAME_BYTES_WHEN_UNKNOWN = 180
MEASURE_TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Sample:
    load: str
    server: str
    round_number: int
    result: Result | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Median:
    """The medians of one (load, server) over its good samples, and every problem met."""

    samples: int
    problems: tuple[str, ...]
    per_second: float
    per_core_second: float
    cpu_us: float
    store_us: float
    nginx_us: float
    p50_ms: float
    p99_ms: float
    memory_bytes: float
    load_busy: float


@dataclass(slots=True)
class Book:
    """All samples of one benchmark, and why a server is missing."""

    samples: list[Sample] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    def medians(self) -> dict[tuple[str, str], Median]:
        keys = dict.fromkeys((sample.load, sample.server) for sample in self.samples)
        return {key: self._median(key) for key in keys}

    def _median(self, key: tuple[str, str]) -> Median:
        mine = [sample for sample in self.samples if (sample.load, sample.server) == key]
        problems = tuple(sample.problem for sample in mine if sample.problem)
        results = [sample.result for sample in mine if sample.result is not None]

        def middle(of: Callable[[Result], float]) -> float:
            return median([of(result) for result in results]) if results else 0.0

        def per_delivery(name: str) -> float:
            return middle(lambda one: one.cpu_seconds.get(name, 0.0) / one.deliveries * 1e6)

        return Median(
            samples=len(results),
            problems=problems,
            per_second=middle(lambda one: one.deliveries / one.seconds),
            per_core_second=middle(lambda one: one.deliveries / one.cpu_seconds["server"]),
            cpu_us=per_delivery("server"),
            store_us=per_delivery("valkey"),
            nginx_us=per_delivery("nginx"),
            p50_ms=middle(lambda one: one.latencies_ms.get("p50", 0.0)),
            p99_ms=middle(lambda one: one.latencies_ms.get("p99", 0.0)),
            memory_bytes=middle(lambda one: one.memory.get("rss_bytes", 0.0)),
            load_busy=middle(lambda one: one.cpu_seconds["load"] / one.seconds),
        )

    def frame_bytes(self) -> int:
        """Return the size of our frames as measured, for the floor."""
        for sample in self.samples:
            is_fan_out = sample.load in FAN_OUTS and sample.server == "ours"
            if is_fan_out and sample.result and sample.result.deliveries:
                return round(sample.result.bytes_in / sample.result.deliveries)
        return FRAME_BYTES_WHEN_UNKNOWN


def install_all(servers: Iterable[str], book: Book) -> None:
    for name in servers:
        try:
            if name == FLOOR:
                install.floor()
            else:
                SERVERS[name].install()
        except install.PeerUnavailable as reason:
            book.unavailable[name] = str(reason)
            print(f"{name} is skipped: {reason}", file=sys.stderr)


def run_rounds(
    loads: Iterable[Load], scale: Scale, store: Valkey, scratch: Path, book: Book
) -> None:
    chosen = list(loads)
    for round_number in range(scale.rounds):
        for load in chosen:
            for server in load.servers_in(scale, round_number):
                if server in book.unavailable:
                    continue
                sample = _sample(load, server, round_number, scale, store, scratch, book)
                book.samples.append(sample)
                _tell(sample, scale)


def _sample(
    load: Load,
    server: str,
    round_number: int,
    scale: Scale,
    store: Valkey,
    scratch: Path,
    book: Book,
) -> Sample:
    try:
        if server == FLOOR:
            result = _measure_floor(load, scale, scratch, book.frame_bytes())
        else:
            running = SERVERS[server].start(store, scratch)
            try:
                result = generate(running, load.run, _arguments(load, server, scale), store)
            finally:
                running.process.stop()
    except (ServerFailed, subprocess.SubprocessError) as failure:
        return Sample(load.name, server, round_number, None, str(failure))
    return Sample(load.name, server, round_number, result, _problem_of(result))


def _arguments(load: Load, server: str, scale: Scale) -> list[str]:
    given = load.arguments(scale)
    if load.name == "connect" and not server.startswith(("ours", "golib")):
        given += ["--channel", ""]  # a bare connect, as the bound says
    return given


def _problem_of(result: Result) -> str:
    if result.closed:
        return f"{result.closed} connections were lost ({', '.join(result.reasons)})"
    if result.lost:
        what = "were lost" if result.lost > 0 else "came twice"
        return f"{abs(result.lost)} deliveries {what}"
    return "" if result.deliveries else "nothing was delivered"


def _measure_floor(load: Load, scale: Scale, scratch: Path, frame_bytes: int) -> Result:
    port = free_ports()
    shape = (str(port), str(SUBSCRIBERS), str(frame_bytes), str(load.rate))
    process = Process((*install.floor(), *shape), scratch / "floor.log")
    try:
        # A probing connect would count as a subscriber: give it a moment instead.
        time.sleep(0.3)
        running = Running(process, FLOOR, [port], {"server": [process.pid]})
        window = scale.paced_window if load.is_paced else scale.window
        given = ["--window", str(window), *([AWAKE] if load.is_awake else [])]
        return generate(running, "flood", given)
    finally:
        process.stop()


def generate(
    running: Running, run: str, arguments: list[str], store: Valkey | None = None
) -> Result:
    watched: Mapping[str, list[int]] = {
        **running.watched,
        **({"valkey": [store.process.pid]} if store else {}),
    }
    command = [sys.executable, "-m", "benchmarks.load", run, "--dialect", running.protocol]
    command += ["--core", str(LOAD_CORE)]
    for port in running.ports:
        command += ["--port", str(port)]
    for name, pids in watched.items():
        command += ["--watch", f"{name}={','.join(map(str, pids))}"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=MEASURE_TIMEOUT_SECONDS,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise ServerFailed(f"{' '.join(last)}; the server said: {running.process.last_words()}")
    return Result(**json.loads(done.stdout))


def _tell(sample: Sample, scale: Scale) -> None:
    position = f"round {sample.round_number + 1}/{scale.rounds} {sample.load:10} {sample.server:16}"
    if sample.result is None or not sample.result.deliveries:
        print(f"{position} {sample.problem}", file=sys.stderr)
        return
    result = sample.result
    rate = result.deliveries / result.seconds
    cpu = result.cpu_seconds["server"] / result.deliveries * 1e6
    tail = f"p99 {result.latencies_ms['p99']:.1f} ms" if result.latencies_ms else ""
    if result.memory:
        tail = f"{result.memory['rss_bytes'] / 1024:.1f} KiB per connection"
    print(
        f"{position} {rate:11,.0f}/s {cpu:8.2f} µs CPU each {tail} {sample.problem}",
        file=sys.stderr,
    )
