"""One question to Prometheus or Alertmanager, answered in time or not at all.

Rules
- Only `Unanswered` leaves this module; its text is one sentence an operator can act on.
- A question has a deadline, an answer a largest size; redirects are not followed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
import orjson

_SECONDS: Final = 3.0
_MOST_BYTES: Final = 8 << 20
_SHOWN: Final = 200


class Unanswered(Exception):
    """A service could not be asked, refused, or made no sense."""


class Service:
    """Somebody at `url` who speaks JSON over HTTP; an empty `url` means there is none."""

    def __init__(self, name: str, url: str, session: aiohttp.ClientSession) -> None:
        self._name = name
        self._url = url.rstrip("/")
        self._session = session

    async def get(self, path: str, **params: str) -> Any:
        """The JSON answer to a GET."""
        return await self._ask("GET", path, params=params)

    async def post(self, path: str, document: Any) -> Any:
        """The JSON answer to a POST."""
        headers = {"Content-Type": "application/json"}
        return await self._ask("POST", path, data=orjson.dumps(document), headers=headers)

    async def delete(self, path: str) -> None:
        """A DELETE that has been carried out."""
        await self._ask("DELETE", path)

    def senseless(self, error: Exception) -> Unanswered:
        """What to raise for an answer of another shape than documented."""
        return Unanswered(f"{self._name} at {self._url} gave an answer of another kind ({error!r})")

    async def _ask(self, method: str, path: str, **more: Any) -> Any:
        if not self._url:
            raise Unanswered(f"{self._name} has no address: set console.{self._name.lower()}_url")
        try:
            async with asyncio.timeout(_SECONDS):
                answer = self._session.request(
                    method, self._url + path, allow_redirects=False, **more
                )
                async with answer as response:
                    body = await _body(response)
                    status = response.status
        except TimeoutError:
            raise Unanswered(
                f"{self._name} at {self._url} did not answer within {_SECONDS:g} s"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unanswered(
                f"{self._name} at {self._url} cannot be reached ({_reason(error)})"
            ) from None
        if not 200 <= status < 300:
            said = " ".join(body.decode("utf-8", "replace").split())[:_SHOWN]
            raise Unanswered(f"{self._name} at {self._url} answered {status}: {said}")
        try:
            return orjson.loads(body) if body else None
        except orjson.JSONDecodeError as error:
            raise self.senseless(error) from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise ValueError(f"its answer is larger than {_MOST_BYTES} bytes")
    return bytes(body)


def _reason(error: Exception) -> str:
    inner = getattr(error, "os_error", error)
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)
