"""Clients that speak Protobuf, on a real socket, beside clients that speak JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest

from cluster.codec import Codec
from cluster.config import ChannelOptions
from cluster.protobuf import PROTOBUF
from tests.harness import wire
from tests.harness.wire import Wire, frame, upgrade_request
from tests.unit.api_workers import api_config, call
from tests.unit.local_worker import (
    RECOVERABLE,
    WITHIN_SECONDS,
    LocalWorker,
    _Wire,
    configured,
    entered,
)
from tests.unit.raw_socket import raw
from tests.unit.test_protobuf import command, replies, sized

T = TypeVar("T")
BY_SUBPROTOCOL = {"Sec-WebSocket-Protocol": "centrifuge-protobuf"}


class ProtobufCaller:
    """A client that waits for what it receives."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.wire: Wire
        self._news = asyncio.Event()

    def on_message(self, opcode: int, payload: bytes) -> None:
        assert opcode == wire.BINARY, "Protobuf travels in binary frames"
        self.heard += replies(_framed(payload))
        self._news.set()

    def on_end(self, code: int | None, reason: str) -> None:
        self._news.set()

    def say(self, *commands: Any) -> None:
        self.wire.send(frame(wire.BINARY, sized(*commands)))

    async def until(self, found: Callable[[], T]) -> T:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not (result := found()):
                assert not self.wire.ended.is_set(), f"closed {self.wire.close_code}"
                self._news.clear()
                await self._news.wait()
            return result

    async def ask(self, number: int, name: str, /, **params: Any) -> Any:
        self.say(command(number, name, **params))
        return await self.until(lambda: next((one for one in self.heard if one.id == number), None))

    def pubs(self) -> list[bytes]:
        return [one.push.pub.data for one in self.heard if one.push.HasField("pub")]


def _framed(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x82, size)) + payload
    return b"\x82\x7e" + size.to_bytes(2, "big") + payload


async def protobuf_caller(
    worker: LocalWorker,
    path: str = "",
    headers: dict[str, str] | None = None,
    *,
    emulated: dict[str, str] | None = None,
    token: str = "",
) -> ProtobufCaller:
    caller = ProtobufCaller()
    async with asyncio.timeout(WITHIN_SECONDS):
        _, caller.wire = await asyncio.get_running_loop().create_connection(
            lambda: _Wire(caller.on_message, caller.on_end), "127.0.0.1", worker.port
        )
        request = upgrade_request("127.0.0.1", f"/connection/websocket{path}", headers)
        caller.wire.send(request)
        await caller.wire.opened
    connected = await caller.ask(1, "connect", name="dart", headers=emulated, token=token)
    assert connected.connect.client
    assert connected.connect.version
    return caller


async def got_pubs(caller: ProtobufCaller, data: list[bytes]) -> None:
    await caller.until(lambda: caller.pubs() == data)


@pytest.mark.parametrize(
    ("path", "headers"),
    [("?format=protobuf", {}), ("?cf_protocol=protobuf", {}), ("", BY_SUBPROTOCOL)],
)
async def test_a_client_chooses_protobuf_by_url_or_subprotocol(path: str, headers: dict[str, str]):
    async with LocalWorker(configured()).open() as worker:
        caller = await protobuf_caller(worker, path, headers)
        assert (await caller.ask(2, "rpc", method="none")).error.code == 108


async def test_the_subprotocol_is_confirmed():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        writer.write(upgrade_request("x", "/connection/websocket", BY_SUBPROTOCOL))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert b"\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n" in head
        writer.close()


async def test_publications_cross_between_the_codecs():
    async with LocalWorker(configured()).open() as worker:
        json_caller = await entered(worker)
        caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        await caller.ask(2, "subscribe", channel="a")
        json_caller.say({"id": 2, "subscribe": {"channel": "a"}})
        await json_caller.reply(2)
        assert (await caller.ask(3, "publish", channel="a", data=b'{"n":1}')).HasField("publish")
        json_caller.say({"id": 3, "publish": {"channel": "a", "data": [2]}})
        await caller.until(lambda: caller.pubs() == [b'{"n":1}', b"[2]"])
        await json_caller.until(lambda: json_caller.pubs() == [{"n": 1}, [2]])
        info = caller.heard[-1].push.pub.info
        assert info.client != ""


async def test_bytes_that_are_no_json_arrive_as_they_were_and_in_json_as_a_data_url():
    async with LocalWorker(configured()).open() as worker:
        json_caller = await entered(worker)
        caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        other = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        for one in (caller, other):
            await one.ask(2, "subscribe", channel="a")
        json_caller.say({"id": 2, "subscribe": {"channel": "a"}})
        await json_caller.reply(2)
        sent = [bytes(range(256)), b"12\n", b'{"a": 1}\n', b'"data:;base64,AAEC"']
        for number, data in enumerate(sent, 3):
            await caller.ask(number, "publish", channel="a", data=data)
        await other.until(lambda: other.pubs() == sent)
        await caller.until(lambda: caller.pubs() == sent)
        await json_caller.until(lambda: len(json_caller.pubs()) == len(sent))
        assert all(text.startswith("data:;base64,") for text in json_caller.pubs())
        history = (await caller.ask(20, "history", channel="a", limit=10)).history
        assert [pub.data for pub in history.publications] == sent


async def test_a_publication_is_encoded_once_for_all_clients_of_a_codec(
    monkeypatch: pytest.MonkeyPatch,
):
    encoded: list[bytes] = []

    def counted(document: bytes) -> bytes:
        encoded.append(document)
        return PROTOBUF.frame(document)

    counting = Codec("protobuf", PROTOBUF.decode, counted, PROTOBUF.frames, PROTOBUF.ping_frame)
    monkeypatch.setattr("cluster.websocket.server.PROTOBUF", counting)
    async with LocalWorker(configured()).open() as worker:
        callers = [await protobuf_caller(worker, headers=BY_SUBPROTOCOL) for _ in range(5)]
        for one in callers:
            await one.ask(2, "subscribe", channel="a")
        encoded.clear()
        await callers[0].ask(3, "publish", channel="a", data=b"1")
        for one in callers:
            await got_pubs(one, [b"1"])
        assert len([one for one in encoded if b'"pub"' in one]) == 1


async def test_what_was_missed_is_recovered():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        first = (await caller.ask(2, "subscribe", channel="a")).subscribe
        for number in range(3, 6):
            await caller.ask(number, "publish", channel="a", data=b"\xff%d" % number)
        other = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        again = await other.ask(
            2, "subscribe", channel="a", recover=True, offset=first.offset + 1, epoch=first.epoch
        )
        assert again.subscribe.recovered is True
        assert [pub.data for pub in again.subscribe.publications] == [b"\xff4", b"\xff5"]


async def test_a_filter_chooses_for_protobuf_clients_too():
    options = ChannelOptions(
        history_size=10, history_ttl=60.0, allow_tags_filter=True, force_positioning=True
    )
    async with LocalWorker(configured(options=options)).open() as worker:
        caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        wanted = {"key": "kind", "cmp": "eq", "val": "x"}
        await caller.ask(2, "subscribe", channel="a", tf=wanted)
        for kind in ("x", "y", "x"):
            body = b'{"data":"%b","tags":{"kind":"%b"}}' % (kind.encode(), kind.encode())
            await worker.node.commands.publish_from_server("a", body)
        await caller.until(lambda: caller.pubs() == [b'"x"', b'"x"'])


@pytest.mark.parametrize("payload", [b"\x05\x08", b"", b"{}"])
async def test_what_is_no_protobuf_closes_with_3501(payload: bytes):
    async with LocalWorker(configured()).open() as worker:
        caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        caller.wire.send(frame(wire.BINARY, payload))
        await asyncio.wait_for(caller.wire.ended.wait(), WITHIN_SECONDS)
        assert caller.wire.close_code == 3501


async def test_pings_are_empty_messages_that_are_answered_with_one():
    async with LocalWorker(configured(ping_interval=0.3, pong_timeout=0.2)).open() as worker:
        caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)

        def at_least(count: int) -> bool:
            return sum(not one.ByteSize() for one in caller.heard) >= count

        for count in (1, 2, 3):
            await caller.until(partial(at_least, count))
            caller.wire.send(frame(wire.BINARY, b"\0"))
        await asyncio.wait_for(caller.wire.ended.wait(), WITHIN_SECONDS)
        assert caller.wire.close_code == 3012


async def test_the_server_api_tells_what_a_connection_speaks():
    async with LocalWorker(api_config()).open() as worker:
        await entered(worker)
        await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        connections = (await call(worker, "connections", user=""))["connections"]
        assert sorted(one["protocol"] for one in connections.values()) == ["json", "protobuf"]
