"""import-config: what is said of options that are not taken over, or that mean something else here."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.config import Config
from cluster.config.proxy_options import NamedProxy
from cluster.config.reader import options_of
from cluster.import_config.conversion import convert
from cluster.import_config.counterparts import COUNTERPARTS, is_own
from tests.unit.test_import_config import nested

OURS = {key for key, _ in options_of(Config)} | {
    f"proxies.{key}" for key, _ in options_of(NamedProxy)
}


def test_every_row_of_the_table_leads_to_an_option_of_ours():
    assert [row.to for row in COUNTERPARTS.values() if row.to and row.to not in OURS] == []


def test_no_row_says_that_an_option_of_ours_has_no_counterpart():
    assert [key for key, row in COUNTERPARTS.items() if not row.to and key in OURS] == []


def test_every_row_without_a_counterpart_has_a_sentence():
    assert [key for key, row in COUNTERPARTS.items() if not row.to and not row.differs] == []


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("client.pong_timout", "no such option; the nearest is client.pong_timeout"),
        ("client.token.isuer", "no such option; the nearest is client.token.issuer"),
        ("channel.namespaces[0].force_recoverry", "no such option; the nearest is force_recovery"),
        ("proxies[0].http_header", "no such option; the nearest is http_headers"),
        # What is named alike elsewhere is another matter.
        ("client.token.jwks2.enabled", "there is no such option"),
        ("client.balance", "there is no such option"),
        ("client.history_size", "there is no such option"),
        ("endpoint", "there is no such option"),
    ],
)
def test_a_name_that_is_not_known_has_its_nearest_beside_it_or_none(key: str, sentence: str):
    given: dict[str, Any]
    if key.startswith("channel.namespaces"):
        given = {"channel": {"namespaces": [{"name": "chat", key.rpartition(".")[2]: True}]}}
    elif key.startswith("proxies"):
        given = {"proxies": [{"name": "chat", key.rpartition(".")[2]: True}]}
    else:
        given = nested(key, True)
    assert convert(given).lost == {key: sentence}


@pytest.mark.parametrize("section", ["token", "subscription_token"])
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("user_id_claim", "sub"), ("issuer_regex", "issuer"), ("audience_regex", "audience"),
        ("jwks.tls.enabled", "authorities"),
    ],
)  # fmt: skip
def test_what_tokens_are_accepted_there_and_not_here_is_said(section: str, name: str, word: str):
    key = f"client.{section}.{name}"
    assert (
        word in convert(nested(key, True)).lost[key.removesuffix(".enabled").removesuffix(".tls")]
    )


def test_of_a_backend_it_is_said_which_answers_are_read_otherwise():
    proxy = {"enabled": True, "endpoint": "http://backend"}
    done = convert({"client": {"proxy": {"connect": proxy, "refresh": proxy}}})
    assert "data" in done.differs["client.proxy.connect.enabled"]
    for key in ("client.proxy.connect.enabled", "client.proxy.refresh.enabled"):
        assert "400 to 1999" in done.differs[key]
        assert "4000 to 4999" in done.differs[key]
    for kind in ("channel.proxy.subscribe", "channel.proxy.publish", "rpc.proxy"):
        done = convert(nested(kind, {"endpoint": "http://backend"}))
        assert "4000 to 4999" in done.differs[f"{kind}.endpoint"]
    done = convert({"proxies": [{"name": "other", "endpoint": "http://backend"}]})
    assert "4000 to 4999" in done.differs["proxies[0].endpoint"]


def test_limits_that_centrifugo_does_not_have_are_listed_with_their_defaults():
    limits = convert({}).limits
    assert str(Config().client.command_rate_limit) in limits["client.command_rate_limit"]
    assert (
        str(Config().client.history_max_publication_bytes)
        in (limits["client.history_max_publication_bytes"])
    )
    assert all(is_own(key) and key in OURS for key in limits)
