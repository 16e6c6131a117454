"""Clients of an nginx with a certificate that a test has made."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from cryptography import x509

from tests.harness.waiting import until_async


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


@asynccontextmanager
async def connected(port: int, certificate: Path) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A client that trusts this certificate and is connected, as soon as nginx passes clients on."""
    how = ssl.create_default_context(cafile=str(certificate))
    url = f"wss://127.0.0.1:{port}/connection/websocket"

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
        yield one
