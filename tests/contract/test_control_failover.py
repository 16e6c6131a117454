"""Commands after a failover of the store that has lost some: the next ones run everywhere, and none runs twice."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import chain
from typing import Any

import pytest

from cluster.broker import StreamRead
from cluster.node import command_stream
from cluster.node import control as control_module
from cluster.node.control import ALL
from tests.contract.stores import Bench, MemoryBench
from tests.contract.test_control import Note, Speaker, cut, speaker, speakers
from tests.harness.waiting import until

WITHIN = 15.0


def lose(bench: Bench, count: int) -> None:
    """Take the last commands from the store, as a replica that becomes the master without them does."""
    if isinstance(bench, MemoryBench):
        stream = bench.store.control.streams[ALL]
        for _ in range(count):
            stream.entries.pop()
        stream.top -= count
        return
    tag = f"{{{bench.prefix}:i:control}}.{ALL}"
    [server] = bench.servers
    top = int(server.ask("HGET", f"{tag}.meta", "o")) - count
    kept = server.ask("XRANGE", f"{tag}.stream", "-", f"{top}-0")
    # A stream does not take an id again that it has had.
    server.ask("DEL", f"{tag}.stream")
    for id_, fields in kept:
        server.ask("XADD", f"{tag}.stream", id_, *chain.from_iterable(fields.items()))
    server.ask("HSET", f"{tag}.meta", "o", top)


async def tell(one: Speaker, *texts: str) -> None:
    for text in texts:
        await one.control.tell("note", Note(text))


async def ran(speakers: list[Speaker], *texts: str) -> None:
    for each in speakers:
        await until(
            partial(lambda one: len(one.notes) >= len(texts), each), WITHIN, f"{texts} have run"
        )
        assert each.notes == list(texts)


def lost(speakers: list[Speaker]) -> list[int]:
    return [each.counters.control["lost"] for each in speakers]


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_commands_that_get_the_offsets_of_lost_ones_run_at_every_worker(
    bench: Bench, count: int
):
    workers = await speakers(bench, 2)
    old = ["0", "1", "2"]
    await tell(workers[0], *old)
    await ran(workers, *old)
    lose(bench, count)
    await cut(bench)
    new = [f"new {number}" for number in range(count + 1)]
    for text in new:
        await tell(workers[1], text)
    await ran(workers, *old, *new)
    await tell(workers[0], "last")
    await ran(workers, *old, *new, "last")
    assert lost(workers) == [0, 0]


async def test_the_next_command_runs_though_no_link_has_broken(bench: Bench):
    workers = await speakers(bench, 2)
    await tell(workers[0], "0", "1", "2", "3")
    await ran(workers, "0", "1", "2", "3")
    lose(bench, 2)
    await tell(workers[1], "new 2")
    await ran(workers, "0", "1", "2", "3", "new 2")
    await tell(workers[1], "new 3", "new 4")
    await ran(workers, "0", "1", "2", "3", "new 2", "new 3", "new 4")
    assert lost(workers) == [0, 0]


async def test_a_command_that_is_told_again_in_the_same_words_runs_again(bench: Bench):
    workers = await speakers(bench, 2)
    await tell(workers[0], "before", "again")
    await ran(workers, "before", "again")
    lose(bench, 1)
    await tell(workers[0], "again")
    await ran(workers, "before", "again", "again")


async def test_a_worker_that_began_later_runs_what_it_lacks_and_nothing_from_before(bench: Bench):
    one = await speaker(bench, "w0")
    await tell(one, "0", "1", "2")
    two = await speaker(bench, "w1")
    lose(bench, 2)
    await cut(bench)
    await tell(one, "new 1", "new 2", "new 3")
    await ran([one], "0", "1", "2", "new 1", "new 2", "new 3")
    await ran([two], "new 1", "new 2", "new 3")
    assert lost([one, two]) == [0, 0]


async def test_a_command_that_was_accepted_and_reached_nobody_is_counted_by_its_sender(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(control_module, "_REREAD_SECONDS", 0.01)
    bench = MemoryBench()
    workers = await speakers(bench, 2)
    await tell(workers[0], "0")
    await ran(workers, "0")
    bench.store.control.delivers = False
    await tell(workers[0], "nobody hears it")
    lose(bench, 1)
    bench.store.control.delivers = True
    await cut(bench)
    await until(lambda: lost(workers) == [1, 0], WITHIN, "its sender has counted it")
    await tell(workers[1], "1")
    await ran(workers, "0", "1")
    assert lost(workers) == [1, 0]


class OldMaster:
    """Answers a worker's reads with what the stream was, until the test ends it."""

    def __init__(self, bench: MemoryBench, one: Speaker) -> None:
        stream = bench.store.control.streams[ALL]
        top, entries = one.control._stream.position, list(stream.entries)
        self.reads = 0
        self._ended = False
        real = one.broker.read

        async def read(channel: str, history: Any, **options: Any) -> StreamRead:
            if self._ended:
                found: StreamRead = await real(channel, history, **options)
                return found
            self.reads += 1
            await asyncio.sleep(0)
            return StreamRead(top, [one for one in entries if one.offset > options["since"]])

        one.broker.read = read

    def end(self) -> None:
        self._ended = True


async def test_a_command_is_waited_for_while_reads_still_go_to_the_old_master(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(control_module, "_REREAD_SECONDS", 0.01)
    monkeypatch.setattr(command_stream, "READS", 100_000)
    bench = MemoryBench()
    workers = await speakers(bench, 2)
    await tell(workers[0], "0", "1")
    await ran(workers, "0", "1")
    old = OldMaster(bench, workers[1])
    lose(bench, 1)
    await tell(workers[0], "new 1")
    await until(lambda: old.reads > 3, WITHIN, "it has looked several times")
    assert (workers[1].notes, lost(workers)) == (["0", "1"], [0, 0])
    old.end()
    await ran(workers, "0", "1", "new 1")
    await tell(workers[1], "2")
    await ran(workers, "0", "1", "new 1", "2")
    assert lost(workers) == [0, 0]


async def test_a_command_that_comes_while_a_worker_begins_does_not_bring_back_those_before(
    monkeypatch: pytest.MonkeyPatch,
):
    bench = MemoryBench()
    one = await speaker(bench, "w0")
    await tell(one, "0", "1")
    real = bench.store.control.read

    def read(channel: str, *args: Any) -> StreamRead:
        found = real(channel, *args)
        if len(bench.store.control.brokers) == 2 and not beginning:
            beginning.append(True)
            # After the read, and before its answer is there.
            stream = bench.store.control.append(
                ALL, one.control._encoded("note", Note("meanwhile"), 99), control_module._KEPT, 0
            )
            bench.store.control.send(ALL, stream)
        return found

    beginning: list[bool] = []
    monkeypatch.setattr(bench.store.control, "read", read)
    two = await speaker(bench, "w1")
    await ran([one], "0", "1", "meanwhile")
    await ran([two], "meanwhile")
    await tell(one, "2")
    await ran([two], "meanwhile", "2")
    assert lost([one, two]) == [0, 0]
