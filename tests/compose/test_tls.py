"""docker/tls.yml: https and wss in front of the containers, and a renewal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compose.stack import Stack
from tests.compose.wss import connected, serial_number
from tests.harness.certificates import write_certificate
from tests.harness.waiting import until_async

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


async def test_clients_connect_over_tls_and_a_renewal_moves_nobody(stack: Stack, tmp_path: Path):
    files = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    names = [str(path) for path in files]
    first = write_certificate(*files)
    try:
        async with stack.also(stack.folder / "tls.yml"):
            done = await stack.script("renew-certificate.sh", *names)
            assert done.returncode == 0, done.stderr
            await stack.up(2)
            assert await serial_number(stack.https_port) == first
            async with connected(stack.https_port, files[0]) as one:
                second = write_certificate(*files)
                done = await stack.script("renew-certificate.sh", *names)
                assert done.returncode == 0, done.stderr

                async def is_new() -> bool:
                    return await serial_number(stack.https_port) == second

                await until_async(is_new, 30, "nginx has the new certificate")
                await one.send_str('{"id":2,"publish":{"channel":"tls","data":{}}}')
                replies = [json.loads(await one.receive_str())]
                while replies[-1].get("id") != 2:
                    await one.send_str("{}")
                    replies.append(json.loads(await one.receive_str()))
    finally:
        for name in ("tls_certificate", "tls_key"):
            (stack.folder / "secrets" / name).unlink(missing_ok=True)
