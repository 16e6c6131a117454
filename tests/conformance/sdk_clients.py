"""The official clients under remote control: those of npm, Go and Java in a process, that of PyPI in this one.

All take the same commands and report the same events, so one set of tests runs with each.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import centrifuge
import jwt
import pytest

from tests.conformance.go_sdk import go_program
from tests.conformance.java_sdk import java_program
from tests.conformance.protobuf_frames import BadFrame, replies_of
from tests.harness.needs import is_missing

HERE = Path(__file__).parent
Json = dict[str, Any]


class Refused(Exception):
    """The SDK reported an error for a call."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


class Events:
    """All events so far, and waiting for the next one that fits."""

    def __init__(self) -> None:
        self.all: list[Json] = []
        self._changed = asyncio.Event()

    def add(self, event: Json) -> None:
        """Append one event and wake the waiting tests."""
        self.all.append(event)
        self._changed.set()

    def of(self, event: str, **facts: Any) -> list[Json]:
        """The events of one kind that carry these facts."""
        wanted = {"event": event, **facts}.items()
        return [seen for seen in self.all if all(seen.get(key) == value for key, value in wanted)]

    async def seen(self, event: str, times: int = 1, within: float = 30.0, **facts: Any) -> Json:
        """Wait until an event has come so many times; returns the last of them."""
        try:
            async with asyncio.timeout(within):
                while len(self.of(event, **facts)) < times:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            tail = "\n".join(map(str, self.all[-20:]))
            raise AssertionError(f"no {event} {facts} x{times} in {within} s\n{tail}") from None
        return self.of(event, **facts)[times - 1]


class Sdk(Protocol):
    """One SDK that may hold several named clients.

    Commands: connect, subscribe, unsubscribe, resubscribe, publish, history, rpc, presence, presence_stats,
    disconnect; not in Python: send.
    """

    events: Events

    async def do(self, verb: str, client: str, **facts: Any) -> Json:
        """Carry out one command.

        Raises:
            Refused: the SDK's promise was rejected.
        """
        ...


class RemoteSdk:
    """An SDK in a process that obeys one JSON command per line, as sdk_client.mjs does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events = Events()
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Json]] = {}

    async def do(self, verb: str, client: str, **facts: Any) -> Json:
        assert self._process.stdin is not None
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "do": verb, "client": client, **facts}
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        answer = await asyncio.wait_for(self._waiting[number], 30)
        if missing := answer.get("unsupported"):
            pytest.skip(f"this SDK does not have {missing}")
        if error := answer.get("error"):
            raise Refused(error["code"], error["message"])
        result: Json = answer["ok"]
        return result

    async def listen(self) -> None:
        """Read answers and events from the process until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "event" in message:
                self.events.add(message)
            else:
                self._waiting.pop(message["id"]).set_result(message)


@contextlib.asynccontextmanager
async def remote_sdk(*program: str) -> AsyncIterator[Sdk]:
    """Start a program that holds an SDK, and end it."""
    process = await asyncio.create_subprocess_exec(
        *program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
    )
    sdk = RemoteSdk(process)
    listening = asyncio.create_task(sdk.listen())
    try:
        yield sdk
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
        listening.cancel()


def javascript_sdk(codec: str = "json") -> contextlib.AbstractAsyncContextManager[Sdk]:
    """The npm SDK in Node."""
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules" / "centrifuge").exists():
        is_missing("needs node and the packages of tests/conformance: run 'make test'")
    return remote_sdk(node, str(HERE / "sdk_client.mjs"), codec)


def go_sdk(codec: str = "json") -> contextlib.AbstractAsyncContextManager[Sdk]:
    """The Go SDK; skips the test where it cannot be built."""
    program, reason = go_program()
    if program is None:
        pytest.skip(reason)
    return remote_sdk(str(program), codec)


def java_sdk() -> contextlib.AbstractAsyncContextManager[Sdk]:
    """The Java SDK, which speaks Protobuf only; skips the test where it cannot be built."""
    program, reason = java_program()
    if not program:
        pytest.skip(reason)
    return remote_sdk(*program)


def _got(data: Any) -> Any:
    """The data of a client of either codec: Protobuf clients get bytes, which are JSON in these tests."""
    return json.loads(data) if isinstance(data, bytes) and data else data


class _ClientEvents(centrifuge.ClientEventHandler):  # type: ignore[misc]
    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    async def on_connecting(self, ctx: Any) -> None:
        self._tell("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx: Any) -> None:
        self._tell("connected", id=ctx.client, data=_got(ctx.data))

    async def on_disconnected(self, ctx: Any) -> None:
        self._tell("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx: Any) -> None:
        self._tell("error", code=ctx.code, message=str(ctx.error))

    async def on_subscribed(self, ctx: Any) -> None:
        how = {"wasRecovering": ctx.was_recovering, "recovered": ctx.recovered}
        self._tell("server_subscribed", channel=ctx.channel, **how)

    async def on_unsubscribed(self, ctx: Any) -> None:
        self._tell("server_unsubscribed", channel=ctx.channel)

    async def on_publication(self, ctx: Any) -> None:
        self._tell("server_publication", channel=ctx.channel, data=_got(ctx.pub.data))


class _SubscriptionEvents(centrifuge.SubscriptionEventHandler):  # type: ignore[misc]
    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    async def on_subscribing(self, ctx: Any) -> None:
        self._tell("subscribing", code=ctx.code, reason=ctx.reason)

    async def on_subscribed(self, ctx: Any) -> None:
        position = ctx.stream_position
        self._tell(
            "subscribed",
            recoverable=ctx.recoverable,
            positioned=ctx.positioned,
            offset=position.offset if position else 0,
            epoch=position.epoch if position else "",
            wasRecovering=ctx.was_recovering,
            recovered=ctx.recovered,
        )

    async def on_unsubscribed(self, ctx: Any) -> None:
        self._tell("unsubscribed", code=ctx.code, reason=ctx.reason)

    async def on_publication(self, ctx: Any) -> None:
        sender = ctx.pub.info.client if ctx.pub.info else ""
        data = _got(ctx.pub.data)
        self._tell("publication", data=data, offset=ctx.pub.offset or 0, **{"from": sender})

    async def on_join(self, ctx: Any) -> None:
        self._tell_of("join", ctx.info)

    async def on_leave(self, ctx: Any) -> None:
        self._tell_of("leave", ctx.info)

    def _tell_of(self, event: str, info: Any) -> None:
        self._tell(event, who=info.client, user=info.user, info=_got(info.conn_info))

    async def on_error(self, ctx: Any) -> None:
        self._tell("error", code=ctx.code, message=str(ctx.error))


class _CheckedCodec:
    """The codec of the PyPI SDK, with every message read by the strictest reader before."""

    def __init__(self, codec: Any, bad: list[BadFrame]) -> None:
        self._codec = codec
        self._bad = bad

    def decode_replies(self, data: bytes) -> Any:
        try:
            replies_of(data)
        except BadFrame as error:
            self._bad.append(error)
        return self._codec.decode_replies(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)


class PythonSdk:
    """The PyPI SDK in this process."""

    def __init__(self, codec: str) -> None:
        self._speaks_protobuf = codec == "protobuf"
        #: What other SDKs would not have understood.
        self.bad_frames: list[BadFrame] = []
        self.events = Events()
        self.clients: dict[str, Any] = {}

    async def do(self, verb: str, client: str, **facts: Any) -> Json:
        try:
            result: Json | None = await getattr(self, f"_{verb}")(client, **facts)
        except centrifuge.CentrifugeError as error:
            raise Refused(getattr(error, "code", 0), str(error)) from error
        return result or {}

    def _sent(self, data: Any) -> Any:
        return json.dumps(data).encode() if self._speaks_protobuf else data

    def _teller(self, **who: Any) -> Callable[..., None]:
        def tell(event: str, **facts: Any) -> None:
            self.events.add({"event": event, **who, **facts})

        return tell

    def _signer(self, name: str, tokens: Json) -> Callable[..., Awaitable[str]]:
        """Makes tokens as an application's backend does: key, user and ttl in seconds."""

        async def sign(channel: str = "") -> str:
            claims = {"sub": tokens["user"], "exp": int(time.time()) + tokens["ttl"]}
            if channel:
                claims["channel"] = channel
            self.events.add({"event": "token", "client": name, "channel": channel})
            return jwt.encode(claims, tokens["key"], algorithm="HS256")

        return sign

    async def _connect(
        self, name: str, url: str, options: Json | None = None, tokens: Json | None = None
    ) -> None:
        tell = self._teller(client=name)
        # `proxy=None`: an HTTP proxy of the environment is not used on loopback.
        names = {"maxServerPingDelay": "max_server_ping_delay", "data": "data", "token": "token"}
        given = {names[key]: value for key, value in (options or {}).items()}
        if "max_server_ping_delay" in given:
            given["max_server_ping_delay"] /= 1000
        if tokens is not None:
            given["get_token"] = self._signer(name, tokens)
        if "data" in given:
            given["data"] = self._sent(given["data"])
        self.clients[name] = centrifuge.Client(
            url,
            events=_ClientEvents(tell),
            proxy=None,
            use_protobuf=self._speaks_protobuf,
            **given,
        )
        if self._speaks_protobuf:
            checked = _CheckedCodec(self.clients[name]._codec, self.bad_frames)
            self.clients[name]._codec = checked
        await self.clients[name].connect()

    async def _subscribe(
        self, name: str, channel: str, options: Json | None = None, tokens: Json | None = None
    ) -> None:
        tell = self._teller(client=name, channel=channel)
        given = dict(options or {})
        if tokens is not None:
            given["get_token"] = self._signer(name, tokens)
        if "joinLeave" in given:
            given["join_leave"] = given.pop("joinLeave")
        if states := given.pop("states", None):

            async def get_state(_: str) -> Any:
                tell("state")
                state = states.pop(0) if len(states) > 1 else states[0]
                return centrifuge.StreamPosition(**state)

            given["get_state"] = get_state
        if "delta" in given:
            given["delta"] = centrifuge.DeltaType(given["delta"])
        if node := given.pop("tagsFilter", None):
            given["tags_filter"] = centrifuge.FilterNode(node)
        sub = self.clients[name].new_subscription(
            channel, events=_SubscriptionEvents(tell), **given
        )
        await sub.subscribe()

    async def _unsubscribe(self, name: str, channel: str) -> None:
        await self.clients[name].get_subscription(channel).unsubscribe()

    async def _resubscribe(self, name: str, channel: str) -> None:
        await self.clients[name].get_subscription(channel).subscribe()

    async def _publish(self, name: str, channel: str, data: Any) -> None:
        await self.clients[name].publish(channel, self._sent(data))

    async def _history(
        self, name: str, channel: str, since: Json | None = None, **how: Any
    ) -> Json:
        position = centrifuge.StreamPosition(**since) if since else None
        result = await self.clients[name].history(channel, since=position, **how)
        publications = [
            {"data": _got(pub.data), "offset": pub.offset} for pub in result.publications
        ]
        return {"offset": result.offset, "epoch": result.epoch, "publications": publications}

    async def _rpc(self, name: str, method: str, data: Any) -> Json:
        return {"data": _got((await self.clients[name].rpc(method, self._sent(data))).data)}

    async def _presence(self, name: str, channel: str) -> Json:
        found = (await self.clients[name].presence(channel)).clients
        return {"clients": {client: one.user for client, one in found.items()}}

    async def _presence_stats(self, name: str, channel: str) -> Json:
        stats = await self.clients[name].presence_stats(channel)
        return {"clients": stats.num_clients, "users": stats.num_users}

    async def _disconnect(self, name: str) -> None:
        await self.clients[name].disconnect()


@contextlib.asynccontextmanager
async def python_sdk(codec: str = "json") -> AsyncIterator[Sdk]:
    """The PyPI SDK; its clients are disconnected at the end."""
    sdk = PythonSdk(codec)
    try:
        yield sdk
    finally:
        for client in sdk.clients.values():
            await client.disconnect()
    assert sdk.bad_frames == []


SDKS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Sdk]]] = {
    "go": go_sdk,
    "go-protobuf": partial(go_sdk, "protobuf"),
    "java-protobuf": java_sdk,
    "js": javascript_sdk,
    "js-protobuf": partial(javascript_sdk, "protobuf"),
    "python": python_sdk,
    "python-protobuf": partial(python_sdk, "protobuf"),
}
