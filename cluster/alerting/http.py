"""One request over HTTP: its answer, or one sentence that says why there is none.

Rules
- A request is a value: what is sent, and how the answer is read. `HttpService` sends it and blocks;
  `async_http.AsyncHttpService` sends the same from an event loop.
- Only `NotAnswering` is raised: for a service that cannot be reached, for an HTTP error, and for an
  answer that cannot be understood.
- A request has a deadline, and an answer a largest size.
- Addresses of this machine are requested directly; a proxy of the environment is for the others.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlencode, urlsplit

from cluster.errors import HttpStatusError, NotAnswering
from cluster.url_credentials import authorized, without_credentials

ANSWERED_WITHIN_SECONDS: Final = 5.0
_SHOWN_CHARACTERS: Final = 200
_CHUNK_BYTES: Final = 1 << 16
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NOT_UNDERSTOOD: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class HttpRequest(Generic[Answer]):
    """What is sent, and how the answer is read.

    Attributes:
        read: makes the answer from the body; a KeyError, IndexError, TypeError, ValueError or
            AttributeError of it means that the body has not the documented shape.
        document: sent as JSON; None for no body.
        accepted: HTTP errors that count as done; the body is read all the same.
    """

    method: str
    path: str
    read: Callable[[bytes], Answer]
    params: Mapping[str, str] = field(default_factory=dict)
    document: Any = None
    accepted: frozenset[int] = frozenset()

    @property
    def target(self) -> str:
        """Path and query."""
        return self.path + (f"?{urlencode(self.params)}" if self.params else "")

    @property
    def body(self) -> bytes | None:
        return None if self.document is None else json.dumps(self.document).encode()

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.document is None else {"Content-Type": "application/json"}


def as_json(read: Callable[[Any], Answer]) -> Callable[[bytes], Answer]:
    """A reader of bodies from a reader of JSON documents."""
    return lambda body: read(json.loads(body))


def nothing(_: bytes) -> None:
    """Read an answer whose body has no meaning."""


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """The address of a service, the limits of a request to it, and the sentences about its failures.

    Attributes:
        name: what a person calls it.
        url: without a final slash; its user and password are sent as a header, and are in no error.
        hint: what to do when it does not answer.
    """

    name: str
    url: str
    hint: str = ""
    timeout_seconds: float = ANSWERED_WITHIN_SECONDS
    max_bytes: int = 64 << 20

    @property
    def shown(self) -> str:
        """The URL as errors show it."""
        return without_credentials(self.url)

    @property
    def credentials(self) -> dict[str, str]:
        """The header with the credentials of the URL, if it has any."""
        return authorized(self.url)[1]

    def address(self, request: HttpRequest[Any]) -> str:
        """The URL of a request, without credentials.

        Raises:
            NotAnswering: if the endpoint's own URL cannot be used.
        """
        if not self.url:
            raise NotAnswering(f"{self.name} has no address" + self._then())
        try:
            address = authorized(self.url)[0] + request.target
            parts = urlsplit(address)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_usable = False
        if not is_usable:
            raise NotAnswering(
                f"{self.shown!r} is no address of {self.name}: give one such as http://localhost:9090"
            )
        return address

    def answer(self, request: HttpRequest[Answer], status: int, body: bytes) -> Answer:
        """Read what the service answered.

        Raises:
            NotAnswering: if it is an HTTP error or cannot be understood.
        """
        if not 200 <= status < 300 and status not in request.accepted:
            text = body.decode("utf-8", "replace")
            said = _sentence(text)
            raise HttpStatusError(
                f"{self.name} at {self.shown} answered {status} to {request.method} {request.path}"
                + (f": {said}" if said else ""),
                status,
                text,
            )
        try:
            return request.read(body)
        except json.JSONDecodeError:
            raise self.malformed(request.path, "no JSON") from None
        except _NOT_UNDERSTOOD as error:
            why = str(error) if isinstance(error, ValueError) else repr(error)
            raise self.malformed(request.path, why) from None

    def malformed(self, path: str, why: str) -> NotAnswering:
        """The error for an answer that has not the documented shape."""
        return NotAnswering(
            f"{self.name} at {self.shown} gave an answer to {path} that cannot be understood ({why}):"
            f" check that this is the address of {self.name}"
        )

    def unreachable(self, error: Exception) -> NotAnswering:
        """The error for a service that cannot be reached."""
        return NotAnswering(
            f"{self.name} at {self.shown} cannot be reached ({self._reason(error)})" + self._then()
        )

    @property
    def too_large(self) -> ValueError:
        return ValueError(f"its answer is larger than {self.max_bytes} bytes")

    def _then(self) -> str:
        return f": {self.hint}" if self.hint else ""

    def _reason(self, error: Exception) -> str:
        inner = getattr(error, "reason", None) or getattr(error, "os_error", None) or error
        if isinstance(inner, TimeoutError):
            return f"no answer within {self.timeout_seconds:g} s"
        return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)


@dataclass(frozen=True, slots=True)
class HttpService(HttpEndpoint):
    """Sends requests and blocks until they are answered."""

    def ask(self, request: HttpRequest[Answer]) -> Answer:
        """The answer to a request.

        Raises:
            NotAnswering: if there is none.
        """
        address = self.address(request)
        sent = urllib.request.Request(  # noqa: S310 - `address` allows only http and https
            address, request.body, request.headers, method=request.method
        )
        for name, value in self.credentials.items():
            # They are not for the server to which this one may redirect.
            sent.add_unredirected_header(name.capitalize(), value)
        deadline = time.monotonic() + self.timeout_seconds
        try:
            with _opener(address).open(sent, timeout=self.timeout_seconds) as response:
                status, body = response.status, self._body(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                status, body = error.code, self._error_body(error, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.unreachable(error) from None
        return self.answer(request, status, body)

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON answer to a GET."""
        return self.ask(HttpRequest("GET", path, json.loads, params or {}))

    def text(self, path: str) -> str:
        """The answer to a GET, as text."""
        return self.ask(HttpRequest("GET", path, lambda body: body.decode("utf-8", "replace")))

    def post(self, path: str, document: Any) -> Any:
        """The JSON answer to a POST of a JSON document; None if the answer is empty or plain text."""
        return self.ask(HttpRequest("POST", path, _json_or_none, document=document))

    def delete(self, path: str) -> None:
        """Send a DELETE."""
        self.ask(HttpRequest("DELETE", path, nothing))

    def _body(self, response: Any, deadline: float) -> bytes:
        body = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > self.max_bytes:
                raise self.too_large
            if time.monotonic() > deadline:
                raise TimeoutError
        return bytes(body)

    def _error_body(self, response: Any, deadline: float) -> bytes:
        """What an HTTP error says; empty if it cannot be read."""
        try:
            return self._body(response.fp, deadline)
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            return b""


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _opener(address: str) -> urllib.request.OpenerDirector:
    if urlsplit(address).hostname in _LOCAL_HOSTS:
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def _sentence(body: str) -> str:
    """The sentence inside an error's body, on one line."""
    try:
        document = json.loads(body)
    except ValueError:
        document = body
    if isinstance(document, dict):
        document = document.get("error") or document.get("message") or document
    return " ".join(str(document).split())[:_SHOWN_CHARACTERS]
