"""Configuration: its sources, its mistakes and its secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import config
from cluster.errors import ConfigError

INSECURE = {"client.insecure": True}
SECRET = "s3cret" * 6
ROOT = Path(__file__).resolve().parents[2]


def mistakes(*args, **kwargs) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        config.load(*args, **kwargs)
    assert caught.value.exit_code == 78
    return {
        problem.key: f"{problem.value} | {problem.allowed}" for problem in caught.value.problems
    }


@pytest.fixture
def a_file(tmp_path):
    def write(text: str, name: str = "config.toml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_the_defaults_break_no_rule_and_are_those_of_the_protocol():
    found = config.load(flags=INSECURE)
    assert (found.client.ping_interval, found.client.pong_timeout) == (25.0, 8.0)
    assert found.client.queue_max_size == 1048576
    assert found.channel.without_namespace.history_meta_ttl == 720 * 3600
    assert (found.server.port, found.server.admin_port, found.server.worker_port_base) == (
        8000,
        8001,
        8101,
    )


def test_a_centrifugo_configuration_carries_over(a_file):
    document = {
        "client": {
            "token": {"hmac_secret_key": SECRET},
            "allowed_origins": ["https://example.com"],
            "ping_interval": "10s",
            "pong_timeout": "3s",
        },
        "channel": {
            "without_namespace": {"history_size": 10, "history_ttl": "5m", "force_recovery": True},
            "namespaces": [{"name": "chat", "history_size": 3, "history_ttl": "1h30m"}],
        },
        "http_api": {"key": SECRET},
    }
    found = config.load(a_file(json.dumps(document), "config.json"))
    assert found.channel.namespaces[0].name == "chat"
    assert found.channel.namespaces[0].options.history_ttl == 5400.0
    assert found.channel.without_namespace.force_recovery
    assert found.client.ping_interval == 10.0


def test_a_flag_overrides_the_environment_which_overrides_the_file(a_file):
    file = a_file("[server]\nport = 1\nadmin_port = 2\nworkers = 3\n[client]\ninsecure = true")
    env = {"WS_CLUSTER_SERVER__PORT": "11", "WS_CLUSTER_SERVER__ADMIN_PORT": "12", "HOME": "/"}
    found = config.load(file, env=env, flags={"server.port": 21})
    assert (found.server.port, found.server.admin_port, found.server.workers) == (21, 12, 3)


def test_lists_and_namespaces_can_come_from_the_environment():
    env = {
        "WS_CLUSTER_BROKER__REDIS_URLS": "redis://a:1, redis://b:2",
        "WS_CLUSTER_CLIENT__ALLOWED_ORIGINS": '["https://x"]',
        "WS_CLUSTER_CHANNEL__NAMESPACES": '[{"name":"chat"}]',
        "WS_CLUSTER_CLIENT__INSECURE": "true",
    }
    found = config.load(env=env)
    assert found.broker.redis_urls == ("redis://a:1", "redis://b:2")
    assert found.client.allowed_origins == ("https://x",)
    assert found.channel.namespaces[0].name == "chat"


def test_all_mistakes_of_all_sources_are_reported_at_once(a_file):
    file = a_file(
        '[client]\ninsecur = true\nping_interval = "5 s"\nallowed_origins = [1]\n'
        "[server]\nhost = 'nowhere'\n[[channel.namespaces]]\nname = '!'\nhistory_siz = 1\n"
    )
    found = mistakes(file, env={"WS_CLUSTER_SESSION__TTL": "true"}, flags={"server.port": 70000})
    assert set(found) == {
        "client.insecur",
        "client.ping_interval",
        "client.allowed_origins",
        "client.token.hmac_secret_key",
        "server.host",
        "server.port",
        "session.ttl",
        "channel.namespaces[0].name",
        "channel.namespaces[0].history_siz",
    }


def test_a_mistake_says_what_was_given_and_what_is_allowed():
    assert mistakes(flags={**INSECURE, "server.port": 70000})["server.port"] == (
        "70000 | give a port number from 0 to 65535"
    )


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("client.insecur", "client.insecure"),
        ("sesion", "session"),
        ("client.history_size", "channel.without_namespace.history_size"),
        ("server.redis_urls", "broker.redis_urls"),
    ],
)
def test_an_unknown_key_is_reported_with_the_nearest_known_one(key, nearest):
    assert nearest in mistakes(flags={**INSECURE, key: 1})[key]


def test_a_key_that_resembles_no_other_is_reported_with_those_of_its_section():
    assert (
        "known here are ttl, state_max_size"
        in mistakes(flags={**INSECURE, "session.qqqq": 1})["session.qqqq"]
    )


def test_no_keys_are_needed_where_clients_connect_without_a_token():
    found = config.load(flags={"client.allow_anonymous_connect_without_token": True})
    assert found.client.allow_anonymous_connect_without_token


def test_without_keys_and_without_insecure_mode_it_says_what_to_set():
    reported = mistakes()["client.token.hmac_secret_key"]
    assert "client.insecure = true for development" in reported
    assert config.load(needs_keys=False).client.insecure is False


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({"client.pong_timeout": 30}, "client.pong_timeout"),
        ({"shutdown.drain_window": 10}, "shutdown.drain_window"),
        ({"shutdown.timeout": 30}, "shutdown.timeout"),
        ({"server.admin_port": 8000}, "server.admin_port"),
        ({"server.port": 8103, "server.workers": 4}, "server.port"),
        ({"server.worker_port_base": 65535, "server.workers": 4}, "server.worker_port_base"),
        ({"broker.redis_urls": ["http://x"]}, "broker.redis_urls"),
        ({"broker.redis_urls": ["redis://:notaport"]}, "broker.redis_urls"),
        ({"broker.redis_urls": ["redis://host:6379/database"]}, "broker.redis_urls"),
        ({"broker.redis_urls": ["valkey://"]}, "broker.redis_urls"),
        ({"broker.redis_urls": ["unix://"]}, "broker.redis_urls"),
        ({"broker.redis_urls": ["redis+sentinel://a,b..c/main"]}, "broker.redis_urls"),
        ({"console.prometheus_url": "http://a..b:9090"}, "console.prometheus_url"),
        ({"channel.without_namespace.history_size": 5}, "channel.without_namespace.history_ttl"),
        (
            {"channel.without_namespace.force_recovery": True},
            "channel.without_namespace.force_recovery",
        ),
        (
            {
                "channel.without_namespace.allow_user_limited_channels": True,
                "channel.user_boundary": "",
            },
            "channel.without_namespace.allow_user_limited_channels",
        ),
        (
            {"channel.without_namespace.channel_regex": "(a"},
            "channel.without_namespace.channel_regex",
        ),
        ({"channel.user_separator": "#"}, "channel.user_separator"),
        ({"client.proxy.connect.enabled": True}, "client.proxy.connect.endpoint"),
        (
            {
                "client.proxy.refresh.enabled": True,
                "client.proxy.refresh.endpoint": "http://127.0.0.1/r",
            },
            "client.proxy.refresh.enabled",
        ),
        (
            {"channel.without_namespace.subscribe_proxy_enabled": True},
            "channel.proxy.subscribe.endpoint",
        ),
        (
            {
                "rpc.without_namespace.proxy_enabled": True,
                "rpc.proxy.endpoint": "http://127.0.0.1/rpc",
                "rpc.proxy.http_headers": "Content-Length",
            },
            "rpc.proxy.http_headers",
        ),
        (
            {
                "rpc.without_namespace.proxy_enabled": True,
                "rpc.proxy.endpoint": "http://127.0.0.1/rpc",
                "app.target": "a:b",
            },
            "app.target",
        ),
        ({"channel.private_prefix": "é"}, "channel.private_prefix"),
        (
            {"channel.namespaces": '[{"name":"chat"}]', "channel.namespace_boundary": ""},
            "channel.namespace_boundary",
        ),
        (
            {"channel.namespaces": '[{"name":"a-b"}]', "channel.namespace_boundary": "-"},
            "channel.namespaces[0].name",
        ),
        (
            {"client.subscribe_to_user_personal_channel.personal_channel_namespace": "chat"},
            "client.subscribe_to_user_personal_channel.personal_channel_namespace",
        ),
        (
            {"client.subscribe_to_user_personal_channel.single_connection": True},
            "client.subscribe_to_user_personal_channel.single_connection",
        ),
        (
            {
                "client.subscribe_to_user_personal_channel.enabled": True,
                "channel.user_boundary": "",
            },
            "client.subscribe_to_user_personal_channel.enabled",
        ),
    ],
)
def test_options_that_contradict_each_other_are_mistakes(flags, key):
    assert set(mistakes(flags=INSECURE | flags)) == {key}


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:6379/0",
        "rediss://host:6379/0",
        "valkey://host:6379/0",
        "valkeys://host:6379/0",
        "unix:///run/valkey.sock",
    ],
)
def test_every_redis_scheme_is_accepted(url):
    found = config.load(flags={**INSECURE, "broker.redis_urls": [url]})
    assert found.broker.redis_urls == (url,)


def test_a_url_of_another_scheme_is_refused_with_every_scheme_that_is_allowed():
    reported = mistakes(flags={**INSECURE, "broker.redis_urls": ["http://host:6379"]})
    assert ", ".join(config.REDIS_SCHEMES) in reported["broker.redis_urls"]


@pytest.mark.parametrize("name", ["a", "a.b", "chat:", "ü2", "a b", "", "ab\n"])
def test_the_name_of_a_namespace_has_letters_digits_hyphens_and_underscores(name: str):
    given = json.dumps([{"name": name}])
    assert set(mistakes(flags=INSECURE | {"channel.namespaces": given})) == {
        "channel.namespaces[0].name"
    }


def test_two_namespaces_of_one_name_are_a_mistake(a_file):
    file = a_file("[[channel.namespaces]]\nname='ab'\n[[channel.namespaces]]\nname='ab'\n")
    assert '"ab"' in mistakes(file, flags=INSECURE)["channel.namespaces"]


@pytest.mark.parametrize(
    ("text", "reported"),
    [("client = ", "the file is not TOML"), ("[client]\ninsecure=1", "give true or false")],
)
def test_a_broken_file_is_reported(a_file, text, reported):
    assert any(reported in mistake for mistake in mistakes(a_file(text)).values())


@pytest.mark.parametrize("name", ["deep.json", "deep.toml"])
def test_a_file_that_is_nested_too_deep_is_reported(tmp_path, name):
    path = tmp_path / name
    path.write_text(("" if name.endswith("json") else "a = ") + "[" * 100_000)
    with pytest.raises(ConfigError, match="nested too deep"):
        config.load(str(path), flags=INSECURE)


@pytest.mark.parametrize(
    "key", ["server.user", "client.token.jwks_file", "broker.redis_urls", "server.trusted_proxies"]
)
def test_a_text_with_a_null_character_is_reported(key):
    with pytest.raises(ConfigError, match="without a null character"):
        config.load(flags=INSECURE | {key: "a\0b"})


def test_a_list_that_is_nested_too_deep_is_reported():
    env = {"WS_CLUSTER_CHANNEL__NAMESPACES": "[" * 100_000}
    with pytest.raises(ConfigError, match=r"channel\.namespaces"):
        config.load(env=env, flags=INSECURE)


def test_without_a_current_directory_the_options_are_read(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert config.load(flags=INSECURE).client.insecure
    with pytest.raises(ConfigError, match=r"a\.toml"):
        config.load("a.toml", flags=INSECURE)


def test_the_path_of_a_secret_with_a_null_character_is_reported():
    with pytest.raises(ConfigError, match="a path has no null character"):
        config.load(flags={"client.token.hmac_secret_key_file": "a\0b"})


def test_a_section_that_is_not_a_table_is_reported(a_file):
    assert "give a table" in mistakes(a_file("client = 5"))["client."]


# --- secrets -------------------------------------------------------------------------------


def test_a_secret_can_come_from_a_file_beside_the_configuration(a_file):
    a_file(SECRET + "\n", "key.txt")
    found = config.load(a_file('[client.token]\nhmac_secret_key_file = "key.txt"\n'))
    assert found.client.token.hmac_secret_key == SECRET


def test_a_missing_an_empty_and_a_second_secret_file_are_reported(a_file):
    a_file("", "empty.txt")
    file = a_file(
        '[client.token]\nhmac_secret_key_file = "none.txt"\n[admin]\nkey_file = "empty.txt"\n'
        '[http_api]\nkey = "a"\nkey_file = "b"\n'
    )
    found = mistakes(file)
    assert "No such file" in found["client.token.hmac_secret_key_file"]
    assert "is empty" in found["admin.key_file"]
    assert "not both" in found["http_api.key_file"]


def test_trusted_proxies_are_addresses_or_networks_and_not_all():
    good = ["10.0.0.7", "10.1.0.0/16", "2001:db8::/32"]
    found = config.load(flags={**INSECURE, "server.trusted_proxies": good})
    assert found.server.trusted_proxies == tuple(good)
    for bad in ("balancer", "10.0.0.0/33", "0.0.0.0/0", "::/0"):
        assert (
            bad
            in mistakes(flags={**INSECURE, "server.trusted_proxies": [bad]})[
                "server.trusted_proxies"
            ]
        )


def test_the_admin_port_is_on_loopback_unless_told_otherwise():
    assert config.load(flags=INSECURE).server.admin_host == "127.0.0.1"
    assert "server.admin_host" in mistakes(flags={**INSECURE, "server.admin_host": "nowhere"})


def test_an_environment_secret_replaces_a_file_s_secret_file(a_file):
    file = a_file('[client.token]\nhmac_secret_key_file = "none.txt"\n')
    found = config.load(file, env={"WS_CLUSTER_CLIENT__TOKEN__HMAC_SECRET_KEY": SECRET})
    assert found.client.token.hmac_secret_key == SECRET


def test_no_repr_print_or_message_holds_a_secret():
    flags = {
        "client.token.hmac_secret_key": SECRET,
        "admin.key": SECRET,
        "http_api.key": SECRET,
        "broker.redis_urls": ["redis://user:s3cret@host:6379/0"],
    }
    found = config.load(flags=flags)
    assert "s3cret" not in repr(found) + json.dumps(config.printable(found))
    assert config.printable(found)["admin"]["key"] == "***"
    assert config.printable(found)["broker"]["redis_urls"] == ["redis://user:***@host:6379/0"]
    reported = mistakes(
        flags={"admin.key": ["s3cret"], "admin.kee": 1, "client.token.hmac_secret_kex": "s3cret"}
    )
    assert "s3cret" not in str(reported)
    assert "s3cret" not in str(mistakes(flags={"broker.redis_urls": ["htp://u:s3cret@h"]}))


def test_the_development_configuration_is_insecure_and_loopback_only():
    found = config.load(str(config.DEVELOPMENT_FILE))
    assert found.client.insecure
    assert found.server.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("client", "ping_interval", 25),
        ("client", "pong_timeout", 8),
        ("client", "stale_close_delay", 10),
        ("client", "expired_close_delay", 25),
        ("client", "expired_sub_close_delay", 25),
        ("client", "channel_limit", 128),
        ("client", "queue_max_size", 1_048_576),
        ("client", "user_connection_limit", 0),
        ("client", "connection_limit", 0),
        ("client", "connection_rate_limit", 0),
        ("client", "history_max_publication_limit", 300),
        ("client", "recovery_max_publication_limit", 300),
        ("client", "presence_update_interval", 27),
        ("client", "presence_ttl", 60),
        ("client", "channel_position_check_delay", 40),
        ("channel", "max_length", 255),
        ("websocket", "message_size_limit", 65_536),
    ],
)
def test_the_defaults_are_those_of_centrifugo(section: str, option: str, value: float):
    """Sections 10 and 11 of the protocol: a configuration that leaves them out moves over."""
    assert getattr(getattr(config.Config(), section), option) == value
