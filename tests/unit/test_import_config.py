"""import-config: a configuration of Centrifugo becomes ours, and what does not is listed."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import config
from cluster.cli import main
from cluster.config import ChannelOptions, Config
from cluster.config.reader import ConfigReader, options_of
from cluster.import_config.conversion import Conversion, convert, known_options
from cluster.import_config.counterparts import COUNTERPARTS, OWN, is_own
from cluster.import_config.flat_names import sectioned_name
from cluster.import_config.toml_text import toml

SAMPLES = Path(__file__).parent / "centrifugo"
KEY = "0123456789abcdef0123456789abcdef-"
SECRETS = ("-token", "-api", "s/cret", "s%2Fcret", "p%40ss", "watch", "short", "not-needed")
#: A value of each kind that differs from every default of ours.
OF_A_KIND: dict[str, Any] = {
    "boolean": True,
    "string": "127.0.0.9",
    "url": "https://user:password@www.example.com/keys",
    "secret": "a-secret-of-more-than-thirty-two-bytes",
    "strings": ["https://www.example.com"],
    "headers": {"Authorization": "of our own"},
    "seconds": "37s",
    "integer": 37,
    "bytes": 3737,
    "port": 3737,
    "namespaces": [{"name": "chat"}],
    "tables": [{"name": "chat"}],
}
CHANNEL_OPTIONS = tuple(options_of(ChannelOptions))


def sample(option: Any) -> Any:
    """A value of an option that is not its default."""
    kind = option.metadata["kind"]
    if kind == "choice":
        return next(one for one in option.metadata["choices"] if one and one != option.default)
    assert kind in OF_A_KIND, f"give a value of the kind {kind!r} in OF_A_KIND"
    return OF_A_KIND[kind]


def nested(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def at(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def read(conversion: Conversion) -> Config:
    """What check-config would read."""
    reader = ConfigReader()
    settings = reader.config(tomllib.loads(toml(conversion.tree)))
    assert [str(problem) for problem in reader.problems] == []
    return settings


# --- every option of ours ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "option"),
    [(key, one) for key, one in options_of(Config) if key in known_options()],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_an_option_that_centrifugo_has_too_is_taken_over(key: str, option: Any):
    value = sample(option)
    done = convert(nested(key, value))
    assert at(done.tree, key) == value, "name it in OWN, or in COUNTERPARTS with what becomes of it"
    assert done.lost == {}
    assert done.count >= 1


@pytest.mark.parametrize("option", [one for _, one in CHANNEL_OPTIONS], ids=lambda one: one.name)
def test_an_option_of_a_namespace_is_taken_over(option: Any):
    value = sample(option)
    done = convert({"channel": {"namespaces": [{"name": "chat", option.name: value}]}})
    assert done.tree["channel"]["namespaces"] == [{"name": "chat", option.name: value}]
    assert done.lost == {}


@pytest.mark.parametrize("option", [one for _, one in CHANNEL_OPTIONS], ids=lambda one: one.name)
def test_an_option_of_version_5_for_all_channels_is_taken_over(option: Any):
    value = sample(option)
    done = convert({option.name: value})
    assert done.tree["channel"]["without_namespace"] == {option.name: value}


def test_our_own_options_exist_and_are_not_taken_from_a_file_of_centrifugo():
    keys = [key for key, _ in options_of(Config)]
    unknown = [one for one in OWN if not any(k == one or k.startswith(one) for k in keys)]
    assert unknown == []
    done = convert({"session": {"ttl": "5s"}, "console": {"viewers": 3}})
    assert done.tree == {}
    assert set(done.lost) == {"session.ttl", "console.viewers"}


def test_the_names_of_sections_are_those_of_the_model():
    sections = {field.name for field in fields(Config)}
    assert {one.partition(".")[0] for one in OWN} <= sections


# --- the samples ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["six.json", "five.json", "six.yaml", "six.toml"])
def test_a_sample_is_written_so_that_check_config_accepts_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "ws-cluster.toml"
    assert main(["import-config", str(SAMPLES / name), "-o", str(file)]) == 0
    written, said = capsys.readouterr()
    assert written == ""
    assert re.match(rf"\d+ options written to {re.escape(str(file))}\n", said)
    assert f"start with: ws-cluster up --config {file}" in said
    assert not [secret for secret in SECRETS if secret in said]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["check-config", str(file)]) == 0
    assert list(tmp_path.iterdir()) == [file]


def test_yaml_and_toml_give_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    outputs = []
    for name in ("six.yaml", "six.toml"):
        assert main(["import-config", str(SAMPLES / name)]) == 0
        outputs.append(tomllib.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1]
    assert outputs[0]["broker"] == {
        "redis_urls": ["redis+sentinel://one:26379,two:26379/mymaster/3"],
        "redis_password": "s/cret",
        "sentinel_password": "watch",
    }


def test_version_6_is_read_as_a_whole():
    done = convert(json.loads((SAMPLES / "six.json").read_text()))
    settings = read(done)
    assert settings.server.port == 9000
    assert settings.server.admin_port == 9001
    assert settings.log.level == "warning"
    assert settings.broker.redis_urls == (
        "redis://live:s%2Fcret@redis.internal:6379/2",
        "redis://:p%40ss@other:6380/3",
    )
    assert (settings.broker.prefix, settings.broker.timeout) == ("live", 2.0)
    assert settings.client.token.hmac_secret_key == KEY + "token"
    assert settings.http_api.key == KEY + "api"
    assert (settings.client.ping_interval, settings.client.channel_limit) == (20.0, 64)
    chat, news = settings.channel.namespaces
    assert (chat.name, chat.options.history_size, chat.options.history_ttl) == ("chat", 100, 300.0)
    # Version 6 has a default for all channels; ours are in each namespace.
    assert chat.options.history_meta_ttl == settings.channel.without_namespace.history_meta_ttl
    assert chat.options.history_meta_ttl == 48 * 3600
    assert news.options.history_meta_ttl == 240 * 3600
    assert settings.shutdown.stop_grace_period == 20.0


def test_what_is_lost_and_what_differs_is_listed_by_its_name():
    done = convert(json.loads((SAMPLES / "six.json").read_text()))
    assert set(done.differs) == {
        "engine.redis", "engine.redis.address", "http_server.internal_port",
        "client.user_connection_limit", "http_api.external", "admin.enabled",
        "prometheus.enabled", "shutdown.timeout",
    }  # fmt: skip
    assert set(done.lost) == {
        "engine.redis.connect_timeout", "engine.redis.force_resp2", "http_server.tls", "log.file",
        "client.concurrency", "channel.namespaces[1].subscription_type",
        "channel.namespaces[1].force_recoverry", "admin.password", "admin.secret",
        "websocket.compression", "websocket.write_timeout", "sse", "push_notifications",
    }  # fmt: skip
    assert done.lost["channel.namespaces[1].force_recoverry"].endswith("is force_recovery")


def test_what_is_switched_off_is_not_listed():
    done = convert(
        {
            "grpc_api": {"enabled": False, "port": 10000},
            "health": {"enabled": True, "handler_prefix": "/health"},
            "client": {
                "insecure": False,
                "proxy": {"connect": {"enabled": False, "endpoint": "x"}},
            },
            "channel": {"private_prefix": "$", "namespaces": []},
            "opentelemetry": {},
        }
    )
    assert (done.lost, done.differs) == ({}, {})


def test_version_5_is_listed_by_its_own_names():
    done = convert(json.loads((SAMPLES / "five.json").read_text()))
    settings = read(done)
    assert settings.client.token.hmac_secret_key == KEY + "token"
    assert settings.broker.redis_urls == (
        "redis://one.internal:6379/0",
        "redis://two.internal:6379/0",
    )
    assert settings.broker.redis_password == "s/cret"
    assert settings.client.stale_close_delay == 15.0
    assert settings.channel.without_namespace.history_size == 10
    assert [space.name for space in settings.channel.namespaces] == ["chat"]
    assert {"client_user_connection_limit", "admin", "prometheus"} <= set(done.differs)
    assert {"admin_password", "admin_secret", "websocket_compression"} <= set(done.lost)
    assert {"grpc_api", "uni_sse", "http_server.tls"} <= set(done.lost)


@pytest.mark.parametrize(
    ("flat", "sectioned"),
    [
        ("token_rsa_public_key", "client.token.rsa_public_key"),
        ("token_jwks_public_endpoint", "client.token.jwks_public_endpoint"),
        ("subscription_token_hmac_secret_key", "client.subscription_token.hmac_secret_key"),
        ("separate_subscription_token_config", "client.subscription_token.enabled"),
        ("client_expired_close_delay", "client.expired_close_delay"),
        ("client_insecure", "client.insecure"),
        ("user_subscribe_to_personal", "client.subscribe_to_user_personal_channel.enabled"),
        ("allow_subscribe_for_client", "channel.without_namespace.allow_subscribe_for_client"),
        ("proxy_publish", "channel.without_namespace.publish_proxy_enabled"),
        ("proxy_connect_endpoint", "client.proxy.connect.endpoint"),
        ("proxy_sub_refresh_timeout", "channel.proxy.sub_refresh.timeout"),
        ("proxy_rpc_endpoint", "rpc.proxy.endpoint"),
        ("redis_tls_root_ca", "engine.redis.tls.server_ca_pem"),
        ("redis_sentinel_tls", "engine.redis.sentinel_tls.enabled"),
        ("nats_url", "broker.nats.url"),
        ("usage_stats_disable", "usage_stats.disabled"),
        ("uni_http_stream_max_request_body_size", "uni_http_stream.max_request_body_size"),
        ("consumers", "consumers"),
        ("no_such_option", "no_such_option"),
    ],
)
def test_a_flat_name_has_its_place_in_version_6(flat: str, sectioned: str):
    assert sectioned_name(flat) == sectioned


@pytest.mark.parametrize(
    "given",
    [
        {"client": {"allow_anonymous_connect_without_token": True}},
        {"allow_anonymous_connect_without_token": True},
    ],
    ids=["version 6", "version 5"],
)
def test_a_cluster_that_is_open_to_clients_without_a_token_stays_so(given: dict[str, Any]):
    done = convert(given)
    assert done.tree == {"client": {"allow_anonymous_connect_without_token": True}}
    assert (done.lost, done.differs, done.problems) == ({}, {}, [])


def test_an_endpoint_of_version_5_switches_its_proxy_on():
    given = {"proxy_connect_endpoint": "http://backend/c", "proxy_refresh_endpoint": ""}
    done = convert(given)
    assert at(done.tree, "client.proxy.connect") == {
        "enabled": True,
        "endpoint": "http://backend/c",
    }
    assert at(done.tree, "client.proxy.refresh.enabled") is None
    assert "data" in done.differs["proxy_connect_endpoint"]
    off = convert({**given, "client": {"proxy": {"connect": {"enabled": False}}}})
    assert at(off.tree, "client.proxy.connect.enabled") is False


def test_an_option_that_is_given_in_both_ways_has_the_value_of_version_6():
    done = convert({"channel_max_length": 99, "channel": {"max_length": 100}})
    assert done.tree == {"channel": {"max_length": 100}}


# --- values that mean something else -------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [("25s", True), ("0s", False), (25, False), ("25", False), (-1, False), ("soon", False)],
)
def test_a_duration_is_taken_over_with_its_unit_only(value: object, kept: bool):
    done = convert({"client": {"ping_interval": value}})
    assert (at(done.tree, "client.ping_interval") == value) is kept
    assert ("client.ping_interval" in done.lost) is not kept


def test_a_value_that_is_not_allowed_here_is_left_out_and_listed():
    done = convert({"websocket": {"message_size_limit": 12}, "channel": {"max_length": 100000}})
    assert done.tree == {"websocket": {}, "channel": {}}
    assert "at least 128" in done.lost["websocket.message_size_limit"]
    assert "from 1 to 4096" in done.lost["channel.max_length"]


def test_a_short_shutdown_leaves_room_for_the_drain():
    settings = read(convert({"shutdown": {"timeout": "5s"}}))
    assert settings.shutdown.stop_grace_period == 5.0
    assert settings.shutdown.drain_window < settings.shutdown.timeout < 5.0


def test_a_long_password_of_the_admin_page_becomes_the_key():
    assert convert({"admin": {"password": KEY}}).tree == {"admin": {"key": KEY}}


@pytest.mark.parametrize(
    ("redis", "urls"),
    [
        ({}, ["redis://127.0.0.1:6379/0"]),
        ({"address": "redis://one:6379"}, ["redis://one:6379/0"]),
        ({"address": ["tcp://one:6379/2"], "db": 1}, ["redis://one:6379/2"]),
        ({"address": "unix:///run/redis.sock"}, ["unix:///run/redis.sock"]),
        ({"address": "one:6379", "user": "a:b", "password": "c@d"},
         ["redis://a%3Ab:c%40d@one:6379/0"]),
        ({"cluster_address": ["one:7000,two:7001"]}, ["redis://one:7000/0", "redis://two:7001/0"]),
        ({"address": "one:6379", "tls": {"enabled": True, "insecure_skip_verify": True}},
         ["rediss://one:6379/0?ssl_cert_reqs=none&ssl_check_hostname=false"]),
    ],
)  # fmt: skip
def test_the_address_of_a_store_becomes_a_url(redis: dict[str, Any], urls: list[str]):
    done = convert({"engine": {"type": "redis", "redis": redis}})
    assert done.tree["broker"]["redis_urls"] == urls
    assert [one for one in done.problems if one.key == "broker.redis_urls"] == []


def test_nats_has_no_counterpart():
    done = convert({"broker": {"enabled": True, "type": "nats", "nats": {"url": "nats://x"}}})
    assert set(done.lost) == {"broker.type"}
    assert "broker" not in done.tree


def test_without_a_key_the_file_is_written_and_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, file = tmp_path / "c.json", tmp_path / "ours.toml"
    source.write_text('{"client": {"token": {"hmac_secret_key": "short"}}}')
    assert main(["import-config", str(source), "-o", str(file)]) == 78
    said = capsys.readouterr().err
    assert "to change before a cluster can start:" in said
    assert "client.token.hmac_secret_key: *** is not allowed; give a random key" in said
    assert main(["check-config", str(file)]) == 78


# --- any document --------------------------------------------------------------------------

_NAMES = st.sampled_from(
    sorted(
        {part for key in (*COUNTERPARTS, *known_options()) for part in key.split(".")}
        | {name for name, _ in CHANNEL_OPTIONS}
        | {"engine", "redis", "type", "address", "name", "token_hmac_secret_key", "a b", "é\x7f"}
    )
)
_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "25s", "redis", "one:6379", "-1", KEY, 'é\x7f\n"\\', "unix://", "://"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(_NAMES, _VALUES, max_size=5))
@settings(max_examples=60, deadline=None)
def test_whatever_is_given_what_is_written_can_be_read(document: dict[str, Any]):
    done = convert(document)
    written = tomllib.loads(toml(done.tree))
    assert written == done.tree
    reader = ConfigReader()
    reader.config(written)
    assert all((*done.lost.values(), *done.differs.values()))
    assert {one.key for one in reader.problems} <= {one.key for one in done.problems}
    assert not [name for name in (*done.lost, *done.differs) if KEY in name]


@given(_VALUES)
@settings(max_examples=25, deadline=None)
def test_whatever_is_given_as_the_store_is_converted(value: Any):
    for name in ("address", "cluster_address", "sentinel_address", "tls", "db", "user"):
        convert({"engine": {"type": "redis", "redis": {name: value}}})


def test_the_embedded_defaults_of_ours_are_not_centrifugos(tmp_path: Path):
    """An empty file of Centrifugo gives an empty file of ours."""
    source = tmp_path / "empty.json"
    source.write_text("{}")
    assert main(["import-config", str(source), "-o", str(tmp_path / "ours.toml")]) == 78
    assert config.load(str(tmp_path / "ours.toml"), needs_keys=False) == Config()
    assert is_own("session.ttl")
