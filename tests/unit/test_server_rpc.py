"""The method `rpc` of the server API with an application: its handlers for backends, and what they raise."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

import cluster
from tests.unit.api_workers import api_config, call, code_of
from tests.unit.local_worker import LocalWorker, ask, entered
from tests.unit.test_server_api import post


def backend_methods() -> cluster.Application:
    app = cluster.Application()
    app.rpc("for_clients")(lambda client, data: "a client's")
    app.rpc_from_server("double")(lambda data: data * 2)
    app.rpc_from_server("raw", raw=True)(lambda data: data)

    @app.rpc_from_server("given")
    async def given(data: Any) -> Any:
        return {"given": data}

    @app.rpc_from_server("refuse")
    async def refuse(data: Any) -> None:
        raise cluster.ApplicationError(1000, "not today")

    @app.rpc_from_server("close")
    async def close(data: Any) -> None:
        raise cluster.ApplicationDisconnect(4500, "there is nothing to close")

    @app.rpc_from_server("fail")
    async def fail(data: Any) -> None:
        raise KeyError("no such thing")

    return app


def worker() -> LocalWorker:
    return LocalWorker(api_config(), application=backend_methods())


async def test_a_backend_calls_handlers_that_get_values_or_text():
    async with worker().open() as one:
        assert await call(one, "rpc", method="double", params=[1]) == {"data": [1, 1]}
        assert await call(one, "rpc", method="given") == {"data": {"given": None}}
        answer = await post(one, "rpc", b'{"method":"raw","params":{"a":1.50,"a":1E400}}')
        assert answer.body == b'{"result":{"data":{"a":1.50,"a":1E400}}}'
        assert one.counters.errors["handler"] == 0


async def test_handlers_for_clients_and_for_backends_are_apart():
    async with worker().open() as one:
        assert await code_of(one, "rpc", method="for_clients") == 104
        caller = await entered(one)
        assert (await ask(caller, "rpc", method="double", data=1))["error"]["code"] == 104
        assert (await ask(caller, "rpc", method="for_clients"))["rpc"] == {"data": "a client's"}


async def test_an_error_of_a_handler_is_the_error_of_the_answer():
    async with worker().open() as one:
        answer = await post(one, "rpc", {"method": "refuse"})
        assert answer.json == {"error": {"code": 1000, "message": "not today"}}
        assert one.counters.errors["handler"] == 0


@pytest.mark.parametrize("method", ["fail", "close"])
async def test_what_a_handler_raises_for_nobody_is_error_100_counted_and_logged(method: str):
    async with worker().open() as one:
        with capture_logs() as logs:
            assert await code_of(one, "rpc", method=method) == 100
        assert one.counters.errors["handler"] == 1
        [failed] = [line for line in logs if line["event"].endswith("handler_failed")]
        assert failed["log_level"] == "error"


async def test_calls_of_one_batch_are_answered_in_order():
    async with worker().open() as one:
        commands = [{"rpc": {"method": "double", "params": number}} for number in range(3)]
        result = await post(one, "batch", {"commands": commands})
        assert [reply["rpc"] for reply in result.json["replies"]] == [
            {"data": 0}, {"data": 2}, {"data": 4},
        ]  # fmt: skip


def test_a_method_has_one_handler_of_each_kind():
    app = backend_methods()
    app.rpc("double")(lambda client, data: data)
    with pytest.raises(ValueError, match="'double' has a handler already"):
        app.rpc_from_server("double")(lambda data: data)
    with pytest.raises(TypeError, match="is for a function; 7 is none"):
        app.rpc_from_server("seven")(7)  # type: ignore[type-var]
