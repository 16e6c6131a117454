"""docker/tls.yml: https and wss in front of the containers, and a renewal."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from tests.compose.stack import Stack
from tests.harness.certificates import write_certificate
from tests.harness.waiting import until_async

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


async def serial_number(port: int) -> int:
    """Of the certificate at a port."""
    how = ssl.create_default_context()
    how.check_hostname, how.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=how)
    try:
        content = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(content).serial_number
    finally:
        writer.close()


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
            how = ssl.create_default_context(cafile=names[0])
            url = f"wss://127.0.0.1:{stack.https_port}/connection/websocket"

            async def has_a_worker() -> bool:
                try:
                    async with aiohttp.ClientSession() as session, session.ws_connect(url, ssl=how):
                        return True
                except aiohttp.WSServerHandshakeError as error:
                    return error.status != 503

            # A new nginx is healthy before Docker's DNS has told it where the replicas are.
            await until_async(has_a_worker, 30, "nginx passes clients on")
            async with aiohttp.ClientSession() as session, session.ws_connect(url, ssl=how) as one:
                await one.send_str('{"id":1,"connect":{}}')
                assert "client" in json.loads(await one.receive_str())["connect"]
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
