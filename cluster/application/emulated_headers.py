"""Headers that a client sends in its connect command, because a browser cannot set those of a handshake.

Each is what the client likes: only the names that an application or a proxy asks for are read, and they
stand beside the headers of the handshake, never among them. Values are bounded, and of printable
characters, so that none becomes two headers of a request to a backend.

Source: https://centrifugal.dev/docs/transports/websocket, headers emulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cluster.command_params import NO_HEADERS
from cluster.errors import BAD_REQUEST

#: Of names and values together, for each connection: as much as servers take as the headers of a request.
MOST_BYTES: Final = 8192


def emulated_headers(sent: Mapping[str, str | None], names: Iterable[str]) -> Mapping[str, str]:
    """Return the headers with these names, in lower case; others are neither read nor kept.

    Raises:
        ClientError: 107 if they are larger than `MOST_BYTES`, or if one has a character that cannot be printed.
    """
    if not sent or not names:
        return NO_HEADERS
    lowered = {name.lower(): value for name, value in sent.items() if value}
    kept = {name: lowered[name] for name in names if name in lowered}
    if not all(value.isprintable() for value in kept.values()):
        raise BAD_REQUEST.fresh()
    if sum(len(name) + len(value.encode()) for name, value in kept.items()) > MOST_BYTES:
        raise BAD_REQUEST.fresh()
    return kept or NO_HEADERS
