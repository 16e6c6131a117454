"""schemathesis reads the OpenAPI document through nginx and calls every operation, rightly and wrongly."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from cluster.api.method_table import API_TABLE
from tests.harness.cluster import Cluster

KEY = "a-key-that-is-long-enough-for-everything"
CONFIG = {
    "http_api": {"key": KEY},
    # Most names that are made up have no namespace: they are read with success.
    "channel": {"without_namespace": {"presence": True}},
}
OPERATIONS = len(API_TABLE) + sum(method.is_readable for method in API_TABLE.values())
WITHIN_SECONDS = 150
#: Of all checks of schemathesis these are left out: an error of the API is 200 unless a status is asked for;
PLAIN = ["--exclude-checks", "negative_data_rejection"]
#: then null, which counts as absent, and strings that name no channel or handler are not for a schema.
TRANSPORT = [
    "--exclude-checks",
    "negative_data_rejection,positive_data_acceptance",
    "--header",
    "X-Centrifugo-Error-Mode: transport",
]


@pytest.mark.slow
@pytest.mark.parametrize("how", [PLAIN, TRANSPORT], ids=["plain", "transport"])
async def test_the_api_does_what_its_document_says_and_nothing_is_a_500(
    cluster: Cluster, tmp_path: Path, how: list[str]
):
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"), "run",
        f"http://127.0.0.1:{cluster.port}/api/openapi.json", "--header", f"X-API-Key: {KEY}",
        "--max-examples", "25", "--generation-deterministic", "--no-color", *how,
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output[-8000:]
    tested = re.search(r"Tested: (\d+)", output)
    assert tested is not None, output
    assert int(tested[1]) == OPERATIONS
    await cluster.shows("app_errors_total", 0)
