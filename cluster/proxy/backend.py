"""One endpoint of a backend: an event goes there as JSON with POST, and its answer comes back.

Source of the shapes: https://centrifugal.dev/docs/server/proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

import aiohttp
import msgspec
import orjson

from cluster import data_url, json_text
from cluster.application import ApplicationDisconnect, ApplicationError
from cluster.config import ProxyOptions
from cluster.errors import ClusterError
from cluster.url_credentials import authorized, without_credentials

#: A longer answer is refused, so that a backend cannot fill a worker's memory.
MOST_BYTES: Final = 1_048_576


class BackendFailed(ClusterError):
    """The backend gave no answer that can be used; the client gets error 100."""


class _Error(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""
    temporary: bool = False


class _Close(msgspec.Struct, gc=False):
    code: int = 0
    reason: str = ""


class _Result(TypedDict, total=False):
    user: str
    expired: bool
    expire_at: int | None
    info: msgspec.Raw
    b64info: str | None
    data: msgspec.Raw
    b64data: str | None
    channels: list[str] | None
    subs: msgspec.Raw
    meta: msgspec.Raw
    override: dict[str, Any] | None
    skip_history: bool


class _Answer(TypedDict, total=False):
    result: _Result | None
    error: _Error | None
    disconnect: _Close | None


_ANSWER: Final[json_text.JsonDecoder[dict[str, Any]]] = json_text.JsonDecoder(
    _Answer, replaces_surrogates=True
)


class Result:
    """What a backend has answered; members that are absent or null are empty."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def get(self, name: str, otherwise: Any = None) -> Any:
        value = self._members.get(name)
        return otherwise if value is None else value

    def text(self, name: str) -> bytes:
        """The JSON text of a member, or of its `b64…`, which has precedence; b"" if there is none.

        Raises:
            ValueError: it is not base64, or nested too deeply.
        """
        if encoded := self._members.get(f"b64{name}"):
            return data_url.of_base64(encoded)
        raw = bytes(self._members.get(name, b""))
        return json_text.checked(raw) if raw not in {b"", b"null"} else b""


class Backend:
    """One endpoint.

    Args:
        session: makes the requests.
    """

    def __init__(self, options: ProxyOptions, session: aiohttp.ClientSession) -> None:
        self._url, self._credentials = authorized(options.endpoint)
        self._shown = without_credentials(options.endpoint)
        self._timeout = aiohttp.ClientTimeout(total=options.timeout)
        self._static = dict(options.http.static_headers)
        self._passed_on = tuple(name.lower() for name in options.http_headers)
        self._emulated = tuple(name.lower() for name in options.emulated_headers)
        self._session = session

    async def ask(
        self, event: Mapping[str, Any], headers: Mapping[str, str], emulated: Mapping[str, str]
    ) -> Result:
        """Send an event; returns the result.

        Args:
            headers: of the client's handshake; of those with one name they have precedence over `emulated`,
                which the client writes as it likes, and the proxy's own over both.

        Raises:
            BackendFailed: there is no answer, or none that can be used.
            ApplicationError, ApplicationDisconnect: what the backend answers the client.
        """
        passed_on = {name: emulated[name] for name in self._emulated if name in emulated}
        passed_on |= {name: headers[name] for name in self._passed_on if name in headers}
        try:
            async with self._session.post(
                self._url,
                data=orjson.dumps(event),
                headers={
                    **passed_on,
                    **self._credentials,
                    **self._static,
                    "Content-Type": "application/json",
                },
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise BackendFailed(f"{self._shown} has answered {response.status}")
                body = await self._body(response)
        except TimeoutError:
            raise BackendFailed(f"{self._shown} has not answered in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BackendFailed(f"{self._shown} cannot be reached: {error}") from None
        return self._read(body)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MOST_BYTES:
                raise BackendFailed(f"{self._shown} has answered with more than {MOST_BYTES} bytes")
        return bytes(body)

    def _read(self, body: bytes) -> Result:
        try:
            answer = _ANSWER.decode(body)
        except json_text.JsonTextInvalid as why:
            raise BackendFailed(f"{self._shown} has answered what cannot be read: {why}") from None
        error, close = answer.get("error"), answer.get("disconnect")
        try:
            if error is not None:
                raise ApplicationError(error.code, error.message, temporary=error.temporary)
            if close is not None:
                raise ApplicationDisconnect(close.code, close.reason)
        except ValueError as why:
            raise BackendFailed(f"{self._shown}: {why}") from None
        result = answer.get("result")
        if result is None:
            raise BackendFailed(f"{self._shown} has answered without result, error and disconnect")
        return Result(result)
