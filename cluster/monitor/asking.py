"""One question over HTTP, one JSON answer or one sentence that says why there is none.

Rules
- Only `NotAnswering` leaves this module: not reachable, an HTTP error, an answer that is no JSON.
- Addresses of this machine are asked directly; a proxy of the environment is for the others.
- A question has a deadline, and an answer a largest size.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from cluster.monitor.faults import NotAnswering

TIMEOUT_SECONDS: Final = 5.0
_MOST_BYTES: Final = 64 << 20
_SHOWN_CHARACTERS: Final = 200
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Refused(NotAnswering):
    """The service answered with an HTTP error.

    Attributes:
        status: the HTTP status.
        body: what it said.
    """

    def __init__(self, text: str, status: int, body: str) -> None:
        super().__init__(text)
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Service:
    """Somebody who answers questions.

    Attributes:
        name: what a person calls it.
        url: its address, without a final slash.
        hint: what to do when it does not answer.
    """

    name: str
    url: str
    hint: str = ""

    def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        """The JSON answer to a GET."""
        return self._json("GET", path + (f"?{urlencode(params)}" if params else ""), None)

    def text(self, path: str) -> str:
        """The answer to a GET, as text."""
        return self._asked("GET", path, None).decode("utf-8", "replace")

    def post(self, path: str, document: Any) -> Any:
        """The JSON answer to a POST of a JSON document; None if the answer is empty or plain text."""
        body = self._asked("POST", path, json.dumps(document).encode())
        try:
            return json.loads(body)
        except ValueError:
            return None

    def delete(self, path: str) -> None:
        """A DELETE that has been carried out."""
        self._asked("DELETE", path, None)

    def _json(self, method: str, path: str, body: bytes | None) -> Any:
        try:
            return json.loads(self._asked(method, path, body))
        except ValueError:
            raise self.malformed(path, "no JSON") from None

    def malformed(self, path: str, why: str) -> NotAnswering:
        """The error that says an answer makes no sense."""
        return NotAnswering(
            f"{self.name} at {self.url} gave an answer to {path.partition('?')[0]} that cannot be"
            f" understood ({why}): check that this address is {self.name}'s"
        )

    def _asked(self, method: str, path: str, body: bytes | None) -> bytes:
        address = f"{self.url}{path}"
        try:
            parts = urlsplit(address)
            usable = parts.scheme in ("http", "https") and parts.hostname
        except ValueError:
            usable = None
        if not usable:
            raise NotAnswering(
                f"{self.url!r} is no address of {self.name}: give one such as http://localhost:9090"
            )
        headers = {"Content-Type": "application/json"} if body is not None else {}
        request = urllib.request.Request(address, body, headers, method=method)  # noqa: S310 - http(s) only, see above
        try:
            with _opener(parts.hostname or "").open(request, timeout=TIMEOUT_SECONDS) as answer:
                data: bytes = answer.read(_MOST_BYTES)
                return data
        except urllib.error.HTTPError as error:
            raise self._refused(method, path, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotAnswering(
                f"{self.name} at {self.url} cannot be reached ({_reason(error)})"
                + (f": {self.hint}" if self.hint else "")
            ) from None

    def _refused(self, method: str, path: str, error: urllib.error.HTTPError) -> Refused:
        try:
            body = error.read(_MOST_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            body = ""
        finally:
            error.close()
        said = _plain(body)
        return Refused(
            f"{self.name} at {self.url} answered {error.code} to {method}"
            f" {path.partition('?')[0]}" + (f": {said}" if said else ""),
            error.code,
            body,
        )


def _opener(host: str) -> urllib.request.OpenerDirector:
    if host in _LOCAL_HOSTS:
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)


def _plain(body: str) -> str:
    """The sentence inside an error's body, on one line."""
    try:
        document = json.loads(body)
    except ValueError:
        document = body
    if isinstance(document, dict):
        document = document.get("error") or document.get("message") or document
    return " ".join(str(document).split())[:_SHOWN_CHARACTERS]
