"""The official clients and an application's handlers: calls, their errors, messages both ways, and closes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.sdk_clients import Refused, Sdk

CONFIG = {"app": {"target": "application:app"}}
APPLICATION = """
import cluster

app = cluster.Application()


@app.rpc("double")
async def double(client, data):
    return {"twice": 2 * data["n"], "codec": client.codec}


@app.rpc("nothing")
def nothing(client, data):
    return None


@app.rpc("refuse")
def refuse(client, data):
    raise cluster.ApplicationError(1042, "not today")


@app.rpc("close")
def close(client, data):
    client.disconnect(4501, "go away")


@app.message
def echo(client, data):
    client.send({"echo": data})
"""
# The Python SDK has neither `send` nor messages.
TALK = ["go", "go-protobuf", "java-protobuf", "js", "js-protobuf"]
talks = pytest.mark.parametrize("sdk", TALK, indirect=True)


async def connected(sdk: Sdk, url: str) -> None:
    await sdk.do("connect", "ann", url=url)
    await sdk.events.seen("connected", client="ann")


async def test_a_call_is_answered_with_what_its_handler_returns(
    sdk: Sdk, url: str, request: pytest.FixtureRequest
):
    codec = "protobuf" if "protobuf" in request.node.callspec.id else "json"
    await connected(sdk, url)
    answer = await sdk.do("rpc", "ann", method="double", data={"n": 21})
    assert answer["data"] == {"twice": 42, "codec": codec}
    assert (await sdk.do("rpc", "ann", method="nothing", data={}))["data"] is None


@pytest.mark.parametrize(("method", "code"), [("refuse", 1042), ("unknown", 104)])
async def test_the_error_of_a_call_reaches_the_client_with_its_code(
    sdk: Sdk, url: str, method: str, code: int
):
    await connected(sdk, url)
    with pytest.raises(Refused) as refused:
        await sdk.do("rpc", "ann", method=method, data={})
    assert refused.value.code == code
    answer: dict[str, Any] = await sdk.do("rpc", "ann", method="double", data={"n": 1})
    assert answer["data"]["twice"] == 2


async def test_a_handler_may_close_the_connection_for_good(sdk: Sdk, url: str):
    await connected(sdk, url)
    with pytest.raises(Refused):
        await sdk.do("rpc", "ann", method="close", data={})
    assert (await sdk.events.seen("disconnected", client="ann"))["code"] == 4501


@talks
async def test_messages_are_sent_both_ways_in_order(sdk: Sdk, url: str):
    await connected(sdk, url)
    for number in range(20):
        await sdk.do("send", "ann", data={"n": number})
    await sdk.events.seen("message", times=20, client="ann")
    wanted = [{"echo": {"n": number}} for number in range(20)]
    assert [one["data"] for one in sdk.events.of("message", client="ann")] == wanted
