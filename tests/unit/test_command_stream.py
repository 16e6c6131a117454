"""Which commands a worker runs after reads of their stream, and which count as lost."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from cluster.broker import StreamRead
from cluster.node import command_stream
from cluster.node.command_stream import CommandStream
from cluster.protocol import Position, Publication


def one(offset: int, body: str, epoch: str = "e") -> Publication:
    return Publication(offset, epoch, body.encode())


class Store:
    """A stream whose last commands may be lost, and whose first may be trimmed."""

    def __init__(self) -> None:
        self.epoch, self.top = "e", 0
        self.kept: list[Publication] = []

    def append(self, body: str) -> Publication:
        self.top += 1
        self.kept.append(one(self.top, body, self.epoch))
        return self.kept[-1]

    def lose(self, count: int) -> None:
        self.top -= count
        self.kept = [each for each in self.kept if each.offset <= self.top]

    def read(self, since: int, limit: int = 1000) -> StreamRead:
        found = [each for each in self.kept if each.offset > since]
        return StreamRead(Position(self.top, self.epoch), found[:limit], is_cut=len(found) > limit)


class Worker:
    """A stream at a worker, and what it has run and lost."""

    def __init__(self, store: Store) -> None:
        self.stream, self.store = CommandStream(), store
        self.stream.begin(StreamRead(Position(store.top, store.epoch), store.kept[::-1]))
        self.bodies: list[str] = []
        self.lost = 0

    def hear(self, publication: Publication) -> None:
        if self.stream.is_known(publication):
            return
        if self.stream.follows(publication):
            self.bodies.append(publication.body.decode())
            return
        self.stream.expect(publication)
        self.catch_up()

    def catch_up(self, limit: int = 1000) -> None:
        for _ in range(5000):
            awaited = self.stream.awaited
            missed = self.stream.take(self.store.read(self.stream.since, limit), awaited)
            self.bodies += [body.decode() for body in missed.bodies]
            self.lost += missed.lost
            if not (missed.is_behind or missed.waits):
                return
        raise AssertionError("it reads for ever")


def test_a_command_at_an_offset_that_was_run_runs_after_those_it_follows():
    store = Store()
    worker = Worker(store)
    for body in "abc":
        worker.hear(store.append(body))
    store.lose(2)
    store.append("B")
    worker.hear(store.append("C"))
    assert (worker.bodies, worker.lost) == (["a", "b", "c", "B", "C"], 0)


def test_what_is_not_kept_and_was_not_run_is_lost_once():
    store = Store()
    worker = Worker(store)
    worker.hear(store.append("a"))
    for body in "bcdef":
        store.append(body)
    del store.kept[:4]
    worker.catch_up()
    assert (worker.bodies, worker.lost) == (["a", "e", "f"], 3)
    store.lose(1)
    store.append("F")
    worker.catch_up()
    assert (worker.bodies, worker.lost) == (["a", "e", "f", "F"], 3)


def test_a_command_that_no_read_brings_is_lost_after_some_reads():
    store = Store()
    worker = Worker(store)
    worker.hear(store.append("a"))
    worker.stream.expect(one(2, "acknowledged, and lost"))
    waits = 0
    while True:
        awaited = worker.stream.awaited
        missed = worker.stream.take(store.read(worker.stream.since), awaited)
        if not missed.waits:
            break
        waits += 1
    assert (missed.lost, waits) == (1, command_stream.READS)
    worker.catch_up()
    assert worker.lost == 0


def test_what_is_heard_from_an_old_master_and_a_new_one_runs_once_each():
    store, old = Store(), Store()
    worker = Worker(store)
    worker.hear(store.append("a"))
    old.append("a")
    worker.hear(old.append("b"))
    worker.hear(store.append("B"))
    worker.store = old
    worker.catch_up()
    worker.store = store
    worker.catch_up()
    worker.hear(store.append("C"))
    assert worker.bodies == ["a", "b", "B", "C"]


def test_an_epoch_that_is_ended_does_not_run_its_commands_again():
    store = Store()
    worker = Worker(store)
    for body in "abc":
        worker.hear(store.append(body))
    store.epoch = "f"
    store.kept = [each._replace(epoch="f") for each in store.kept]
    worker.hear(store.append("d"))
    assert (worker.bodies, worker.lost) == (["a", "b", "c", "d"], 0)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command_stream, "REMEMBERED", 10)
    store = Store()
    worker = Worker(store)
    for number in range(50):
        worker.hear(store.append(str(number)))
        worker.stream.expect(one(1000 + number, "acknowledged"))
    assert (len(worker.stream._run), len(worker.stream._awaited)) == (10, 10)


@pytest.mark.parametrize("seed", range(200))
def test_every_command_that_the_store_keeps_runs_once_and_in_order(seed: int):
    random = Random(seed)
    store = Store()
    worker = Worker(store)
    told, is_away = 0, False
    for _ in range(60):
        event = random.random()
        if event < 0.75:
            told += 1
            publication = store.append(str(told))
            hears = random.random() < 0.7
            if hears and is_away:
                worker.catch_up()
            if hears:
                worker.hear(publication)
            is_away = not hears
        elif event < 0.9:
            store.lose(random.randint(0, min(4, store.top)))
        else:
            worker.catch_up(limit=random.randint(2, 4))
    worker.catch_up()
    numbers = [int(body) for body in worker.bodies]
    assert len(set(numbers)) == len(numbers), "none runs twice"
    assert {int(each.body) for each in store.kept} <= set(numbers), "all that are kept have run"
    assert all(before < after for before, after in pairwise(numbers))
    assert worker.lost == 0
