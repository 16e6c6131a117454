"""Commands that make and check a team's keys and tokens: genconfig, gentoken, checktoken.

Tokens and keys go to standard output, or to a file that only its owner may read; what is said about
them goes to standard error, so that `token=$(ws-cluster gentoken …)` works.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import secrets
import sys
import time
from typing import Any, Final

import jwt
import orjson

from cluster import auth, config, json_text
from cluster.durations import seconds_of, time_for_people
from cluster.errors import ClientError, Disconnect, NotFound, UsageError

#: Bytes of a new key; HS512 wants 64 (RFC 7518 §3.2). In URL-safe base64 they are 86 characters.
KEY_BYTES: Final = 64
_DEFAULT_TTL: Final = "7d"
_MAXIMUM_TTL_SECONDS: Final = 36_500 * 86_400

_PRODUCTION = """\
# Made by ws-cluster genconfig. It holds secrets: keep it out of version control.
# Every option: docs/reference/config.md. Check a change with ws-cluster check-config.

[client]
# Pages that may connect, for example ["https://www.example.com"]; programs without an Origin may always.
allowed_origins = []

[client.token]
# Signs the tokens of your users: ws-cluster gentoken makes one.
hmac_secret_key = "{token}"

[admin]
# What the console asks for before it changes something.
key = "{admin}"

[http_api]
key = "{api}"

# Channels of the namespace "chat", such as "chat:42", keep their last publications for clients that come back.
[[channel.namespaces]]
name = "chat"
history_size = 100
history_ttl = "5m"
allow_positioning = true
allow_recovery = true
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser of `ws-cluster`."""
    generate = commands.add_parser(
        "genconfig", help="write a configuration for production, with new keys"
    )
    generate.set_defaults(run=_genconfig)
    generate.add_argument(
        "file", metavar="FILE", nargs="?", default="ws-cluster.toml",
        help="file to write; it must not exist (default ws-cluster.toml)",
    )  # fmt: skip

    token = commands.add_parser("gentoken", help="make a connection token, to try a client with")
    token.set_defaults(run=_gentoken)
    _add_config(token)
    token.add_argument("--user", default="", metavar="ID", help="the user; anonymous if left out")
    token.add_argument(
        "--ttl", default=_DEFAULT_TTL, metavar="DURATION",
        help=f"how long it is valid, such as 1h; 0 is for ever (default {_DEFAULT_TTL})",
    )  # fmt: skip
    token.add_argument("--info", metavar="JSON", help="what other clients see of the user")

    check = commands.add_parser(
        "checktoken", help="say whether a connection token is accepted, and what it says"
    )
    check.set_defaults(run=_checktoken)
    _add_config(check)
    check.add_argument("token", metavar="TOKEN", help="the token; - reads it from standard input")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="TOML or JSON file that has client.token.hmac_secret_key"
    )


def _genconfig(arguments: argparse.Namespace) -> int:
    text = _PRODUCTION.format(**{name: _new_key() for name in ("token", "admin", "api")})
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(arguments.file, flags, 0o600), "w") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(
            f"{arguments.file} exists and was not changed; name another file"
        ) from None
    except OSError as error:
        raise UsageError(f"{arguments.file} cannot be written: {error.strerror}") from None
    _say(f"{arguments.file} is written; start with: ws-cluster up --config {arguments.file}")
    return 0


def _new_key() -> str:
    return secrets.token_urlsafe(KEY_BYTES)


def _gentoken(arguments: argparse.Namespace) -> int:
    key = _settings(arguments).client.token.hmac_secret_key
    now = int(time.time())
    claims: dict[str, Any] = {"sub": arguments.user, "iat": now}
    ttl = _ttl(arguments.ttl)
    if ttl:
        claims["exp"] = now + ttl
    if arguments.info is not None:
        claims["info"] = _info(arguments.info)
    try:
        payload = orjson.dumps(claims)
    except orjson.JSONEncodeError:
        raise UsageError("--user must be text in UTF-8") from None
    sys.stdout.write(jwt.PyJWS().encode(payload, key, algorithm="HS256") + "\n")
    who = f"user {json.dumps(arguments.user)}" if arguments.user else "an anonymous user"
    until = f"until {time_for_people(now + ttl)}" if ttl else "for ever"
    _say(f"a connection token for {who}, valid {until}")
    return 0


def _ttl(text: str) -> int:
    try:
        seconds = seconds_of(text)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from None
    if not (seconds == 0 or 1 <= seconds <= _MAXIMUM_TTL_SECONDS):
        raise UsageError(f"--ttl: {text} is not allowed; write 1s to 36500d, or 0 for ever")
    return int(seconds)


def _info(text: str) -> orjson.Fragment:
    """The text as it is: other clients get it byte for byte."""
    try:
        return orjson.Fragment(json_text.checked(text.encode()))
    except ValueError as error:
        raise UsageError(f"--info must be JSON: {error}") from None


def _checktoken(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    # In insecure mode a worker accepts more; asked is what the token is worth.
    client = dataclasses.replace(settings.client, insecure=False)
    settings = dataclasses.replace(settings, client=client)
    token = arguments.token
    if token == "-":  # noqa: S105 - a dash, no password
        token = sys.stdin.read().strip()
    try:
        claims = auth.authenticate(token, settings, time.time())
    except ClientError:
        raise NotFound("the token has expired or is not valid yet") from None
    except Disconnect:
        raise NotFound(
            "the token is not accepted: it is malformed, not signed with"
            " client.token.hmac_secret_key, or no connection token"
        ) from None
    until = f"until {time_for_people(claims.expires_at)}" if claims.expires_at else "for ever"
    sys.stdout.write(f"user {json.dumps(claims.user)}, valid {until}\n")
    return 0


def _settings(arguments: argparse.Namespace) -> config.Config:
    settings = config.load(arguments.config, env=os.environ)
    if not settings.client.token.hmac_secret_key:
        raise UsageError(
            "no client.token.hmac_secret_key is configured: name a file that has one with --config;"
            " ws-cluster genconfig writes one"
        )
    return settings


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
