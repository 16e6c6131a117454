"""The table of what the cluster must show: each row with its bound and a verdict that can fail.

Rules:
- A row is "pass" or "FAIL" by its bound; "not measured" when a sample it needs is missing.
- An aim is no bound: it is reported as reached or missed.
- A row fails, whatever its figure, when our own server lost deliveries or connections.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.lifecycle import Respawns
from benchmarks.rounds import Median

Medians = Mapping[tuple[str, str], Median]
KIB = 1024


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    figure: str
    bound: str
    verdict: str
    note: str = ""

    @property
    def has_failed(self) -> bool:
        return self.verdict == "FAIL"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    starts: Sequence[float] = ()
    respawns: Respawns | None = None
    problem: str = ""


def _verdict(holds: bool, problems: Sequence[str], *, is_aim: bool = False) -> str:
    if problems:
        return "FAIL"
    if is_aim:
        return "aim reached" if holds else "aim missed"
    return "pass" if holds else "FAIL"


def _compared(
    medians: Medians,
    load: str,
    peer: str,
    what: str,
    at_least: float,
    *,
    is_aim: bool = False,
    ours: str = "ours",
) -> Row:
    """Compare throughput per core: ours over the peer's."""
    sign = "aim ≥" if is_aim else "≥"
    bound = f"{sign} {at_least:g} ×"
    mine, other = medians.get((load, ours)), medians.get((load, peer))
    if mine is None or other is None or not mine.samples or not other.samples:
        return _missing(what, bound, mine)
    ratio = mine.per_core_second / other.per_core_second
    note = f"{mine.per_core_second:,.0f} against {other.per_core_second:,.0f} per core second"
    verdict = _verdict(ratio >= at_least, mine.problems, is_aim=is_aim)
    return Row(what, f"{ratio:.2f} ×", bound, verdict, _noted(note, mine))


def _noted(note: str, mine: Median) -> str:
    return "; ".join([note, *dict.fromkeys(mine.problems)])


def _missing(what: str, bound: str, mine: Median | None) -> Row:
    if mine is not None and mine.problems:
        return Row(what, "–", bound, "FAIL", "; ".join(dict.fromkeys(mine.problems)))
    return Row(what, "–", bound, "not measured")


def _at_most(
    medians: Medians,
    what: str,
    ours: tuple[str, str],
    other: tuple[str, str],
    of: Callable[[Median], float],
    limit: float,
    unit: str,
    *,
    is_aim: bool = False,
) -> Row:
    """Compare a cost: ours may be `limit` times the other's."""
    bound = f"{'aim ≤' if is_aim else '≤'} {limit:g} ×"
    mine, base = medians.get(ours), medians.get(other)
    if mine is None or base is None or not mine.samples or not base.samples:
        return _missing(what, bound, mine)
    ratio = of(mine) / of(base)
    note = _noted(f"{of(mine):.2f} against {of(base):.2f} {unit}", mine)
    verdict = _verdict(ratio <= limit, mine.problems, is_aim=is_aim)
    return Row(what, f"{ratio:.2f} ×", bound, verdict, note)


def _memory(medians: Medians) -> Row:
    what, bound = "memory per idle connection: connected, subscribed, session", "≤ 20 KiB"
    mine = medians.get(("memory", "ours"))
    if mine is None or not mine.samples:
        return _missing(what, bound, mine)
    peers = [
        f"{server} {figures.memory_bytes / KIB:.1f}"
        for (load, server), figures in medians.items()
        if load == "memory" and server != "ours" and figures.samples
    ]
    kib = mine.memory_bytes / KIB
    verdict = _verdict(kib <= 20, mine.problems)
    return Row(what, f"{kib:.1f} KiB", bound, verdict, _noted(", ".join(peers), mine))


def _users_memory(medians: Medians) -> Row:
    what, bound = "connection with token, presence and two channels: memory", "≤ 6 KiB"
    mine = medians.get(("users", "ours-users"))
    if mine is None or not mine.samples:
        return _missing(what, bound, mine)
    kib = mine.memory_bytes / KIB
    problems = "; ".join(dict.fromkeys(mine.problems))
    return Row(what, f"{kib:.1f} KiB", bound, _verdict(kib <= 6, mine.problems), problems)


def _lifecycle_rows(life: Lifecycle) -> list[Row]:
    start = "start to ready, 4 workers, nginx and embedded Valkey"
    if life.starts:
        seconds = median(life.starts)
        verdict = _verdict(seconds < 3, ())
        note = f"slowest of {len(life.starts)}: {max(life.starts):.2f} s"
        rows = [Row(start, f"{seconds:.2f} s", "< 3 s", verdict, note)]
    else:
        rows = [Row(start, "–", "< 3 s", "FAIL" if life.problem else "not measured", life.problem)]
    return [*_respawn_rows(life), *rows]


def _respawn_rows(life: Lifecycle) -> list[Row]:
    done = life.respawns
    if done is None:
        verdict = "FAIL" if life.problem else "not measured"
        return [Row("scrape after worker respawns", "–", "< 50 ms", verdict, life.problem)]
    what = f"after {done.count} worker respawns ({done.killed} of them kill -9), 8 workers"
    is_counted = done.opened == done.opened_expected and done.active == 0
    return [
        Row(
            f"scrape {what}",
            f"{done.scrape_ms:.1f} ms",
            "< 50 ms",
            _verdict(done.scrape_ms < 50, ()),
            f"slowest {done.scrape_max_ms:.1f} ms",
        ),
        Row(
            f"metric files {what}",
            f"{done.files_after}",
            f"as before: {done.files_before}",
            _verdict(done.files_after == done.files_before, ()),
        ),
        Row(
            f"counters {what}",
            f"{done.opened:.0f} opened, {done.active:.0f} open",
            f"{done.opened_expected:.0f} opened, 0 open",
            _verdict(is_counted, ()),
        ),
    ]


def _scaling_rows(medians: Medians) -> list[Row]:
    """CPU per delivery of 4 workers against 1, with the same total of subscribers.

    Publications that come in at several workers reach Valkey, and so every worker, in smaller
    batches. That is a cost of the publishing side, so it stands apart, as an aim.
    """

    def row(what: str, load: str, base: str, *, is_aim: bool = False) -> Row:
        title = f"scaling out, CPU per delivery, 4 workers against 1: {what}"
        ours, other = (load, "ours-4"), (base, "ours")
        return _at_most(
            medians, title, ours, other, lambda one: one.cpu_us, 1.25, "µs", is_aim=is_aim
        )

    return [
        row("32 under way", "broadcast", "broadcast"),
        row("100 publishes/s, publishers at all workers", "paced", "paced"),
        row("32 under way, publishers at all workers", "spread", "broadcast", is_aim=True),
    ]


def rows(medians: Medians, life: Lifecycle) -> list[Row]:
    """Build the whole table; rows whose loads were not asked for say "not measured"."""
    broadcast = "broadcast, 1,000 subscribers, per core, against "
    return [
        _compared(medians, "broadcast", "socketio", broadcast + "Socket.IO", 15),
        _compared(medians, "broadcast", "socketio", broadcast + "Socket.IO", 25, is_aim=True),
        _compared(medians, "broadcast", "python-socketio", broadcast + "python-socketio", 60),
        _compared(medians, "broadcast", "golib", broadcast + "the Go library", 2, is_aim=True),
        _at_most(
            medians, "100 publishes/s: CPU per delivery against the floor",
            ("paced", "ours"), ("paced", "floor"), lambda one: one.cpu_us, 1.5, "µs",
        ),
        _at_most(
            medians, "100 publishes/s: p99 latency against Socket.IO",
            ("paced", "ours"), ("paced", "socketio"), lambda one: one.p99_ms, 1, "ms",
        ),
        _at_most(
            medians, "20 publishes/s: p99 latency against Socket.IO",
            ("calm", "ours"), ("calm", "socketio"), lambda one: one.p99_ms, 1, "ms",
        ),
        _compared(medians, "crowd", "socketio", "200 channels × 5, all publish, against Socket.IO", 2),
        _compared(
            medians, "echo", "python-socketio", "rpc echo against python-socketio", 2,
            ours="ours-rpc",
        ),
        _compared(
            medians, "echo", "socketio", "rpc echo against Socket.IO", 1, ours="ours-rpc"
        ),
        _compared(
            medians, "connect", "socketio",
            "connect + subscribe + session against a bare connect of Socket.IO", 1.2,
        ),
        _memory(medians),
        _users_memory(medians),
        *_scaling_rows(medians),
        *_lifecycle_rows(life),
    ]  # fmt: skip


def against_peers(table: Sequence[Row]) -> list[Row]:
    """Choose the rows of the README: comparisons with a peer, and memory; of each subject one."""
    peers = ("Socket.IO", "python-socketio", "the Go library")
    first: dict[str, Row] = {}
    for row in table:
        if row.what.startswith("memory") or row.what.endswith(peers):
            first.setdefault(row.what, row)
    return list(first.values())
