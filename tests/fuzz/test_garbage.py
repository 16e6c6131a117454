"""Garbage of every kind for the connection and for a live server: seconds of it, always the same.

Nothing a client sends may raise, log a traceback, or be noticed by another client.
"""

from __future__ import annotations

import logging
import random
import struct
from typing import Any

import orjson
import pytest

from cluster.connection import Connection
from cluster.metrics.counters import Counters
from tests.harness import wire
from tests.harness.wire import frame
from tests.unit.local_worker import Caller, LocalWorker, configured

SEEDS = [
    b'{"id":1,"connect":{"token":"t","name":"js","data":{"session":"x"},"subs":{"a":{"recover":true}}}}',
    b'{"id":2,"subscribe":{"channel":"a","recover":true,"offset":3,"epoch":"e","flag":3}}',
    b'{"id":3,"publish":{"channel":"a","data":{"x":[1,2.5,null,"y"]}}}',
    b'{"id":4,"history":{"channel":"a","limit":-1,"since":{"offset":0,"epoch":""},"reverse":true}}',
    b'{"id":5,"rpc":{"method":"echo","data":[[[[]]]]}}',
    b'{"id":6,"unsubscribe":{"channel":"a"}}',
    b'{"send":{"data":1}}',
    b'{"id":7,"refresh":{"token":"x"}}',
    b'{"id":8,"sub_refresh":{"channel":"a","token":"x"}}',
    b'{"id":9,"presence":{"channel":"a"}}',
    b"{}",
]
VALUES: list[Any] = [
    None, True, 0, -1, 2**31, 2**32, 2**53, 2**64, 1.5, 1e308, "", "a", "\0", "é" * 300,
    [], [[]], {}, {"a": 1}, ["a"], {"channel": "a"},
]  # fmt: skip


def mutated_json(chance: random.Random) -> bytes:
    """A command with one or two of its values exchanged."""
    document = orjson.loads(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 2)):
        at = document
        while at and chance.random() < 0.7:
            inner = [one for one in at.values() if type(one) is dict and one]
            if not inner:
                break
            at = chance.choice(inner)
        if at:
            at[chance.choice([*at, "extra"])] = chance.choice(VALUES)
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return b'{"id":99999999999999999999}'


def mutated_bytes(chance: random.Random) -> bytes:
    """A command with bytes changed, dropped, doubled or put in."""
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data)) if data else 0
        kind = chance.randrange(4)
        if kind == 0 and data:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randint(1, 5)]
        elif kind == 2:
            data[at:at] = data[at : at + chance.randint(1, 9)]
        else:
            data[at:at] = chance.randbytes(chance.randint(1, 4))
    return bytes(data)


def payload(chance: random.Random) -> bytes:
    kind = chance.randrange(5)
    if kind == 0:
        return chance.randbytes(chance.randint(0, 60))
    if kind == 1:
        return mutated_bytes(chance)
    if kind == 2:
        return chance.choice([b"[", b'{"a":', b'{"id":1,"rpc":{"data":[']) * chance.randint(1, 3000)
    return b"\n".join(mutated_json(chance) for _ in range(chance.randint(1, 6)))


def finish(connection: Connection, action: Any, chance: random.Random) -> list[Any]:
    """Complete an action as the node would."""
    name = type(action).__name__
    if name == "Connect":
        return connection.connected(action.id, {}, user="", info=b"", expires_at=0, server_side={})
    if name == "Subscribe":
        channel = action.request.channel
        actions = connection.subscribed(action.id, channel, {}, is_positioned=True)
        return actions + connection.resume()
    if name == "Publish":
        return connection.published(action.id, None, len(action.data))
    if name in {"History", "Rpc", "Refresh"}:
        return connection.replied(action.id, name.lower(), {})
    return []


@pytest.mark.parametrize("seed", range(4))
def test_no_garbage_makes_a_connection_raise(seed: int):
    chance = random.Random(seed)
    for _ in range(2000):
        connection = Connection("c", channel_limit=4, counters=Counters())
        pending: list[Any] = list(connection.receive(SEEDS[0]) if chance.random() < 0.9 else [])
        for _ in range(8):
            pending += connection.receive(payload(chance))
            while pending and chance.random() < 0.7:
                action = pending.pop(chance.randrange(len(pending)))
                pending += finish(connection, action, chance)


def hostile_bytes(chance: random.Random) -> bytes:
    """Bytes for the socket: frames of every kind, whole, torn, unmasked, or no frames at all."""
    kind = chance.randrange(10)
    if kind < 5:
        return frame(wire.TEXT, payload(chance))
    if kind == 5:
        return frame(
            chance.randrange(16),
            chance.randbytes(chance.randint(0, 200)),
            fin=chance.random() < 0.5,
        )
    if kind == 6:
        return frame(wire.CLOSE, struct.pack("!H", chance.randrange(65536)) + chance.randbytes(5))
    if kind == 7:
        return chance.randbytes(chance.randint(1, 300))
    if kind == 8:
        return frame(wire.TEXT, payload(chance))[: chance.randint(1, 20)]
    return b"".join(frame(wire.PING, chance.randbytes(chance.randint(0, 125))) for _ in range(20))


async def echo(user: str, data: Any) -> Any:
    return data


async def attack(worker: LocalWorker, chance: random.Random) -> None:
    caller = Caller()
    caller.on_message = lambda opcode, payload: None  # type: ignore[method-assign]
    caller.wire = (await worker.caller()).wire
    caller.wire.on_message = caller.on_message
    if chance.random() < 0.8:
        caller.wire.send_text(SEEDS[0])
    for _ in range(chance.randint(1, 6)):
        caller.wire.send(hostile_bytes(chance))
    if chance.random() < 0.5:
        caller.wire.abort()
    else:
        caller.wire.close()


@pytest.mark.parametrize("seed", range(3))
async def test_no_garbage_at_the_server_harms_another_client(
    seed: int, caplog: pytest.LogCaptureFixture
):
    chance = random.Random(seed)
    with caplog.at_level(logging.WARNING):
        async with LocalWorker(configured(), rpc_handlers={"echo": echo}).open() as worker:
            witness = await worker.caller()
            await witness.connect()
            witness.say({"id": 2, "subscribe": {"channel": "quiet", "recoverable": True}})
            await witness.reply(2)
            for number in range(3, 403):
                await attack(worker, chance)
                witness.say({"id": number, "publish": {"channel": "quiet", "data": number}})
                await witness.reply(number)
            await witness.until(lambda: witness.pubs() == list(range(3, 403)))
            assert not witness.wire.ended.is_set()
    assert [record for record in caplog.records if record.exc_info] == []
