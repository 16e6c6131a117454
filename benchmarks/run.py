"""`python -m benchmarks.run`: measure the cluster beside its peers and say whether it holds its bounds.

Exit code 0 when every measured row holds its bound, 1 when one fails. Nothing is left running.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import lifecycle, report
from benchmarks.plan import FULL, LOADS, QUICK, Load, Scale
from benchmarks.processes import ServerFailed
from benchmarks.rounds import Book, install_all, run_rounds
from benchmarks.servers import valkey
from benchmarks.table import Lifecycle, rows

LIFECYCLE = ("start", "respawn")
NAMES = (*(load.name for load in LOADS), *LIFECYCLE)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="3 short rounds, under ten minutes")
    size.add_argument("--full", action="store_true", help="all peers, all loads, five rounds")
    parser.add_argument(
        "--only", action="append", choices=NAMES, default=[], metavar="NAME",
        help=f"repeatable; one of {', '.join(NAMES)}",
    )  # fmt: skip
    parser.add_argument(
        "--server", action="append", default=[], metavar="NAME", help="repeatable; leave out others"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="put the table between the documents' markers"
    )
    return parser.parse_args(argv)


def _chosen_loads(only: Sequence[str], servers: Sequence[str]) -> list[Load]:
    def kept(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if not servers or name in servers)

    return [
        replace(
            load,
            servers=kept(load.servers),
            beside=kept(load.beside),
            only_full=kept(load.only_full),
        )
        for load in LOADS
        if not only or load.name in only
    ]


def _measure(given: argparse.Namespace, scale: Scale, scratch: Path) -> tuple[Book, Lifecycle]:
    book = Book()
    loads = _chosen_loads(given.only, given.server)
    wanted = {
        name
        for load in loads
        for number in range(scale.rounds)
        for name in load.servers_in(scale, number)
    }
    install_all(sorted(wanted), book)
    with valkey(scratch) as store:
        run_rounds(loads, scale, store, scratch, book)
        starts: list[float] = []
        respawns, problems = None, []
        if not given.only or "start" in given.only:
            try:
                starts = lifecycle.start_to_ready(scratch, scale.starts)
            except ServerFailed as failure:
                problems.append(str(failure))
        if not given.only or "respawn" in given.only:
            try:
                respawns = lifecycle.respawn(scratch, store, scale.respawns)
            except ServerFailed as failure:
                problems.append(str(failure))
    return book, Lifecycle(starts, respawns, "; ".join(problems))


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    # An exit like any other, so that every server is stopped and every file removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scale = FULL if given.full else QUICK
    begun = time.monotonic()
    facts = report.machine_facts()
    with tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as scratch:
        book, life = _measure(given, scale, Path(scratch))
    table = rows(book.medians(), life)
    text = report.markdown(facts, table, book)
    print(text)
    # A part of a run must not replace the results of a whole one.
    if not given.only and not given.server:
        print(f"written: {report.write(scale, facts, table, book, life)}", file=sys.stderr)
        if given.write_docs:
            pages = report.write_docs(text, report.summary(table))
            print(f"documents: {', '.join(pages) or 'none'}", file=sys.stderr)
    print(f"took {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 1 if any(row.has_failed for row in table) else 0


if __name__ == "__main__":
    sys.exit(main())
