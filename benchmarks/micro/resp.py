"""`python -m benchmarks.micro.resp`: our links to the store against redis-py's asyncio client.

Measured is this process's CPU time for each message received and for each publish (an EVALSHA of our
publish script), on uvloop, against one Valkey on the other core. Both parse with hiredis. redis-py is
measured as one would use it and, for publishes, with explicit pipelines too.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop

from benchmarks.micro.comparison import Figure, Way, machine, measured, table
from benchmarks.micro.feeder import CHANNEL
from benchmarks.paths import LOAD_CORE, REPOSITORY, pin_to_server_core
from benchmarks.servers import valkey
from cluster.config.redis_url import Address
from cluster.resp.link import Link
from cluster.resp.scripts import PUBLISH

MESSAGES = 30_000
BATCHES = (1, 32)
PUBLISHES = 20_000
IN_FLIGHT = 64
ROUNDS = 5
BODY = b'{"data":"' + b"x" * 128 + b'"}'
KEYS = ("{micro}.meta", "{micro}.stream")
ARGUMENTS = (BODY, 100, 60_000, 0, "abcdefgh", 0, "{micro}.pub")


async def _open(port: int, on_messages: Callable[[list[Any]], None] | None) -> Link:
    link = Link(Address(port=port), timeout_seconds=5.0, on_messages=on_messages)
    link.start()
    await link.wait_up()
    return link


async def _feed(port: int, batch: int) -> None:
    feeder = await asyncio.create_subprocess_exec(
        "taskset", "--cpu-list", str(LOAD_CORE), sys.executable, "-m", "benchmarks.micro.feeder",
        str(port), str(MESSAGES), str(batch), cwd=REPOSITORY,
    )  # fmt: skip
    await feeder.wait()


async def own_receive(port: int, batch: int) -> float:
    received = 0
    is_subscribed, is_done = asyncio.Event(), asyncio.Event()

    def on_messages(messages: list[Any]) -> None:
        nonlocal received
        is_subscribed.set()
        received += sum(1 for message in messages if message[0] == b"message")
        if received >= MESSAGES:
            is_done.set()

    link = await _open(port, on_messages)
    link.send(("SUBSCRIBE", CHANNEL))
    await is_subscribed.wait()
    begun = time.process_time()
    await asyncio.gather(_feed(port, batch), is_done.wait())
    spent = time.process_time() - begun
    await link.aclose()
    return spent / MESSAGES * 1e6


async def redis_py_receive(port: int, batch: int) -> float:
    async with redis.asyncio.Redis(port=port) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(CHANNEL)
        await pubsub.get_message(timeout=1)

        async def listen() -> None:
            received = 0
            async for _ in pubsub.listen():
                received += 1
                if received == MESSAGES:
                    return

        begun = time.process_time()
        await asyncio.gather(_feed(port, batch), listen())
        return (time.process_time() - begun) / MESSAGES * 1e6


async def own_publish(port: int) -> float:
    link = await _open(port, None)
    is_done = asyncio.Event()
    sent = answered = 0

    def publish() -> None:
        nonlocal sent
        sent += 1
        link.submit_script(PUBLISH, KEYS, ARGUMENTS, on_reply)

    def on_reply(reply: Any) -> None:
        nonlocal answered
        if isinstance(reply, Exception):
            raise reply
        answered += 1
        if sent < PUBLISHES:
            publish()
        elif answered == PUBLISHES:
            is_done.set()

    begun = time.process_time()
    for _ in range(IN_FLIGHT):
        publish()
    await is_done.wait()
    spent = time.process_time() - begun
    await link.aclose()
    return spent / PUBLISHES * 1e6


async def redis_py_publish(port: int) -> float:
    """As it is used: one await per publish, a connection for each that is under way."""
    async with redis.asyncio.Redis(port=port, max_connections=IN_FLIGHT) as client:
        sha = str(await client.script_load(PUBLISH.text))

        async def one_after_another() -> None:
            for _ in range(PUBLISHES // IN_FLIGHT):
                await client.evalsha(sha, 2, *KEYS, *ARGUMENTS)

        begun = time.process_time()
        await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
        return (time.process_time() - begun) / PUBLISHES * 1e6


async def redis_py_pipeline(port: int) -> float:
    """Its cheapest way: the caller collects publishes and sends them together."""
    async with redis.asyncio.Redis(port=port) as client:
        sha = str(await client.script_load(PUBLISH.text))
        begun = time.process_time()
        for _ in range(PUBLISHES // IN_FLIGHT):
            pipeline = client.pipeline(transaction=False)
            for _ in range(IN_FLIGHT):
                pipeline.evalsha(sha, 2, *KEYS, *ARGUMENTS)
            await pipeline.execute()
        return (time.process_time() - begun) / PUBLISHES * 1e6


def ways(port: int) -> list[Way]:
    made: list[Way] = []
    for batch in BATCHES:
        what = f"receive, {batch} per write"
        made.append(Way(what, "our subscription link", partial(own_receive, port, batch)))
        made.append(Way(what, "redis-py, pubsub.listen()", partial(redis_py_receive, port, batch)))
    what = f"publish, {IN_FLIGHT} at a time"
    made.append(Way(what, "our pipelined link", partial(own_publish, port)))
    made.append(Way(what, "redis-py, explicit pipeline", partial(redis_py_pipeline, port)))
    made.append(Way(what, "redis-py, one await each", partial(redis_py_publish, port)))
    return made


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as scratch, valkey(Path(scratch)) as store:
        return uvloop.run(measured(ways(store.port), ROUNDS))


if __name__ == "__main__":
    pin_to_server_core()
    print(f"{table(measure())}\n\n{machine()}")
