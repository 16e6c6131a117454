"""The client behaves as the SDKs do: one frame, positions, back-off, and no reply is reported as unknown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from tests.harness.client import Client, NoReply, ReplyError, is_terminal
from tests.harness.waiting import until

Json = dict[str, Any]


class Script:
    """A server with a scripted answer per command; the commands it received are in `commands`."""

    def __init__(self) -> None:
        self.port = 0
        self.commands: list[Json] = []
        self.frames = 0
        self.sockets: list[web.WebSocketResponse] = []
        self.answers: dict[str, Callable[[Json], Json | None]] = {
            "connect": lambda _: {"connect": {"client": "c", "version": "1"}},
            "subscribe": lambda _: {"subscribe": {"recoverable": True, "epoch": "e", "offset": 4}},
            "publish": lambda _: {"publish": {}},
        }

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.frames += 1
                await self._answer(socket, message.data)
        return socket

    async def _answer(self, socket: web.WebSocketResponse, data: str) -> None:
        for line in data.split("\n"):
            command = json.loads(line)
            self.commands.append(command)
            for method, answer in self.answers.items():
                if method in command and (reply := answer(command[method])) is not None:
                    await socket.send_str(json.dumps({"id": command["id"], **reply}))

    async def push(self, channel: str, **push: Any) -> None:
        await self.sockets[-1].send_str(json.dumps({"push": {"channel": channel, **push}}))

    def requests(self, method: str) -> list[Json]:
        return [command[method] for command in self.commands if method in command]


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    played = Script()
    app = web.Application()
    app.router.add_get("/connection/websocket", played.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    played.port = runner.addresses[0][1]
    yield played
    await runner.cleanup()


@pytest.fixture
async def client(script: Script) -> AsyncIterator[Client]:
    made = Client(script.port, reconnect_min=0.05)
    yield made
    await made.close()


async def test_connect_and_subscriptions_go_out_in_one_frame(script: Script, client: Client):
    client.subscribe("a", lambda *_: None)
    client.subscribe("b", lambda *_: None)
    await client.start()
    await until(lambda: client.is_whole, 5, "both subscriptions are answered")
    assert script.frames == 1
    assert [request["channel"] for request in script.requests("subscribe")] == ["a", "b"]


async def test_it_comes_back_with_the_position_of_what_was_delivered(
    script: Script, client: Client
):
    got: list[Json] = []
    client.subscribe("a", lambda _, pub: got.append(pub))
    await client.start()
    await until(lambda: client.is_whole, 5, "subscribed")
    await script.push("a", pub={"data": 1, "offset": 5})
    await until(lambda: len(got) == 1, 5, "the publication is delivered")
    await script.sockets[-1].close(code=3001, message=b"shutdown")
    await until(lambda: len(script.requests("subscribe")) == 2, 5, "it came back")
    request = script.requests("subscribe")[1]
    assert (request["recover"], request["offset"], request["epoch"]) == (True, 5, "e")
    assert client.history.codes() == {3001: 1}


async def test_recovered_publications_move_the_position(script: Script, client: Client):
    script.answers["subscribe"] = lambda _: {
        "subscribe": {
            "recoverable": True,
            "epoch": "e",
            "offset": 4,
            "recovered": True,
            "publications": [{"data": 1, "offset": 5}, {"data": 2, "offset": 6}],
        }
    }
    subscription = client.subscribe("a", lambda *_: None)
    await client.start()
    await until(lambda: client.is_whole, 5, "subscribed")
    assert subscription.offset == 6


async def test_a_terminal_code_is_obeyed(script: Script, client: Client):
    await client.start()
    await script.sockets[-1].close(code=3501, message=b"bad request")
    await until(lambda: client.is_terminated, 5, "the client gives up")
    assert client.history.attempts == 1


async def test_an_unsubscribe_push_of_2500_resubscribes_on_the_same_connection(
    script: Script, client: Client
):
    subscription = client.subscribe("a", lambda *_: None)
    await client.start()
    await until(lambda: client.is_whole, 5, "subscribed")
    await script.push("a", unsubscribe={"code": 2500, "reason": "insufficient state"})
    await until(lambda: len(script.requests("subscribe")) == 2, 5, "it asks again")
    assert script.requests("subscribe")[1]["recover"] is True
    assert len(script.sockets) == 1
    assert subscription.codes == [2500]


async def test_a_publish_without_a_reply_is_unknown_and_not_sent_again(
    script: Script, client: Client
):
    script.answers["publish"] = lambda _: None
    await client.start()
    sending = asyncio.create_task(client.publish("a", 1))
    await until(lambda: len(script.requests("publish")) == 1, 5, "the publish arrived")
    await script.sockets[-1].close(code=3001, message=b"shutdown")
    with pytest.raises(NoReply):
        await sending
    await until(lambda: len(client.history.connects) == 2, 5, "it came back")
    assert len(script.requests("publish")) == 1


async def test_an_error_reply_carries_its_code(script: Script, client: Client):
    script.answers["publish"] = lambda _: {
        "error": {"code": 100, "message": "internal server error", "temporary": True}
    }
    await client.start()
    with pytest.raises(ReplyError) as caught:
        await client.publish("a", 1)
    assert (caught.value.code, caught.value.is_temporary) == (100, True)


async def test_refused_upgrades_are_counted_and_tried_again():
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        client = Client(server.sockets[0].getsockname()[1], reconnect_min=0.02)
        client.begin()
        await until(lambda: client.history.refusals[503] >= 3, 5, "three refusals")
        await client.close()


@pytest.mark.parametrize(
    ("code", "terminal"),
    [(None, False), (1006, False), (3001, False), (3500, True), (3999, True), (4000, False)],
)
def test_terminal_codes_are_those_of_the_protocol_page(code: int | None, terminal: bool):
    assert is_terminal(code) is terminal
