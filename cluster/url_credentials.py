"""Credentials in the URLs of services: sent as a header, and never shown.

- `without_credentials` is for all that is printed, linked, logged or said in an error.
- `authorized` is for requests: a library that gets a URL with a password may repeat it in its errors, and
  urllib takes the password for a part of the host.
"""

from __future__ import annotations

import base64
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

_STARS = "***"


def without_credentials(url: str, *, keeps_query: bool = False) -> str:
    """The URL without user, password and query, which may hold a token; stars for what cannot be read.

    Args:
        keeps_query: for a link, whose query is for the reader.
    """
    try:
        parts = urlsplit(url)
        is_readable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_readable = False
    if not is_readable:
        before, is_cut, after = url.rpartition("@")
        # The rest of a password may stand anywhere before the last @.
        shown = f"{_STARS}@{after}" if is_cut and before else url
        return shown if keeps_query else shown.partition("?")[0].partition("#")[0]
    parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(parts if keeps_query else parts._replace(query="", fragment=""))


def authorized(url: str) -> tuple[str, dict[str, str]]:
    """The URL without user and password, and the header that says the same (RFC 7617, section 2).

    Raises:
        ValueError: if it cannot be read.
    """
    parts = urlsplit(url)
    user_info, is_given, host = parts.netloc.rpartition("@")
    if not is_given:
        return url, {}
    user, _, password = user_info.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    header = f"Basic {base64.b64encode(pair).decode('ascii')}"
    # Lower case, as the names of a client's headers that are passed on.
    return urlunsplit(parts._replace(netloc=host)), {"authorization": header}
