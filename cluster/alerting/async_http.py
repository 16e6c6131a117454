"""The requests of `http`, sent from an event loop.

Rules
- A request has one deadline for all of it. If it is cancelled, its connection is closed.
- Unlike with `HttpService`, redirects are not followed and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio

import aiohttp

from cluster.alerting.http import Answer, HttpEndpoint, HttpRequest


class AsyncHttpService:
    """Sends requests to one endpoint over the connections of a session, which stays the caller's."""

    def __init__(self, endpoint: HttpEndpoint, session: aiohttp.ClientSession) -> None:
        self._endpoint = endpoint
        self._session = session

    async def ask(self, request: HttpRequest[Answer]) -> Answer:
        """The answer to a request.

        Raises:
            NotAnswering: if there is none.
        """
        endpoint = self._endpoint
        address = endpoint.address(request)
        try:
            async with (
                asyncio.timeout(endpoint.timeout_seconds),
                self._session.request(
                    request.method,
                    address,
                    data=request.body,
                    headers={**request.headers, **endpoint.credentials},
                    allow_redirects=False,
                ) as response,
            ):
                body = await self._body(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise endpoint.unreachable(error) from None
        return endpoint.answer(request, response.status, body)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._endpoint.max_bytes:
                raise self._endpoint.too_large
        return bytes(body)
