"""`python -m benchmarks.micro.resp`: our RESP connection against redis-py's asyncio client.

Measured is this process's CPU time per message (receiving) and per publish (an EVALSHA of our
publish script), on uvloop, against one Valkey on the other core; medians of alternating rounds.
redis-py is measured as one would use it and, for publishes, with explicit pipelines too.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import redis.asyncio
import uvloop

from benchmarks.micro.feeder import CHANNEL
from benchmarks.places import LOAD_CORE, REPOSITORY, pin_to_server_core
from benchmarks.servers import valkey
from cluster.resp.connection import RespConnection
from cluster.resp.scripts import PUBLISH

MESSAGES = 30_000
BATCHES = (1, 32)
PUBLISHES = 20_000
IN_FLIGHT = 64
ROUNDS = 3
CASE_TIMEOUT_SECONDS = 60
BODY = b'{"data":"' + b"x" * 128 + b'"}'
KEYS = ("{micro}.meta", "{micro}.stream")
ARGUMENTS = (BODY, 100, 60_000, 0, "abcdefgh", 0, "{micro}.pub")


async def _open(port: int, on_messages: Callable[[list[Any]], None] | None) -> RespConnection:
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: RespConnection(on_lost=lambda: None, on_messages=on_messages), "127.0.0.1", port
    )
    return connection


async def _feed(port: int, batch: int) -> None:
    feeder = await asyncio.create_subprocess_exec(
        "taskset", "--cpu-list", str(LOAD_CORE), sys.executable, "-m", "benchmarks.micro.feeder",
        str(port), str(MESSAGES), str(batch), cwd=REPOSITORY,
    )  # fmt: skip
    await feeder.wait()


async def ours_receive(port: int, batch: int) -> float:
    received = 0
    is_done = asyncio.Event()

    def on_messages(messages: list[Any]) -> None:
        nonlocal received
        received += sum(1 for message in messages if message[0] == b"message")
        if received >= MESSAGES:
            is_done.set()

    connection = await _open(port, on_messages)
    connection.send(("SUBSCRIBE", CHANNEL))
    await asyncio.sleep(0.1)
    begun = time.process_time()
    await asyncio.gather(_feed(port, batch), is_done.wait())
    connection.abort()
    return (time.process_time() - begun) / MESSAGES * 1e6


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


async def ours_publish(port: int) -> float:
    connection = await _open(port, None)
    loaded: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    connection.submit(("SCRIPT", "LOAD", PUBLISH.text), loaded.set_result)
    await loaded
    is_done = asyncio.Event()
    sent = answered = 0

    def publish() -> None:
        nonlocal sent
        sent += 1
        connection.submit(("EVALSHA", PUBLISH.sha, 2, *KEYS, *ARGUMENTS), on_reply)

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
    connection.abort()
    return (time.process_time() - begun) / PUBLISHES * 1e6


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


def _cases(port: int) -> dict[str, Callable[[], Awaitable[float]]]:
    cases: dict[str, Callable[[], Awaitable[float]]] = {}
    for batch in BATCHES:
        what = f"receive, {batch} per write"
        cases[f"{what} | ours"] = partial(ours_receive, port, batch)
        cases[f"{what} | redis-py listen()"] = partial(redis_py_receive, port, batch)
    what = f"publish, {IN_FLIGHT} under way"
    cases[f"{what} | ours"] = partial(ours_publish, port)
    cases[f"{what} | redis-py, one await each"] = partial(redis_py_publish, port)
    cases[f"{what} | redis-py, explicit pipeline"] = partial(redis_py_pipeline, port)
    return cases


async def _measure(port: int) -> dict[str, list[float]]:
    cases = _cases(port)
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            async with asyncio.timeout(CASE_TIMEOUT_SECONDS):
                figures[name].append(await case())
    return figures


def main() -> None:
    pin_to_server_core()
    with tempfile.TemporaryDirectory() as scratch, valkey(Path(scratch)) as store:
        figures = uvloop.run(_measure(store.port))
    print("| what | who | CPU µs each |\n| --- | --- | --: |")
    for name, values in figures.items():
        print(f"| {name} | {median(values):.2f} |")


if __name__ == "__main__":
    main()
