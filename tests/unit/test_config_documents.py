"""Options as JSON, durations and other values, whatever is given."""

from __future__ import annotations

import dataclasses
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import config
from cluster.config.reader import options_of, parse_seconds
from cluster.errors import ConfigError
from tests.unit.test_config import INSECURE, mistakes


@given(
    st.text(max_size=20),
    st.lists(
        st.tuples(st.from_regex(r"[a-z]{2,8}", fullmatch=True), st.integers(0, 1000)),
        max_size=3,
        unique_by=lambda pair: pair[0],
    ),
    st.floats(0.2, 1e6),
)
def test_a_configuration_in_json_is_read_as_it_was(secret, spaces, ttl):
    found = config.load(flags=INSECURE)
    found = dataclasses.replace(
        found,
        admin=config.AdminConfig(key=secret),
        session=dataclasses.replace(found.session, ttl=max(1.0, ttl)),
        channel=dataclasses.replace(
            found.channel,
            namespaces=tuple(
                config.Namespace(name, config.ChannelOptions(history_size=size))
                for name, size in spaces
            ),
        ),
    )
    assert config.from_json(config.to_json(found)) == found


def test_a_document_that_is_not_a_configuration_is_refused():
    for document in (b"", b"[]", b'{"client": {"nonsense": 1}}'):
        with pytest.raises(ConfigError):
            config.from_json(document)


@given(st.floats(0, 1e6))
def test_a_number_of_seconds_is_itself(seconds):
    assert parse_seconds(seconds) == seconds
    assert parse_seconds(repr(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("25s", 25),
        ("720h", 2592000),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("2d", 172800),
    ],
)
def test_durations_are_read_as_centrifugo_writes_them(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("value", [10**400, "9" * 400, "1e400", "nan", "inf", -1])
def test_a_duration_that_no_clock_counts_is_a_mistake(value):
    assert "give seconds" in mistakes(flags={**INSECURE, "session.ttl": value})["session.ttl"]


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))  # fmt: skip
def test_any_value_of_an_option_is_read_or_reported(value):
    for key, _ in options_of(config.Config):
        with suppress(ConfigError):
            config.load(flags={**INSECURE, key: value})
