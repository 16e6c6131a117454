"""Every option of a namespace that concerns permissions, for every caller and operation.

The rows are generated from the options: an option that has no rows here fails the first test. What is
expected is written down anew, in the words of section 9.3 of the protocol, and not taken from the table
of `cluster.node.permissions`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from cluster.config import ChannelConfig, ChannelOptions, ClientConfig, Config, Namespace
from cluster.errors import NOT_AVAILABLE, PERMISSION_DENIED, ClientError
from cluster.metrics.counters import Counters
from cluster.node.modes import modes
from cluster.node.permissions import (
    MOST_CHANNELS,
    ORDER,
    ChannelPermissions,
    Operation,
    Verdict,
)
from cluster.protocol import Position, SubscribeRequest

OPTIONS = [field.name for field in dataclasses.fields(ChannelOptions)]
#: What these do is no matter of permissions: `test_an_option_of_another_matter_changes_no_row`.
OTHERS: dict[str, Any] = {
    "history_meta_ttl": 7200.0,
    "force_recovery_mode": "cache",
    "auto_cache_recover": True,
    "delta_publish": True,
    "subscribe_proxy_name": "other",
    "publish_proxy_name": "other",
    "sub_refresh_proxy_enabled": True,
    "sub_refresh_proxy_name": "other",
}
#: These have their rows in tests/unit/test_permission_rows.py, where a command is answered.
ELSEWHERE = {
    "subscribe_proxy_enabled": True,
    "publish_proxy_enabled": True,
    "allow_tags_filter": True,
    "allowed_delta_types": ("fossil",),
}
#: What every subscriber gets without asking: `test_what_a_namespace_forces_…`.
FORCED = {
    "force_positioning": {"is_positioned"},
    "force_recovery": {"is_positioned", "is_recoverable"},
    "force_push_join_leave": {"gets_join_leave"},
    "join_leave": {"emits_join_leave"},
    "presence": {"has_presence"},
}
#: What a client may ask for with a subscribe: `test_what_a_subscriber_asks_for_…`.
ASKED = {"allow_positioning": "positioned", "allow_recovery": "recoverable"}
#: What a feature needs is on in all rows but those of the option itself.
FEATURES: dict[str, Any] = {"history_size": 10, "history_ttl": 60.0, "presence": True}
#: What a name or the data must have: `test_a_name_…` and `test_data_…`.
CHECKED = {"channel_regex", "publication_data_format"}


class Who(NamedTuple):
    """A caller."""

    name: str
    user: str
    is_subscribed: bool
    is_insecure: bool = False


CALLERS = (
    Who("anonymous", "", False),
    Who("anonymous subscriber", "", True),
    Who("user", "42", False),
    Who("subscriber", "42", True),
    Who("insecure anonymous", "", False, True),
    Who("insecure user", "42", False, True),
)
CHANNELS = ("news", "$news", "dialog#42,43", "dialog#43", "dialog#42#43")


class Row(NamedTuple):
    """Options that are set, a caller, an operation and a channel."""

    options: tuple[str, ...]
    who: Who
    operation: Operation
    channel: str
    has_token: bool = False


def grants() -> list[str]:
    left_out = {*ASKED, *ELSEWHERE}
    return [name for name in OPTIONS if name.startswith("allow_") and name not in left_out]


def settings() -> Iterator[tuple[str, ...]]:
    """No option, each one, each two, and all."""
    names = [*grants(), *FEATURES]
    yield ()
    for first, second in product(names, names):
        if first <= second:
            yield tuple(dict.fromkeys((first, second)))
    yield tuple(names)


def rows() -> Iterator[Row]:
    for options, who, operation, channel in product(settings(), CALLERS, Operation, CHANNELS):
        yield Row(options, who, operation, channel)
        if operation is Operation.SUBSCRIBE:
            yield Row(options, who, operation, channel, has_token=True)


def configured(options: tuple[str, ...], who: Who) -> Config:
    given = {name: FEATURES.get(name, True) for name in options}
    return Config(
        client=ClientConfig(insecure=who.is_insecure),
        channel=ChannelConfig(without_namespace=ChannelOptions(**given)),
    )


def expected(row: Row) -> str:
    """Section 9.3, operation by operation."""
    has, who, what = set(row.options), row.who, row.operation.value
    is_limited = "allow_user_limited_channels" in has and "#" in row.channel
    is_someone = bool(who.user) or f"allow_{what}_for_anonymous" in has
    if row.operation is Operation.SUBSCRIBE:
        if row.channel.startswith("$") and not row.has_token:
            return "103"
        if row.has_token:
            return "token"
        if is_limited and who.user in row.channel.rpartition("#")[2].split(","):
            return "allowed"
        if "allow_subscribe_for_client" in has and is_someone and not is_limited:
            return "allowed"
        return "allowed" if who.is_insecure else "103"
    feature = {
        Operation.HISTORY: {"history_size", "history_ttl"},
        Operation.PRESENCE: {"presence"},
    }
    if not feature.get(row.operation, set()) <= has:
        return "108"
    if f"allow_{what}_for_client" in has and is_someone:
        return "allowed"
    if f"allow_{what}_for_subscriber" in has and is_someone and who.is_subscribed:
        return "allowed"
    return "allowed" if who.is_insecure else "103"


class CallerIn(NamedTuple):
    user: str
    channels: tuple[str, ...]


def decided(permissions: ChannelPermissions, row: Row) -> str:
    if row.operation is Operation.SUBSCRIBE:
        access = permissions.access(row.channel)
        verdict = access.subscribe(row.who.user, has_token=row.has_token)
        return {Verdict.ALLOWED: "allowed", Verdict.BY_TOKEN: "token", Verdict.DENIED: "103"}[
            verdict
        ]
    caller = CallerIn(row.who.user, (row.channel,) if row.who.is_subscribed else ())
    try:
        permissions.allow(row.operation, row.channel, caller)
    except ClientError as error:
        assert error in (PERMISSION_DENIED, NOT_AVAILABLE)
        return str(error.code)
    return "allowed"


def test_every_option_of_a_namespace_has_rows():
    with_rows = {*grants(), *FEATURES, *ASKED, *CHECKED, *FORCED, *ELSEWHERE}
    assert set(OPTIONS) - {*OTHERS} - with_rows == set(), "an option without rows: add them here"
    assert {*with_rows, *OTHERS} == set(OPTIONS)
    assert with_rows & {*OTHERS} == set()
    words = {word for name in grants() for word in [name.split("_")[1]]}
    assert words - {"user"} == {one.value for one in Operation}
    assert set(ORDER) == set(Operation)


def test_each_row_is_decided_as_section_9_3_says():
    permissions: dict[tuple[tuple[str, ...], bool], ChannelPermissions] = {}
    wrong, verdicts, count = [], set(), 0
    for row in rows():
        key = (row.options, row.who.is_insecure)
        if key not in permissions:
            permissions[key] = ChannelPermissions(configured(row.options, row.who), Counters())
        got, wanted = decided(permissions[key], row), expected(row)
        verdicts.add(wanted)
        count += 1
        if got != wanted:
            wrong.append((row, got, wanted))
    assert wrong[:5] == []
    assert verdicts == {"allowed", "103", "108", "token"}
    assert count > 10_000


def test_every_option_that_allows_something_changes_a_row():
    """Without this, a row could be decided right for the reason that no option is read."""

    def outcomes(options: tuple[str, ...]) -> list[str]:
        return [
            decided(
                ChannelPermissions(configured(options, who), Counters()),
                Row(options, who, operation, channel),
            )
            for who, operation, channel in product(CALLERS, Operation, CHANNELS)
        ]

    rest = [*grants(), *FEATURES]
    for name in rest:
        operation = name.split("_")[1] if "_" in name else ""
        if name.startswith("allow_") and operation != "user":
            # Alone with what it needs: another option would allow the same.
            needs = [f"allow_{operation}_for_client"] if name.endswith("anonymous") else []
            without = (*FEATURES, *needs)
        else:
            without = tuple(one for one in rest if one != name)
        assert outcomes(without) != outcomes((*without, name)), name


@pytest.mark.parametrize(("name", "value"), OTHERS.items(), ids=list(OTHERS))
def test_an_option_of_another_matter_changes_no_row(name: str, value: Any):
    """Without this, an option could be kept out of the table by putting it among the others."""
    assert getattr(ChannelOptions(), name) != value
    for who, names in product(CALLERS, ((), (*grants(), *FEATURES))):
        plain = configured(names, who)
        options = dataclasses.replace(plain.channel.without_namespace, **{name: value})
        changed = dataclasses.replace(plain, channel=ChannelConfig(without_namespace=options))
        before, after = (ChannelPermissions(one, Counters()) for one in (plain, changed))
        for operation, channel in product(Operation, CHANNELS):
            row = Row(names, who, operation, channel)
            assert decided(before, row) == decided(after, row), row
        for request in (asking(), asking(positioned=True, recoverable=True, join_leave=True)):
            assert modes(request, before.access("news"), who.user, None) == modes(
                request, after.access("news"), who.user, None
            )


@pytest.mark.parametrize("who", CALLERS, ids=lambda who: who.name)
@pytest.mark.parametrize("option", FORCED)
def test_what_a_namespace_forces_every_subscriber_gets_and_nothing_else(option: str, who: Who):
    given: dict[str, Any] = {"history_size": 10, "history_ttl": 60.0, option: True}
    config = Config(
        client=ClientConfig(insecure=who.is_insecure),
        channel=ChannelConfig(without_namespace=ChannelOptions(**given)),
    )
    access = ChannelPermissions(config, Counters()).access("news")
    got = modes(asking(), access, who.user, None)
    assert {name for name in got._fields if getattr(got, name)} == FORCED[option]


def asking(
    *, positioned: bool = False, recoverable: bool = False, join_leave: bool = False
) -> SubscribeRequest:
    nowhere = Position(0, "")
    return SubscribeRequest("news", "", False, nowhere, positioned, recoverable, False, join_leave)


@pytest.mark.parametrize("who", [one for one in CALLERS if one.is_subscribed or one.is_insecure])
@pytest.mark.parametrize("option", [*ASKED, *grants(), ""])
@pytest.mark.parametrize("asked", ["positioned", "recoverable", "join_leave"])
def test_what_a_subscriber_asks_for_is_granted_as_section_9_4_says(
    who: Who, option: str, asked: str
):
    given = {**FEATURES, "join_leave": True, **({option: True} if option else {})}
    config = Config(
        client=ClientConfig(insecure=who.is_insecure),
        channel=ChannelConfig(without_namespace=ChannelOptions(**given)),
    )
    access = ChannelPermissions(config, Counters()).access("news")
    got = modes(asking(**{asked: True}), access, who.user, None)
    # A single option: nothing for anonymous users, because `…_for_anonymous` needs another one beside it.
    reads = (
        who.user
        and option.startswith(
            "allow_presence_for_" if asked == "join_leave" else "allow_history_for_"
        )
        and not option.endswith("anonymous")
    )
    is_granted = bool(who.is_insecure or reads or ASKED.get(option) == asked)
    if asked == "join_leave":
        assert got.gets_join_leave is is_granted
    else:
        assert got.is_positioned is is_granted
        assert got.is_recoverable is (is_granted and asked == "recoverable")
    nothing = modes(asking(), access, who.user, None)
    assert (nothing.is_positioned, nothing.gets_join_leave) == (False, False)


def test_joins_and_leaves_that_a_namespace_does_not_emit_are_not_granted():
    access = ChannelPermissions(Config(client=ClientConfig(insecure=True)), Counters()).access("a")
    assert modes(asking(join_leave=True), access, "42", None).gets_join_leave is False


@pytest.mark.parametrize(
    ("regex", "channel", "is_allowed"),
    [
        ("^[a-z]+$", "news", True),
        ("^[a-z]+$", "NEWS", False),
        ("^[a-z]+$", "space:news", True),
        ("^[a-z]+$", "$space:news", True),
        ("^[a-z]+$", "space:N", False),
        ("ew", "news", True),
    ],
)
def test_a_name_must_match_the_regex_after_its_namespace(
    regex: str, channel: str, is_allowed: bool
):
    options = ChannelOptions(channel_regex=regex)
    config = Config(
        channel=ChannelConfig(without_namespace=options, namespaces=(Namespace("space", options),))
    )
    permissions = ChannelPermissions(config, Counters())
    if is_allowed:
        permissions.access(channel)
    else:
        with pytest.raises(ClientError) as caught:
            permissions.access(channel)
        assert caught.value.code == 107


@pytest.mark.parametrize(
    ("data", "formats"),
    [
        (b'{"a":1}', {"json", "json_object"}),
        (b' {"a":1}', {"json", "json_object"}),
        (b"[1]", {"json"}),
        (b'"{"', {"json"}),
        (b"1", {"json"}),
        (b"{", set()),
        (b"\xff", set()),
    ],
)
def test_data_must_have_the_format_of_the_namespace(data: bytes, formats: set[str]):
    for wanted in ("json", "json_object"):
        options = ChannelOptions(publication_data_format=wanted)
        config = Config(channel=ChannelConfig(without_namespace=options))
        access = ChannelPermissions(config, Counters()).access("news")
        assert access.checks_data
        assert access.accepts(data) is (wanted in formats), wanted


def test_boundaries_are_those_of_the_configuration():
    config = Config(
        channel=ChannelConfig(
            private_prefix="!",
            user_boundary="@",
            user_separator="+",
            without_namespace=ChannelOptions(allow_user_limited_channels=True),
        ),
    )
    permissions = ChannelPermissions(config, Counters())
    for channel, user, wanted in (
        ("a@1+2", "2", Verdict.ALLOWED),
        ("a@1+2", "3", Verdict.DENIED),
        ("a#2", "2", Verdict.DENIED),
        ("!a@2", "2", Verdict.DENIED),
        ("$a@2", "2", Verdict.ALLOWED),
    ):
        assert permissions.access(channel).subscribe(user, has_token=False) is wanted, channel


def test_an_anonymous_user_is_in_no_list():
    options = ChannelOptions(allow_user_limited_channels=True)
    config = Config(channel=ChannelConfig(without_namespace=options))
    permissions = ChannelPermissions(config, Counters())
    for channel in ("a#", "a#42,", "a#,"):
        assert permissions.access(channel).subscribe("", has_token=False) is Verdict.DENIED


def test_refusals_are_counted_by_operation():
    counters = Counters()
    permissions = ChannelPermissions(Config(), counters)
    for operation in (Operation.PUBLISH, Operation.HISTORY, Operation.PRESENCE):
        with pytest.raises(ClientError):
            permissions.allow(operation, "news", CallerIn("42", ()))
    # History and presence are off: 108 is no refusal.
    assert counters.permission_refusals == {
        "subscribe": 0, "publish": 1, "history": 0, "presence": 0,
    }  # fmt: skip


def test_the_names_that_are_kept_are_bounded():
    permissions = ChannelPermissions(Config(client=ClientConfig(insecure=True)), Counters())
    for number in range(MOST_CHANNELS + 100):
        permissions.access(f"news-{number}")
        assert len(permissions._known) + len(permissions._before) <= MOST_CHANNELS
    with pytest.raises(ClientError):
        permissions.access("nowhere:news")
    assert "nowhere:news" not in permissions._known
