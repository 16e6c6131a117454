"""The control channel between workers: commands in order and not lost, questions with all answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.broker.redis_control import RedisControlBroker
from cluster.errors import BAD_REQUEST, ClientError
from cluster.metrics.counters import Counters
from cluster.node import control as control_module
from cluster.node.control import ALL, MAXIMUM_MESSAGE_BYTES, Control
from tests.contract.conftest import program
from tests.contract.fakes import MemoryControlBroker
from tests.contract.servers import Server
from tests.contract.stores import TIMEOUT_SECONDS, Bench, MemoryBench, RedisBench
from tests.harness.waiting import until


class Note(msgspec.Struct):
    text: str = ""
    more: str = ""


class Speaker:
    """A worker's control channel, and the commands that it has run."""

    def __init__(self, control: Control, counters: Counters, broker: Any) -> None:
        self.control, self.counters, self.broker = control, counters, broker
        self.notes: list[str] = []
        control.on_command("note", Note, self._note)
        control.on_question("who", Note, self._who)

    async def _note(self, note: Note) -> None:
        await asyncio.sleep(0)
        self.notes.append(note.text)

    async def _who(self, note: Note) -> dict[str, str]:
        return {"name": self.control.uid, "asked": note.text}


async def speaker(bench: Bench, uid: str) -> Speaker:
    counters = Counters()
    made: list[Any] = []

    def opened(listener: Any) -> Any:
        if isinstance(bench, MemoryBench):
            made.append(MemoryControlBroker(bench.store, listener))
        else:
            made.append(
                RedisControlBroker(
                    worker.parts.router, worker.parts.subscriptions,
                    prefix=bench.prefix, listener=listener, counters=counters,
                )
            )  # fmt: skip
        return made[0]

    worker = await bench.worker()
    control = Control(uid, counters, open_broker=opened, timeout_seconds=TIMEOUT_SECONDS)
    one = Speaker(control, counters, made[0])
    await control.start()
    return one


async def speakers(bench: Bench, count: int) -> list[Speaker]:
    return [await speaker(bench, f"w{number}") for number in range(count)]


async def cut(bench: Bench) -> None:
    if isinstance(bench, MemoryBench):
        bench.store.control.cut()
    else:
        await bench.break_subscriptions()


@pytest.fixture
async def sharded(tmp_path: Path) -> AsyncIterator[RedisBench]:
    with (
        Server(program("valkey"), tmp_path / "a") as a,
        Server(program("valkey"), tmp_path / "b") as b,
    ):
        made = RedisBench([a, b])
        yield made
        await made.aclose()


async def test_a_command_runs_at_every_worker_in_the_order_of_its_sender(bench: Bench):
    one, two, three = await speakers(bench, 3)
    wanted = [str(number) for number in range(200)]
    for text in wanted:
        await one.control.tell("note", Note(text))
    for each in (one, two, three):
        await until(partial(lambda one: len(one.notes) == 200, each), 10, "all have run")
        assert each.notes == wanted
        assert each.counters.control["received"] == 200
    assert one.counters.control["sent"] == 200


async def test_all_workers_run_the_commands_of_several_in_the_same_order(bench: Bench):
    workers = await speakers(bench, 3)
    await asyncio.gather(
        *(
            each.control.tell("note", Note(f"{each.control.uid}-{n}"))
            for n in range(30)
            for each in workers
        )
    )
    await until(lambda: all(len(each.notes) == 90 for each in workers), 10, "all have run")
    assert workers[0].notes == workers[1].notes == workers[2].notes


async def test_a_report_reaches_every_worker_with_its_sender_and_is_not_kept(bench: Bench):
    one, two = await speakers(bench, 2)
    heard: list[tuple[str, str]] = []
    for each in (one, two):
        each.control.on_report("load", Note, lambda uid, note: heard.append((uid, note.text)))
    for number in range(3):
        await one.control.report("load", Note(str(number)))
    await until(lambda: len(heard) == 6, 10, "both have heard all")
    assert sorted(heard) == sorted([("w0", str(number)) for number in range(3)] * 2)
    # It takes no place in the stream of commands.
    assert (await one.broker.read(ALL, control_module._KEPT)).top.offset == 0


async def test_a_question_is_answered_by_every_worker(bench: Bench):
    workers = await speakers(bench, 3)
    gathered = await workers[0].control.ask("who", Note("x"))
    assert gathered.missing == 0
    found = {uid: msgspec.json.decode(answer) for uid, answer in gathered.answers.items()}
    assert found == {uid: {"name": uid, "asked": "x"} for uid in ("w0", "w1", "w2")}


async def test_questions_at_the_same_time_get_their_own_answers(bench: Bench):
    one, two = await speakers(bench, 2)
    asked = [one.control.ask("who", Note(str(number))) for number in range(20)]
    asked += [two.control.ask("who", Note(str(number))) for number in range(20)]
    for number, gathered in enumerate(await asyncio.gather(*asked)):
        assert set(gathered.answers) == {"w0", "w1"}
        for answer in gathered.answers.values():
            assert msgspec.json.decode(answer)["asked"] == str(number % 20)


async def test_a_worker_that_does_not_answer_is_counted_and_reported(bench: Bench):
    one, two = await speakers(bench, 2)

    async def hangs(note: Note) -> None:
        await asyncio.Event().wait()

    two.control.on_question("who", Note, hangs)
    gathered = await one.control.ask("who", Note(), within=0.3)
    assert (set(gathered.answers), gathered.missing) == ({"w0"}, 1)
    assert one.counters.control["unanswered"] == 1
    await two.control.aclose()


async def test_a_worker_that_has_left_is_not_waited_for(bench: Bench):
    one, two = await speakers(bench, 2)
    two.broker.unsubscribe(ALL)
    async with asyncio.timeout(10):
        while await one.broker.subscribers(ALL) > 1:
            await asyncio.sleep(0.01)
    gathered = await one.control.ask("who", Note())
    assert (set(gathered.answers), gathered.missing) == ({"w0"}, 0)


async def test_what_was_missed_while_the_link_was_broken_is_read(bench: Bench):
    one, two = await speakers(bench, 2)
    for number in range(50):
        if number == 20:
            await cut(bench)
        await one.control.tell("note", Note(str(number)))
    wanted = [str(number) for number in range(50)]
    for each in (one, two):
        await until(partial(lambda one: len(one.notes) >= 50, each), 15, "all have run")
        assert each.notes == wanted
        assert each.counters.control["lost"] == 0


async def test_more_than_is_kept_was_missed_and_that_is_counted(
    real: RedisBench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(control_module, "_KEPT", control_module._KEPT._replace(size=10))
    one, two = await speakers(real, 2)
    # The worker does not hear for a while; its place in the stream stays.
    two.broker.unsubscribe(ALL)
    for number in range(30):
        await one.control.tell("note", Note(str(number)))
    await two.broker.subscribe(ALL)
    two.control.resumed(ALL)
    await until(lambda: len(two.notes) == 10, 10, "what is kept has run")
    assert two.notes == [str(number) for number in range(20, 30)]
    assert two.counters.control["lost"] == 20


async def test_a_store_that_was_emptied_begins_anew(bench: Bench):
    one, two = await speakers(bench, 2)
    await one.control.tell("note", Note("before"))
    await until(lambda: two.notes == ["before"], 10, "it has run")
    if isinstance(bench, MemoryBench):
        bench.store.control.streams.clear()
    else:
        tag = f"{{{bench.prefix}:i:control}}.{ALL}"
        for server in bench.servers:
            server.ask("DEL", f"{tag}.meta", f"{tag}.stream")
    for number in range(3):
        await one.control.tell("note", Note(str(number)))
    for each in (one, two):
        await until(partial(lambda one: len(one.notes) == 4, each), 10, "all have run")
        assert each.notes == ["before", "0", "1", "2"]


async def test_other_kinds_versions_and_texts_are_counted_and_ignored(bench: Bench):
    one, two = await speakers(bench, 2)
    later = b'{"v":2,"kind":"note","sender":"w9","body":{"text":"later"}}'
    more = b'{"v":1,"kind":"note","sender":"w9","new":[1],"body":{"text":"more","new":1}}'
    for body in (
        later,
        b"no json",
        b'{"v":1}',
        b'{"v":1,"kind":"note","sender":"w9","body":[]}',
        more,
    ):
        await one.control._send(ALL, body, control_module._KEPT)
    await one.control.tell("nothing", Note("unknown"))
    await one.control.tell("note", Note("known"))
    await until(lambda: len(two.notes) == 2, 10, "the known ones have run")
    assert two.notes == ["more", "known"]
    counted = two.counters.control
    assert (counted["unknown"], counted["invalid"], counted["received"]) == (2, 3, 2)


async def test_a_message_that_is_too_large_is_refused(bench: Bench):
    [one] = await speakers(bench, 1)
    with pytest.raises(ClientError) as refused:
        await one.control.tell("note", Note("x" * MAXIMUM_MESSAGE_BYTES))
    assert refused.value == BAD_REQUEST


async def test_a_command_that_fails_does_not_end_the_others(bench: Bench):
    one, two = await speakers(bench, 2)

    async def fails(note: Note) -> None:
        raise ValueError("what it was asked")

    two.control.on_command("fail", Note, fails)
    await one.control.tell("fail", Note())
    await one.control.tell("note", Note("after"))
    await until(lambda: two.notes == ["after"], 10, "the next has run")
    assert two.counters.errors["internal"] == 1
    assert one.counters.control["unknown"] == 1


async def test_commands_beyond_what_may_wait_are_dropped_and_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(control_module, "MOST_WAITING", 5)
    one, two = await speakers(bench, 2)
    goes_on = asyncio.Event()

    async def waits(note: Note) -> None:
        await goes_on.wait()

    two.control.on_command("wait", Note, waits)
    one.control.on_command("wait", Note, one._note)
    await one.control.tell("wait", Note())
    await until(lambda: two.counters.control["received"] == 1, 10, "it waits")
    for number in range(9):
        await one.control.tell("note", Note(str(number)))
    await until(lambda: two.counters.control["received"] == 10, 10, "all have arrived")
    goes_on.set()
    await until(lambda: len(two.notes) == 5, 10, "what was kept has run")
    assert two.counters.control["dropped"] == 4


async def test_without_a_store_a_sender_is_told(own: RedisBench):
    [one] = await speakers(own, 1)
    own.servers[0].stop()
    with pytest.raises(ClientError) as command:
        await one.control.tell("note", Note())
    with pytest.raises(ClientError) as question:
        await one.control.ask("who", Note())
    assert (command.value.code, question.value.code) == (100, 100)
    assert one.counters.errors["store"] >= 2


async def test_it_is_one_channel_in_a_redis_cluster(clustered: RedisBench):
    await _is_whole(clustered)


async def test_it_is_one_channel_with_several_shards(sharded: RedisBench):
    await _is_whole(sharded)


async def _is_whole(bench: RedisBench) -> None:
    workers = await speakers(bench, 3)
    for each in workers:
        await each.control.tell("note", Note(each.control.uid))
    for each in workers:
        await until(partial(lambda one: one.notes == ["w0", "w1", "w2"], each), 10, "all have run")
        gathered = await each.control.ask("who", Note())
        assert (len(gathered.answers), gathered.missing) == (3, 0)
