"""Data reaches its reader byte for byte, on every way through a worker; only newlines go."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config import HttpApiConfig, TokenConfig
from cluster.sessions import StateInvalid
from tests.unit.json_texts import TEXTS
from tests.unit.local_worker import (
    RECOVERABLE,
    Caller,
    LocalWorker,
    ask,
    changed,
    configured,
    entered,
)
from tests.unit.raw_socket import echo, echo_at_once

KEY = "a key of 32 bytes and a few more"
SEEN = [
    b'{"text":"cut \\ud83d"}', b"18446744073709551616", b"1.10", b'{"a":1,"a":2}', b"1e999", b"-0",
    b'{"data": 1, "data": 2}', b'"\\u0000"', b'"\xe2\x80\xa8"', b'{ "a" :\t[ ] }', b"null",
    b'"},\\"offset\\":7"', b"[" * 500 + b"]" * 500,
]  # fmt: skip
SOME_TEXTS = st.lists(TEXTS, min_size=1, max_size=20)
PROPERTY = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


def send(caller: Caller, *commands: bytes) -> None:
    caller.wire.send_text(b"\n".join(commands))


async def line_with(caller: Caller, part: bytes) -> bytes:
    """Wait for a document that has this text in it; every document must be JSON in valid UTF-8."""
    found = await caller.until(lambda: next((one for one in caller.lines if part in one), b""))
    json.loads(found.decode())
    return found


def signed(claims: bytes) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(b'{"alg":"HS256"}')
    body = f"{head}.{part(claims)}"
    return f"{body}.{part(hmac.new(KEY.encode(), body.encode(), hashlib.sha256).digest())}"


# --- publications --------------------------------------------------------------------------


async def through_publications(texts: list[bytes]) -> None:
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        reader, speaker = await entered(worker), await entered(worker)
        await ask(reader, "subscribe", channel="c")
        for number, text in enumerate(texts[:10], start=2):
            send(speaker, b'{"publish":{"channel":"c","data":%b},"id":%d}' % (text, number))
            assert (await speaker.reply(number)) == {"id": number, "publish": {}}
            end = b',"offset":1,"epoch":"' if number == 2 else b',"offset":%d}}}' % (number - 1)
            pushed = await line_with(reader, end)
            assert pushed.startswith(b'{"push":{"channel":"c","pub":{"data":%b,"info":{' % text)
        await ask(reader, "history", channel="c", limit=-1)
        history = await line_with(reader, b'"history":')
        late = await entered(worker)
        epoch = next(one["history"]["epoch"] for one in reader.heard if "history" in one)
        await ask(late, "subscribe", channel="c", recover=True, epoch=epoch)
        recovered = await line_with(late, b'"recovered":true')
        for text in texts[:10]:
            assert b'{"data":%b,"info":{' % text in history
            assert b'{"data":%b,"info":{' % text in recovered


async def test_what_was_seen_to_change_reaches_subscribers_as_it_is():
    await through_publications(SEEN[:10])
    await through_publications(SEEN[10:])


@given(SOME_TEXTS)
@PROPERTY
def test_any_published_json_is_pushed_kept_and_recovered_as_it_is(texts: list[bytes]):
    asyncio.run(through_publications(texts))


@pytest.mark.parametrize(
    ("command", "data"),
    [
        (b'{"id":2,"publish":{"data":1,"channel":"c","data":%b,"x":{"data":3}}}', b'{"data": 2}'),
        (b'{"id":2,"publish":{"data":"\\"}","channel":"c"},"publish":{"channel":"c","data":%b}}', b"5"),
        (b'{"id":2,"publish":{"channel":"c","d\\u0061ta": %b }}', b'"\\"data\\":1"'),
        (b'{"x":{"publish":{"data":1}},"id":2,"publish":{"channel":"c","data":%b}}', b"1.0"),
        (b'\t{ "id" : 2 , "publish" : { "channel" : "c" , "data" : %b } } \r', b"[ 1 ,\t2 ]"),
    ],
)  # fmt: skip
async def test_the_data_that_counts_is_the_last_member_of_its_command(command: bytes, data: bytes):
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="c")
        send(caller, command % data)
        assert b'"pub":{"data":%b,"info":{' % data in await line_with(caller, b'"pub":')


async def test_each_command_of_a_frame_keeps_its_own_data():
    async with LocalWorker(configured(), rpc_handlers={"": echo_at_once}).open() as worker:
        caller = await entered(worker)
        send(caller, *(b'{"id":%d,"rpc":{"data":%b}}' % pair for pair in enumerate(SEEN, start=2)))
        for number, text in enumerate(SEEN, start=2):
            line = await line_with(caller, b'{"id":%d,' % number)
            assert line == b'{"id":%d,"rpc":{"data":%b}}' % (number, text)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"{", 3501), (b"01", 3501), (b"NaN", 3501), (b'"\\ud83"', 3501), (b'"\x01"', 3501),
     (b'"\\ud83d\\x"', 3501), (b'"\xff"', 1007), (b'"\xed\xa0\xbd"', 1007), (b'{"\xc0\x80":1}', 1007),
     (b"1}}\r{", 3501), (b"1\n", 3501)],
)  # fmt: skip
async def test_data_that_is_no_json_closes_the_connection(data: bytes, code: int):
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        send(caller, b'{"id":2,"publish":{"channel":"c","data":%b}}' % data)
        assert (await caller.closed())[0] == code


@pytest.mark.parametrize("levels", [513, 790])
async def test_data_nested_too_deeply_is_refused_and_the_client_stays(levels: int):
    async with LocalWorker(configured(), rpc_handlers={"": echo_at_once}).open() as worker:
        caller = await entered(worker)
        deep = b"[" * levels + b"]" * levels
        send(caller, b'{"id":2,"publish":{"channel":"c","data":%b}}' % deep)
        send(caller, b'{"id":3,"rpc":{"data":%b}}' % deep)
        for number in (2, 3):
            assert (await caller.reply(number))["error"]["code"] == 107
        assert "publish" in await ask(caller, "publish", channel="c", data=1)


async def test_a_publication_that_an_older_version_has_stored_is_read():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        body = b'{"data":{"n":1.1},"info":{"user":"ann","client":"x","conn_info":{"a":1}}}'
        policy = worker.node.commands._permissions.history("c")
        worker.broker.publish("c", body, policy, 1, lambda _: None)
        caller = await entered(worker)
        reply = await ask(caller, "history", channel="c", limit=5)
        [publication] = reply["history"]["publications"]
        assert publication["data"] == {"n": 1.1}
        assert publication["info"]["conn_info"] == {"a": 1}


# --- the server API --------------------------------------------------------------------------


async def post(worker: LocalWorker, method: str, body: bytes) -> Any:
    status, answer = await posted(worker, method, body)
    return json.loads(answer) if status == 200 else status


async def posted(worker: LocalWorker, method: str, body: bytes) -> tuple[int, bytes]:
    url = f"http://127.0.0.1:{worker.port}/api/{method}"
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session,
        session.post(url, data=body) as response,
    ):
        return response.status, await response.read()


def with_api() -> LocalWorker:
    return LocalWorker(changed(configured(), http_api=HttpApiConfig(KEY)))


async def through_api(texts: list[bytes]) -> None:
    async with with_api().open() as worker:
        reader = await entered(worker)
        await ask(reader, "subscribe", channel="c")
        offset = 0
        for text in texts:
            publish = b'{"data":%b,"channel":"c"}' % text
            broadcast = b'{"channels":["c"],"data":\n %b\n}' % text
            batch = b'{"commands":[{"publish":%b},{"broadcast":%b}]}' % (publish, broadcast)
            bodies = {"publish": publish, "broadcast": broadcast, "batch": batch}
            for (method, body), publications in zip(bodies.items(), (1, 1, 2), strict=True):
                assert "error" not in str(await post(worker, method, body))
                for _ in range(publications):
                    offset += 1
                    end = b',"epoch":' if offset == 1 else b"}}}"
                    pushed = await line_with(reader, b',"offset":%d%b' % (offset, end))
                    assert pushed.startswith(
                        b'{"push":{"channel":"c","pub":{"data":%b,"offset":' % text
                    )


async def test_the_api_publishes_what_was_seen_to_change_as_it_is():
    await through_api(SEEN)


@given(st.lists(TEXTS, min_size=1, max_size=4))
@PROPERTY
def test_the_api_publishes_any_json_as_it_is(texts: list[bytes]):
    asyncio.run(through_api(texts))


async def read_by_the_api(texts: list[bytes]) -> None:
    """Each text as the info of a client and the data that it publishes, in history and presence."""
    options = dataclasses.replace(RECOVERABLE, presence=True)
    config = configured(options=options, token=TokenConfig(hmac_secret_key=KEY))
    async with LocalWorker(changed(config, http_api=HttpApiConfig(KEY))).open() as worker:
        for text in texts:
            caller = await worker.caller()
            # An info of null is none.
            token = signed(b'{"sub":"ann","info":{"i":%b}}' % text).encode()
            send(caller, b'{"id":1,"connect":{"token":"%b"}}' % token)
            await caller.reply(1)
            await ask(caller, "subscribe", channel="c")
            send(caller, b'{"id":9,"publish":{"channel":"c","data":%b}}' % text)
            assert (await caller.reply(9)) == {"id": 9, "publish": {}}
            assert "result" in await post(worker, "publish", b'{"channel":"c","data":%b}' % text)
        _, history = await posted(worker, "history", b'{"channel":"c","limit":-1}')
        _, presence = await posted(worker, "presence", b'{"channel":"c"}')
        json.loads(history), json.loads(presence)
        for text in texts:
            info = b'"conn_info":{"i":%b}}' % text
            assert info in presence
            assert b'{"data":%b,"info":{' % text in history
            assert b'{"data":%b,"offset":' % text in history
            assert info in history


async def test_the_api_answers_history_and_presence_as_they_are():
    for first in range(0, len(SEEN), 5):
        await read_by_the_api(SEEN[first : first + 5])


@given(st.lists(TEXTS, min_size=1, max_size=5))
@PROPERTY
def test_the_api_answers_history_and_presence_of_any_json_as_it_is(texts: list[bytes]):
    asyncio.run(read_by_the_api(texts))


async def test_data_of_the_api_on_several_lines_is_pushed_as_one_document():
    async with with_api().open() as worker:
        reader = await entered(worker)
        await ask(reader, "subscribe", channel="c")
        await post(worker, "publish", b'{\n "channel": "c",\n "data": {\n  "a": 1.10\n }\n}\n')
        assert b'"data":{  "a": 1.10 },' in await line_with(reader, b'"pub":')


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"channel":"c","data":01}', 400),
        (b'{"channel":"c","data":"\xff"}', 400),
        (b'{"channel":"c"}', 107),
        (b'{"channel":"c","data":' + b"[" * 513 + b"]" * 513 + b"}", 107),
        (b'{"channel":"c","data":' + b"[" * 810 + b"]" * 810 + b"}", 400),
        (b'{"channel":"\\ud83d","data":"\\ud83d"}', 107),
    ],
)
async def test_the_api_refuses_what_is_no_json_and_what_is_too_deep(body: bytes, wanted: int):
    async with with_api().open() as worker:
        answer = await post(worker, "publish", body)
        assert (answer if isinstance(answer, int) else answer["error"]["code"]) == wanted
        broadcast = body.replace(b'"channel":', b'"channels":["c",').replace(
            b',"data"', b'],"data"'
        )
        if b'"\\ud83d"' in body:
            answer = await post(worker, "broadcast", broadcast)
            assert [list(one) for one in answer["result"]["responses"]] == [["result"], ["error"]]


# --- rpc and connect -------------------------------------------------------------------------


async def through_calls(texts: list[bytes]) -> None:
    handlers = {"at once": echo_at_once, "awaited": echo, "same": lambda user, data: data + b""}
    async with LocalWorker(configured(), rpc_handlers=handlers).open() as worker:
        caller = await worker.caller()
        send(caller, b'{"id":1,"connect":{"data":%b,"token":""}}' % texts[0])
        assert (await caller.reply(1))["connect"]["client"]
        number = 1
        for text in texts:
            for method in handlers:
                number += 1
                call = b'{"id":%d,"rpc":{"method":"%b","data":%b}}'
                send(caller, call % (number, method.encode(), text))
                line = await line_with(caller, b'{"id":%d,' % number)
                assert line == b'{"id":%d,"rpc":{"data":%b}}' % (number, text)


async def test_a_call_gets_what_was_seen_to_change_as_it_is():
    await through_calls(SEEN)


@given(SOME_TEXTS)
@PROPERTY
def test_any_json_reaches_a_handler_and_comes_back_as_it_is(texts: list[bytes]):
    asyncio.run(through_calls(texts))


@pytest.mark.parametrize(
    "connect",
    [b'{"data":{"session":1}}', b'{"data":"\\ud83d","name":"\\ud83d"}', b'{"data":{"session":"\\ud83d"}}',
     b'{"data":' + b"[" * 700 + b"]" * 700 + b"}", b'{"headers":{"a":"\\ude00"},"data":1e999}'],
)  # fmt: skip
async def test_a_client_connects_with_any_data(connect: bytes):
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        send(caller, b'{"id":1,"connect":%b}' % connect)
        assert (await caller.reply(1))["connect"]["data"]["session"]["resumed"] is False


async def test_a_session_is_resumed_whatever_else_the_data_of_the_connect_has():
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        session = next(iter(worker.sessions.held))
        other = await worker.caller()
        data = b'{"cut":"\\ud83d","session":"%b"}' % session.encode()
        send(other, b'{"id":1,"connect":{"data":%b}}' % data)
        assert (await other.reply(1))["connect"]["data"]["session"]["resumed"] is True
        assert caller.wire.close_code is None


@pytest.mark.parametrize(
    "command", [b'"subscribe":{"channel":"\\ud83d"}', b'"publish":{"channel":"\\ud83d","data":1}',
                b'"rpc":{"method":"\\ud83d","data":"\\ud83d"}']
)  # fmt: skip
async def test_a_lone_surrogate_in_a_name_is_an_error_and_the_client_stays(command: bytes):
    async with LocalWorker(configured(), rpc_handlers={"echo": echo}).open() as worker:
        caller = await entered(worker)
        send(caller, b'{"id":2,%b}' % command)
        assert (await caller.reply(2))["error"]["code"] in {104, 107}


@pytest.mark.parametrize("answer", [b"{", b"", b"\xff", b"NaN", b'"\n"', b"[" * 600 + b"]" * 600])
async def test_an_answer_that_is_no_json_is_the_fault_of_the_handler(answer: bytes):
    handlers = {"": lambda user, data: answer}
    async with LocalWorker(configured(), rpc_handlers=handlers).open() as worker:
        caller = await entered(worker)
        assert (await ask(caller, "rpc", data=1))["error"]["code"] == 100
        assert worker.counters.errors["handler"] == 1


async def test_the_newlines_of_an_answer_do_not_end_its_document():
    handlers: dict[str, Any] = {"": lambda user, data: b'{\n "a": [\n1.10]\n}\n'}
    async with LocalWorker(configured(), rpc_handlers=handlers).open() as worker:
        caller = await entered(worker)
        await ask(caller, "rpc")
        line = await line_with(caller, b'"rpc"')
        assert line.endswith(b'"rpc":{"data":{ "a": [1.10]}}}')


# --- info ------------------------------------------------------------------------------------


async def info_of(claims: bytes) -> bytes:
    """The push of a publication by a client with these claims; empty if it may not connect."""
    config = configured(token=TokenConfig(hmac_secret_key=KEY))
    async with LocalWorker(config).open() as worker:
        caller = await worker.caller()
        send(caller, b'{"id":1,"connect":{"token":"%b"}}' % signed(claims).encode())
        await caller.until(lambda: caller.heard or caller.wire.close_code)
        if caller.wire.close_code:
            assert caller.wire.close_code == 3500
            return b""
        await ask(caller, "subscribe", channel="c")
        await ask(caller, "publish", channel="c", data=1)
        return await line_with(caller, b'"pub":')


@given(SOME_TEXTS)
@PROPERTY
def test_any_info_of_a_token_is_shown_as_it_is(texts: list[bytes]):
    for text in texts[:2]:
        if text != b"null":
            encoded = b'{"sub":"ann","b64info":"%b","info":1}' % base64.b64encode(text)
            for claims in (b'{"sub":"ann","info":%b}' % text, encoded):
                assert b'"conn_info":%b}' % text in asyncio.run(info_of(claims))


async def test_an_info_on_several_lines_does_not_end_the_document():
    pushed = await info_of(b'{\n "info": {\n  "price": 1.10\n }\n}')
    assert b'"conn_info":{  "price": 1.10 }}' in pushed


@pytest.mark.parametrize(
    "claims",
    [
        b'{"info":' + b"[" * 513 + b"]" * 513 + b"}",
        b'{"info":' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"b64info":"e"}',
        b'{"b64info":{}}',
        b'{"info":"\xff"}',
        b'{"sub":"\\ud83d"}',
    ],
)
async def test_an_info_that_cannot_be_shown_is_refused_at_connect(claims: bytes):
    assert await info_of(claims) == b""


@pytest.mark.parametrize("info", [b"[" * 513 + b"]" * 513, b"no json", b'"\xff"', b"\0"])
async def test_an_info_of_other_bytes_is_a_data_url(info: bytes):
    encoded = base64.b64encode(info)
    pushed = await info_of(b'{"b64info":"%b"}' % encoded)
    assert b'"conn_info":"data:;base64,%b"}' % encoded in pushed


# --- the state of a session ------------------------------------------------------------------


async def through_states(texts: list[bytes]) -> None:
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        session = next(iter(worker.sessions.held))
        for version, text in enumerate(texts, start=1):
            await worker.sessions.update(session, state=text)
            pushed = await line_with(caller, b',"version":%d}' % version)
            assert b'"state":%b,"version"' % text in pushed
        late = await entered(worker, data={"session": session})
        assert b'"state":%b}' % texts[-1] in late.lines[0]


async def test_a_state_that_is_text_reaches_clients_as_it_is():
    await through_states(SEEN)


@given(SOME_TEXTS)
@PROPERTY
def test_any_state_reaches_clients_as_it_is(texts: list[bytes]):
    asyncio.run(through_states(texts))


async def test_a_state_on_several_lines_stays_one_document_and_malformed_text_is_refused():
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        session = next(iter(worker.sessions.held))
        for text in (b"{", b"\xff", b"1\n2", b""):
            with pytest.raises(StateInvalid):
                await worker.sessions.update(session, state=text)
        await worker.sessions.update(session, state=b"[1,\n2.0]\n")
        assert b'"state":[1,2.0],"version":1' in await line_with(caller, b'"state":[')
