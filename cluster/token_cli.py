"""Commands that make and check a team's keys and tokens: genconfig, gentoken, gensubtoken and checks.

Tokens and keys go to standard output, or to a file that only its owner may read; what is said about
them goes to standard error, so that `token=$(ws-cluster gentoken …)` works.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import sys
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import orjson

from cluster import config, json_text
from cluster.auth import Authenticator, Claims, SubscriptionClaims, token_signing
from cluster.config.public_keys import has_keys
from cluster.durations import seconds_of, time_for_people
from cluster.errors import ClientError, Disconnect, NotFound, UsageError
from cluster.metrics.counters import Counters

T = TypeVar("T")

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

# Channels of the namespace "chat", such as "chat:42". Their last publications are kept for clients that come
# back. Every user may subscribe; a subscriber may publish, and read the history and the presence. Without
# these options no user may: docs/how-to/namespaces.md.
[[channel.namespaces]]
name = "chat"
history_size = 100
history_ttl = "5m"
presence = true
allow_positioning = true
allow_recovery = true
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
allow_presence_for_subscriber = true
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
    _add_signing(token)
    token.add_argument("--info", metavar="JSON", help="what other clients see of the user")
    token.add_argument("--meta", metavar="JSON", help="an object for the application alone")
    token.add_argument(
        "--channel", action="append", default=[], metavar="NAME", dest="channels",
        help="a channel that the server subscribes the connection to; may be repeated",
    )  # fmt: skip

    subscription = commands.add_parser(
        "gensubtoken", help="make a subscription token, to try a client with"
    )
    subscription.set_defaults(run=_gensubtoken)
    _add_signing(subscription)
    subscription.add_argument("--channel", required=True, metavar="NAME", help="the channel")
    subscription.add_argument(
        "--info", metavar="JSON", help="what other clients see of the user in this channel"
    )
    subscription.add_argument("--data", metavar="JSON", help="what the client gets with its reply")

    for name, kind, run in (
        ("checktoken", "connection", _checktoken),
        ("checksubtoken", "subscription", _checksubtoken),
    ):
        check = commands.add_parser(
            name, help=f"say whether a {kind} token is accepted, and what it says"
        )
        check.set_defaults(run=run)
        _add_config(check)
        check.add_argument(
            "token", metavar="TOKEN", help="the token; - reads it from standard input"
        )


def _add_signing(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--user", default="", metavar="ID", help="the user; anonymous if left out")
    parser.add_argument(
        "--ttl", default=_DEFAULT_TTL, metavar="DURATION",
        help=f"how long it is valid, such as 1h; 0 is for ever (default {_DEFAULT_TTL})",
    )  # fmt: skip
    parser.add_argument("--id", default="", metavar="TEXT", help="the token's id (jti)")
    parser.add_argument(
        "--algorithm", choices=token_signing.ALGORITHMS, metavar="NAME",
        help="such as HS512 or ES256; by default the first that the key has",
    )  # fmt: skip
    parser.add_argument(
        "--private-key", metavar="FILE",
        help="sign with this key, in PEM, and not with the secret of the configuration",
    )  # fmt: skip
    parser.add_argument("--key-id", metavar="TEXT", help="the key's name in a key set (kid)")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="TOML or JSON file that has the keys of client.token"
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
    options = _settings(arguments).client.token
    claims = _registered(arguments, options)
    if arguments.info is not None:
        claims["info"] = _json(arguments.info, "--info")
    if arguments.meta is not None:
        claims["meta"] = _json(arguments.meta, "--meta")
    if arguments.channels:
        claims["channels"] = arguments.channels
    return _write(claims, arguments, options, "connection")


def _gensubtoken(arguments: argparse.Namespace) -> int:
    options = _subscription_options(_settings(arguments))
    claims = {**_registered(arguments, options), "channel": arguments.channel}
    for name in ("info", "data"):
        text = getattr(arguments, name)
        if text is not None:
            claims[name] = _json(text, f"--{name}")
    return _write(claims, arguments, options, "subscription")


def _registered(arguments: argparse.Namespace, options: config.TokenConfig) -> dict[str, Any]:
    now = int(time.time())
    claims: dict[str, Any] = {"sub": arguments.user, "iat": now}
    if ttl := _ttl(arguments.ttl):
        claims["exp"] = now + ttl
    if arguments.id:
        claims["jti"] = arguments.id
    if options.audience:
        claims["aud"] = options.audience
    if options.issuer:
        claims["iss"] = options.issuer
    return claims


def _write(
    claims: dict[str, Any], arguments: argparse.Namespace, options: config.TokenConfig, kind: str
) -> int:
    try:
        payload = orjson.dumps(claims)
    except orjson.JSONEncodeError:
        raise UsageError("the arguments must be text in UTF-8") from None
    key = token_signing.signing_key(options, arguments.private_key, arguments.algorithm)
    sys.stdout.write(token_signing.signed(payload, key, arguments.key_id) + "\n")
    who = f"user {json.dumps(arguments.user)}" if arguments.user else "an anonymous user"
    where = f" and channel {json.dumps(claims['channel'])}" if "channel" in claims else ""
    until = f"until {time_for_people(claims['exp'])}" if "exp" in claims else "for ever"
    _say(f"a {kind} token for {who}{where}, valid {until}")
    return 0


def _ttl(text: str) -> int:
    try:
        seconds = seconds_of(text)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from None
    if not (seconds == 0 or 1 <= seconds <= _MAXIMUM_TTL_SECONDS):
        raise UsageError(f"--ttl: {text} is not allowed; write 1s to 36500d, or 0 for ever")
    return int(seconds)


def _json(text: str, option: str) -> orjson.Fragment:
    """The text as it is: other clients get it byte for byte."""
    try:
        return orjson.Fragment(json_text.checked(text.encode()))
    except ValueError as error:
        raise UsageError(f"{option} must be JSON: {error}") from None


def _checktoken(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    # In insecure mode a worker accepts more; asked is what the token is worth.
    client = dataclasses.replace(settings.client, insecure=False)
    settings = dataclasses.replace(settings, client=client)
    claims = _run(_accepted(settings, _token(arguments), "connection"))
    assert isinstance(claims, Claims)
    sys.stdout.write(f"user {json.dumps(claims.user)}, valid {_until(claims.expires_at)}\n")
    return 0


def _checksubtoken(arguments: argparse.Namespace) -> int:
    claims = _run(_accepted(_settings(arguments), _token(arguments), "subscription"))
    assert isinstance(claims, SubscriptionClaims)
    sys.stdout.write(
        f"user {json.dumps(claims.user)}, channel {json.dumps(claims.channel)},"
        f" valid {_until(claims.expires_at)}\n"
    )
    return 0


def _run(checking: Coroutine[Any, Any, T]) -> T:
    # What a key set logs is no output of the command.
    with contextlib.redirect_stdout(sys.stderr):
        return asyncio.run(checking)


def _token(arguments: argparse.Namespace) -> str:
    token: str = arguments.token
    if token == "-":  # noqa: S105 - a dash, no password
        token = sys.stdin.read().strip()
    return token


def _until(expires_at: int) -> str:
    return f"until {time_for_people(expires_at)}" if expires_at else "for ever"


async def _accepted(settings: config.Config, token: str, kind: str) -> Claims | SubscriptionClaims:
    """What a token says.

    Raises:
        NotFound: a worker would refuse it; the text says why.
    """
    verifier = Authenticator(settings, Counters())
    try:
        if kind == "connection":
            return await verifier.verified(token)
        return await verifier.any_subscription(token)
    except (ClientError, Disconnect):
        [reason] = [name for name, count in verifier.refusals.items() if count] or ["malformed"]
        raise NotFound(f"the token is not accepted: {_REASONS.get(reason, reason)}") from None


_REASONS: Final = {
    "malformed": "it is no JSON Web Token, or one of its claims has a wrong form",
    "signature": "it is not signed with the configured key",
    "algorithm": "its algorithm is not one that the configured keys verify",
    "kind": "it has a channel, so it is a subscription token",
    "no_channel": "it has no channel, so it is a connection token",
    "audience": "its audience (aud) is not client.token.audience",
    "issuer": "its issuer (iss) is not client.token.issuer",
    "expired": "it has expired",
    "not_yet_valid": "it is not valid yet",
    "ended": "its expire_at has passed",
    "anonymous": "it has no user, and client.disallow_anonymous_connection_tokens is on",
    "no_keys": "no key is configured",
    "unknown_key": "the key set has no key of its kid",
    "keys_unavailable": "the key set cannot be read",
}


def _settings(arguments: argparse.Namespace) -> config.Config:
    settings = config.load(arguments.config, env=os.environ)
    if not has_keys(settings.client.token) and not settings.client.subscription_token.enabled:
        raise UsageError(
            "no client.token.hmac_secret_key is configured: name a file that has one with --config;"
            " ws-cluster genconfig writes one"
        )
    return settings


def _subscription_options(settings: config.Config) -> config.TokenConfig:
    client = settings.client
    return client.subscription_token if client.subscription_token.enabled else client.token


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
