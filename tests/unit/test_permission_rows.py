"""The permission matrix over a socket: each command asks the table, and proxies, filters and deltas too.

`tests/unit/test_permission_matrix.py` has the rows and what section 9.3 expects of them. Here each
operation is a command of a client, and options whose rows need more than the table have theirs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest

import cluster
from cluster.config import ChannelConfig, ChannelOptions, Config, Namespace
from cluster.config.proxy_options import ChannelProxies, ProxyOptions
from cluster.node.permissions import Operation
from cluster.proxy import proxy_application
from tests.unit.local_worker import Caller, LocalWorker, ask, changed, configured
from tests.unit.test_auth import token
from tests.unit.test_permission_matrix import FEATURES, Row, Who, expected, grants
from tests.unit.test_proxies import Backend, a_backend

KEY = "k" * 32
USERS = {"anonymous": "", "user": "42"}
#: As a token says, and without one.
CALLERS = {**USERS, "without a token": None}
COMMANDS: dict[str, tuple[Operation, dict[str, Any]]] = {
    "publish": (Operation.PUBLISH, {"data": 1}),
    "history": (Operation.HISTORY, {"limit": 1}),
    "presence": (Operation.PRESENCE, {}),
    "presence_stats": (Operation.PRESENCE, {}),
    "subscribe": (Operation.SUBSCRIBE, {}),
}
NAMES = ("news", "list#42,43", "list#43")


def space_of(number: int) -> str:
    return f"space{number:02}"


def settings() -> list[tuple[str, ...]]:
    """Nothing, the features alone, each option that allows something, and it for anonymous users too."""
    found: list[tuple[str, ...]] = [(), tuple(FEATURES)]
    for name in grants():
        found.append((*FEATURES, name))
        if name.endswith("anonymous"):
            kind = name.removesuffix("anonymous")
            found += [(*FEATURES, name, f"{kind}{one}") for one in ("client", "subscriber")]
    known = {field.name for field in dataclasses.fields(ChannelOptions)}
    return [one for one in found if set(one) <= known]


def options_of(names: tuple[str, ...]) -> ChannelOptions:
    return ChannelOptions(**{name: FEATURES.get(name, True) for name in names})


def spaced(*, insecure: bool) -> Config:
    """A configuration whose namespaces have the settings."""
    config = configured(
        insecure=insecure, channel_limit=1000, command_rate_limit=0,
        allow_anonymous_connect_without_token=True,
    )  # fmt: skip
    secret = dataclasses.replace(config.client.token, hmac_secret_key=KEY)
    spaces = [Namespace(space_of(n), options_of(one)) for n, one in enumerate(settings())]
    return changed(
        config,
        client=dataclasses.replace(config.client, token=secret),
        channel=ChannelConfig(namespaces=tuple(spaces)),
    )


async def entered(worker: LocalWorker, user: str | None, *channels: str) -> Caller:
    """A client of a user, whom the server subscribes to channels; one without a token for None."""
    caller = await worker.caller()
    if user is None:
        session = (await caller.connect())["data"]["session"]["id"]
        await worker.sessions.update(session, channels=channels)
        await caller.until(
            lambda: sum("subscribe" in one.get("push", {}) for one in caller.heard) == len(channels)
        )
        return caller
    await caller.connect(token=token(key=KEY, sub=user, channels=list(channels)))
    return caller


def verdict(reply: dict[str, Any]) -> str:
    return str(reply["error"]["code"]) if "error" in reply else "allowed"


@pytest.mark.parametrize("is_insecure", [False, True], ids=["secure", "insecure"])
@pytest.mark.parametrize("user", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("is_subscribed", [False, True], ids=["outside", "subscribed"])
async def test_each_command_is_decided_as_its_row_says(
    user: str | None, is_subscribed: bool, is_insecure: bool
):
    who = Who("somebody", user or "", is_subscribed, is_insecure)
    wrong, verdicts = [], set()
    everywhere = [f"{space_of(n)}:{name}" for n in range(len(settings())) for name in NAMES]
    async with LocalWorker(spaced(insecure=is_insecure)).open() as worker:
        caller = await entered(worker, user, *(everywhere if is_subscribed else ()))
        for (number, options), name, (command, (operation, params)) in product(
            enumerate(settings()), NAMES, COMMANDS.items()
        ):
            if operation is Operation.SUBSCRIBE and is_subscribed:
                continue  # It is 105, whatever is allowed.
            channel = f"{space_of(number)}:{name}"
            got = verdict(await ask(caller, command, channel=channel, **params))
            wanted = expected(Row(options, who, operation, channel))
            verdicts.add(got)
            if got != wanted:
                wrong.append((options, command, channel, got, wanted))
            if operation is Operation.SUBSCRIBE and got == "allowed":
                await ask(caller, "unsubscribe", channel=channel)
    assert wrong[:5] == []
    assert verdicts >= {"allowed", "108"}
    assert ("103" in verdicts) is not is_insecure


# --- proxies ------------------------------------------------------------------------------------

ALLOWS: dict[str, Any] = {"result": {}}
REFUSES: dict[str, Any] = {"error": {"code": 1403, "message": "no"}}
PROXIED = ("news", "$news", "list#42", "list#43")


def asking_backend(port: int, names: tuple[str, ...], *, insecure: bool) -> Config:
    config = spaced(insecure=insecure)
    where = {
        kind: ProxyOptions(endpoint=f"http://127.0.0.1:{port}/{kind}")
        for kind in ("subscribe", "publish")
    }
    channel = ChannelConfig(
        proxy=ChannelProxies(**where),
        without_namespace=options_of((*names, "subscribe_proxy_enabled", "publish_proxy_enabled")),
    )
    return changed(config, channel=channel)


def decided_by_a_proxy(row: Row, answer: Any) -> str:
    """Section 9.3 with a proxy that is asked, or has no say; as the backend answers."""
    is_limited = "allow_user_limited_channels" in row.options and "#" in row.channel
    if row.operation is Operation.SUBSCRIBE and (row.channel.startswith("$") or is_limited):
        return expected(row)
    return "allowed" if answer is ALLOWS else "1403"


@contextlib.asynccontextmanager
async def proxied_worker(
    backend: Backend, names: tuple[str, ...], *, insecure: bool
) -> AsyncIterator[LocalWorker]:
    config = asking_backend(backend.port, names, insecure=insecure)
    async with LocalWorker(config, application=proxy_application(config)).open() as worker:
        yield worker


@pytest.mark.parametrize("is_insecure", [False, True], ids=["secure", "insecure"])
@pytest.mark.parametrize("grant", ["", "client", "anonymous", "limited"])
@pytest.mark.parametrize("answer", [ALLOWS, REFUSES], ids=["allows", "refuses"])
async def test_a_proxy_decides_after_the_gates_and_before_the_options(
    answer: dict[str, Any], grant: str, is_insecure: bool
):
    names = {
        "": (),
        "client": ("allow_subscribe_for_client", "allow_publish_for_client"),
        "anonymous": (
            "allow_subscribe_for_client", "allow_publish_for_client",
            "allow_subscribe_for_anonymous", "allow_publish_for_anonymous",
        ),
        "limited": ("allow_user_limited_channels",),
    }[grant]  # fmt: skip
    wrong = []
    async with a_backend() as backend, proxied_worker(backend, names, insecure=is_insecure) as one:
        backend.answers.update(subscribe=answer, publish=answer)
        for user, channel in product(CALLERS.values(), PROXIED):
            caller = await entered(one, user)
            for command in ("publish", "subscribe"):
                operation, params = COMMANDS[command]
                asked = len(backend.of(command))
                got = verdict(await ask(caller, command, channel=channel, **params))
                row = Row(
                    names, Who("somebody", user or "", False, is_insecure), operation, channel
                )
                wanted = decided_by_a_proxy(row, answer)
                # It is asked wherever it has a say, and nowhere else.
                is_asked = len(backend.of(command)) - asked
                has_say = decided_by_a_proxy(row, REFUSES) == "1403"
                if (got, is_asked) != (wanted, int(has_say)):
                    wrong.append((command, user, channel, got, wanted, is_asked))
    assert wrong == []


@pytest.mark.parametrize(("prefix", "other"), [("$", "!"), ("!", "$")])
async def test_a_handler_is_not_asked_for_a_private_channel_whatever_its_prefix(
    prefix: str, other: str
):
    """Else a handler that says yes would open what only a subscription token opens."""
    app = cluster.Application()
    asked: list[str] = []

    @app.subscribing
    def subscribing(
        client: cluster.ApplicationClient, event: cluster.Subscribing
    ) -> cluster.SubscribeAnswer:
        asked.append(event.channel)
        return cluster.SubscribeAnswer()

    config = changed(spaced(insecure=False), channel=ChannelConfig(private_prefix=prefix))
    async with LocalWorker(config, application=app).open() as worker:
        caller = await entered(worker, "42")
        assert verdict(await ask(caller, "subscribe", channel=f"{prefix}a")) == "103"
        assert verdict(await ask(caller, "subscribe", channel=f"{other}a")) == "allowed"
    assert asked == [f"{other}a"]


# --- filters and deltas ---------------------------------------------------------------------------

GOALS = {"key": "kind", "cmp": "eq", "val": "goal"}


@pytest.mark.parametrize("user", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("is_insecure", [False, True], ids=["secure", "insecure"])
@pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
async def test_filters_and_deltas_are_for_every_subscriber_where_the_namespace_has_them(
    user: str | None, is_insecure: bool, is_on: bool
):
    types = ("fossil",) if is_on else ()
    options = ChannelOptions(
        history_size=10, history_ttl=60.0, force_positioning=True,
        allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True,
        allow_tags_filter=is_on, allowed_delta_types=types,
    )  # fmt: skip
    config = changed(spaced(insecure=is_insecure), channel=ChannelConfig(without_namespace=options))
    async with LocalWorker(config).open() as worker:
        caller = await entered(worker, user)
        filtered = await ask(caller, "subscribe", channel="a", tf=GOALS)
        assert verdict(filtered) == ("allowed" if is_on else "107")
        result = (await ask(caller, "subscribe", channel="b", delta="fossil"))["subscribe"]
        assert result.get("delta", False) is is_on
