"""The catalogue of errors, each with its code in the protocol, in HTTP or at exit.

The tree:

    ClusterError
    ├── ExitError                 ends a program; carries `exit_code`
    │   ├── ConfigError           78  bad configuration, with all its mistakes
    │   ├── DependencyMissing     69  a program or library is missing
    │   ├── BootFailed             3  a worker (or another child) cannot start
    │   ├── NotFound               1  what a command names does not exist
    │   ├── UsageError             3  an argument of a command cannot be understood
    │   └── NotAnswering           3  Prometheus, Alertmanager or another service gave no answer
    │       └── HttpStatusError       it answered with an HTTP error
    ├── ClientError               a reply with `error`; the connection stays open
    ├── Disconnect                the connection is closed with a code and a reason
    └── StoreError                the store did not execute a command
        ├── StoreUnavailable      the command was not sent, or its outcome is unknown
        │   └── StoreDenied           the store refuses the password
        └── StoreRefused          the store answered with an error

Codes and texts of replies, closes and unsubscribes are those of the Centrifuge client
protocol, so that the official SDKs react as they do with Centrifugo. A close reason is never
empty: centrifuge-js treats a terminal code with an empty reason as a reconnect.

The entries of the catalogue are values. Raise a copy of them (`raise NOT_AVAILABLE.fresh()`): an
exception that is raised repeatedly keeps the frames of each time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cluster.terminal_text import escaped


class ClusterError(Exception):
    """Base class of all errors of this program."""


# --- errors that end a program -----------------------------------------------------------


class ExitError(ClusterError):
    """Ends the program with `exit_code`; its text is one sentence that says what to do."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the configuration.

    Attributes:
        key: dotted path of the option, as written in a file.
        value: the given value as text; secrets are stars.
        allowed: a phrase that says what is allowed.
    """

    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return escaped(f"{self.key}: {self.value} is not allowed; {self.allowed}")


class ConfigError(ExitError):
    """The configuration has mistakes; `problems` lists all of them."""

    exit_code = 78

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class DependencyMissing(ExitError):
    """A program that is needed is not installed on this machine."""

    exit_code = 69


class BootFailed(ExitError):
    """A child process has failed to start too many times in a row, or in a way that will not change.

    Attributes:
        is_final: whether another attempt would end alike.
    """

    exit_code = 3

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final: Final = is_final


class NotFound(ExitError):
    """What was named does not exist; nothing was changed."""

    exit_code = 1


class UsageError(ExitError):
    """An argument of a command cannot be used."""

    exit_code = 3


class NotAnswering(ExitError):
    """A service could not be reached, or its answer could not be understood."""

    exit_code = 3


class HttpStatusError(NotAnswering):
    """The service answered with an HTTP error.

    Attributes:
        status: the HTTP status.
        body: of the answer, as text.
    """

    def __init__(self, text: str, status: int, body: str) -> None:
        super().__init__(text)
        self.status: Final = status
        self.body: Final = body


# --- errors that a client receives -------------------------------------------------------


class ClientError(ClusterError):
    """A command is answered with this error; the connection stays open."""

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        super().__init__(code, message)
        self.code: Final = code
        self.message: Final = message
        self.temporary: Final = temporary

    def fresh(self) -> ClientError:
        """A copy to raise."""
        return ClientError(self.code, self.message, temporary=self.temporary)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientError) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)

    def __str__(self) -> str:
        return f"{self.code} {self.message}"


INTERNAL = ClientError(100, "internal server error", temporary=True)
UNAUTHORIZED = ClientError(101, "unauthorized")
UNKNOWN_CHANNEL = ClientError(102, "unknown channel")
PERMISSION_DENIED = ClientError(103, "permission denied")
METHOD_NOT_FOUND = ClientError(104, "method not found")
ALREADY_SUBSCRIBED = ClientError(105, "already subscribed")
LIMIT_EXCEEDED = ClientError(106, "limit exceeded")
BAD_REQUEST = ClientError(107, "bad request")
NOT_AVAILABLE = ClientError(108, "not available")
TOKEN_EXPIRED = ClientError(109, "token expired")
EXPIRED = ClientError(110, "expired")
TOO_MANY_REQUESTS = ClientError(111, "too many requests", temporary=True)
UNRECOVERABLE_POSITION = ClientError(112, "unrecoverable position")

CLIENT_ERRORS: Final = (
    INTERNAL,
    UNAUTHORIZED,
    UNKNOWN_CHANNEL,
    PERMISSION_DENIED,
    METHOD_NOT_FOUND,
    ALREADY_SUBSCRIBED,
    LIMIT_EXCEEDED,
    BAD_REQUEST,
    NOT_AVAILABLE,
    TOKEN_EXPIRED,
    EXPIRED,
    TOO_MANY_REQUESTS,
    UNRECOVERABLE_POSITION,
)


class Disconnect(ClusterError):
    """The connection is closed with `code`; the SDKs reconnect on 3000–3499 and stop on 3500–3999."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code: Final = code
        self.reason: Final = reason

    def fresh(self) -> Disconnect:
        """A copy to raise."""
        return Disconnect(self.code, self.reason)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Disconnect) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)

    def __str__(self) -> str:
        return f"{self.code} {self.reason}"

    @property
    def is_client_fault(self) -> bool:
        """Whether the client caused it, so that it counts as a client error and not as ours."""
        return self.code in _CLIENT_FAULTS


NORMAL = Disconnect(1000, "closed by the client")
TOO_BIG = Disconnect(1009, "message too big")
BAD_TEXT = Disconnect(1007, "invalid UTF-8")
PROTOCOL_ERROR = Disconnect(1002, "WebSocket protocol error")
CONNECTION_CLOSED = Disconnect(3000, "connection closed")
SHUTDOWN = Disconnect(3001, "shutdown")
SERVER_ERROR = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED = Disconnect(3005, "connection expired")
SUBSCRIPTION_EXPIRED = Disconnect(3006, "subscription expired")
SLOW = Disconnect(3008, "slow")
WRITE_ERROR = Disconnect(3009, "write error")
INSUFFICIENT_STATE = Disconnect(3010, "insufficient state")
FORCE_RECONNECT = Disconnect(3011, "force reconnect")
NO_PONG = Disconnect(3012, "no pong")
TOO_MANY_REQUESTS_CLOSE = Disconnect(3013, "too many requests")
INVALID_TOKEN = Disconnect(3500, "invalid token")
BAD_REQUEST_CLOSE = Disconnect(3501, "bad request")
STALE = Disconnect(3502, "stale")
FORCE_DISCONNECT = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection limit")
CHANNEL_LIMIT = Disconnect(3505, "channel limit")
INAPPROPRIATE_PROTOCOL = Disconnect(3506, "inappropriate protocol")
PERMISSION_DENIED_CLOSE = Disconnect(3507, "permission denied")
NOT_AVAILABLE_CLOSE = Disconnect(3508, "not available")

DISCONNECTS: Final = (
    NORMAL,
    PROTOCOL_ERROR,
    BAD_TEXT,
    TOO_BIG,
    CONNECTION_CLOSED,
    SHUTDOWN,
    SERVER_ERROR,
    CONNECTION_EXPIRED,
    SUBSCRIPTION_EXPIRED,
    SLOW,
    WRITE_ERROR,
    INSUFFICIENT_STATE,
    FORCE_RECONNECT,
    NO_PONG,
    TOO_MANY_REQUESTS_CLOSE,
    INVALID_TOKEN,
    BAD_REQUEST_CLOSE,
    STALE,
    FORCE_DISCONNECT,
    CONNECTION_LIMIT,
    CHANNEL_LIMIT,
    INAPPROPRIATE_PROTOCOL,
    PERMISSION_DENIED_CLOSE,
    NOT_AVAILABLE_CLOSE,
)

_CLIENT_FAULTS: Final = frozenset(
    {1002, 1007, 1009, 3012, 3013, 3500, 3501, 3502, 3504, 3505, 3506, 3507, 3508}
)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Why the server ended a subscription; codes of 2500 and above make the SDK resubscribe."""

    code: int
    reason: str


SERVER_UNSUBSCRIBE = Unsubscribe(2000, "server unsubscribe")
UNSUBSCRIBE_INSUFFICIENT_STATE = Unsubscribe(2500, "insufficient state")
UNSUBSCRIBE_EXPIRED = Unsubscribe(2501, "subscription expired")

UNSUBSCRIBES: Final = (SERVER_UNSUBSCRIBE, UNSUBSCRIBE_INSUFFICIENT_STATE, UNSUBSCRIBE_EXPIRED)


# --- errors of the stores ----------------------------------------------------------------


class StoreError(ClusterError):
    """Redis or Valkey did not execute a command."""


class StoreUnavailable(StoreError):
    """There is no connection, or it broke; a command in progress may or may not have been executed.

    Do not repeat a publish after it: the publication may be in the stream already.
    """


class StoreDenied(StoreUnavailable):
    """A server refuses the user or the password; another attempt would end alike until an operator acts."""


class StoreRefused(StoreError):
    """The store answered with an error; it executed nothing."""

    @property
    def is_temporary(self) -> bool:
        """Whether a later attempt may succeed, because the error is about a passing state of the server."""
        return self.kind in _TEMPORARY_REFUSALS

    @property
    def is_denial(self) -> bool:
        """Whether the server refuses the user or the password, or wants one."""
        return self.kind in {"WRONGPASS", "NOAUTH"}

    @property
    def kind(self) -> str:
        """The first word of the error, also of one that a script passed on."""
        text = str(self)
        word = text.partition(" ")[0]
        if word == "ERR" and (inner := _SCRIPT_ERROR.search(text)):
            return inner[1]
        return word


#: How a server before Redis 7 passes on the error of a command in a script.
_SCRIPT_ERROR: Final = re.compile(r"[Ss]cript.*?: -?([A-Z]{4,}) ", re.DOTALL)

#: First words of error replies of Redis and Valkey while a server starts, a script runs for long, a replica
#: is promoted, or the cluster changes. Errors that last until an operator acts are not among them.
_TEMPORARY_REFUSALS: Final = frozenset(
    {
        "ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MOVED", "NOREPLICAS", "NOSCRIPT",
        "READONLY", "TRYAGAIN",
    }
)  # fmt: skip
