"""The server API gets requests made of its own OpenAPI document, right ones and wrong ones: it answers all.

No answer is a 500, no fault is logged as internal, and an answer has the shape that the document says.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cluster.api.method_table import API_TABLE
from cluster.api.openapi import document
from cluster.methods import API_METHODS
from tests.unit.api_workers import two_workers
from tests.unit.test_server_api import KEY

REQUESTS = 25
CODES = {100, 102, 104, 107, 108, 112, 113}

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
CHANNELS = st.sampled_from(
    ["kept:a", "news", "nowhere:a", "", "$kept:b", "é", "x" * 300, "kept:#1"]
)


def of_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of the schemas that the document uses for members."""
    kind = schema.get("type")
    if kind == "integer":
        edges = st.sampled_from([schema["minimum"], schema["maximum"], 0, 1, 10])
        return edges | st.integers(schema["minimum"], schema["maximum"])
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        return st.lists(CHANNELS | st.text(max_size=10), max_size=5)
    if kind == "object" and "properties" in schema:
        members = {name: of_schema(each) for name, each in schema["properties"].items()}
        return st.fixed_dictionaries({}, optional=members)
    if kind == "object":
        return st.dictionaries(st.sampled_from(["code", "reason", "a"]), ANY_JSON, max_size=3)
    if kind == "string":
        return (
            CHANNELS | st.text(max_size=20) | st.sampled_from(["MQ==", "e30=", "*", "[", "[a-z]*"])
        )
    return ANY_JSON


def members_of(method: str) -> st.SearchStrategy[dict[str, Any]]:
    path = document()["paths"][f"/api/{method}"]["post"]
    schema = path["requestBody"]["content"]["application/json"]["schema"]
    right = {name: of_schema(each) for name, each in schema["properties"].items()}
    wrong = {name: strategy | ANY_JSON for name, strategy in right.items()}
    required = schema.get("required", [])
    return st.fixed_dictionaries(
        {name: right[name] for name in required},
        optional={name: one for name, one in right.items() if name not in required},
    ) | st.fixed_dictionaries({}, optional=wrong)


def requests_of(method: str) -> st.SearchStrategy[Any]:
    if method != "batch":
        return members_of(method) | ANY_JSON
    commands = st.sampled_from([name for name in API_METHODS if name != "batch"]).flatmap(
        lambda name: st.fixed_dictionaries({name: members_of(name)})
    )
    return st.fixed_dictionaries(
        {"commands": st.lists(commands | ANY_JSON, max_size=5)}, optional={"parallel": ANY_JSON}
    )


def check_error(error: dict[str, Any]) -> None:
    assert set(error) == {"code", "message"}
    assert error["code"] in CODES
    assert error["message"]


async def answered(method: str, requests: list[Any]) -> None:
    async with two_workers() as (one, two), aiohttp.ClientSession() as http:
        for request in requests:
            url = f"http://127.0.0.1:{one.port}/api/{method}"
            async with http.post(url, json=request, headers={"X-API-Key": KEY}) as response:
                assert response.status in {200, 400}
                if response.status == 400:
                    assert type(request) is not dict
                    continue
                body = await response.json()
            if "error" in body:
                check_error(body["error"])
                continue
            result = body if method == "batch" else body["result"]
            assert set(API_TABLE[method].result.get("required", ())) <= set(result)
            for reply in result.get("replies", ()):
                if "error" in reply:
                    check_error(reply["error"])
        for each in (one, two):
            assert each.counters.errors["internal"] == 0
            assert each.counters.api_errors["other"] == 0


@pytest.mark.parametrize("method", API_METHODS)
def test_every_request_is_answered(method: str):
    @settings(
        max_examples=4,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    @given(st.lists(requests_of(method), min_size=REQUESTS, max_size=REQUESTS))
    def fuzz(requests: list[Any]) -> None:
        asyncio.run(answered(method, requests))

    fuzz()
