"""The options of proxies: named ones, headers of every request, and what an import makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import config
from cluster.import_config.conversion import convert
from tests.unit.test_config import INSECURE, mistakes
from tests.unit.test_import_config import read

NAME, VALUE = "X-Api-Key", "known to the backend alone"


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        (
            {
                "channel.without_namespace.publish_proxy_enabled": True,
                "channel.without_namespace.publish_proxy_name": "other",
            },
            "channel.without_namespace.publish_proxy_name",
        ),
        (
            {
                "rpc.without_namespace.proxy_enabled": True,
                "rpc.without_namespace.proxy_name": "one",
                "proxies": '[{"name": "one", "endpoint": "grpc://127.0.0.1:1"}]',
            },
            "proxies.one.endpoint",
        ),
        (
            {
                "rpc.without_namespace.proxy_enabled": True,
                "rpc.proxy.endpoint": "http://127.0.0.1/rpc",
                "rpc.proxy.http.static_headers": '{"Host": "x"}',
            },
            "rpc.proxy.http.static_headers",
        ),
        (
            {"rpc.proxy.http.static_headers": "Authorization"},
            "rpc.proxy.http.static_headers",
        ),
    ],
)
def test_options_of_proxies_that_cannot_be_used_are_mistakes(flags: dict[str, object], key: str):
    assert set(mistakes(flags=INSECURE | flags)) == {key}


def test_headers_of_every_request_may_stand_in_a_file_and_are_printed_as_stars(tmp_path: Path):
    (tmp_path / "headers.json").write_text(json.dumps({NAME: VALUE}))
    (tmp_path / "config.toml").write_text(
        "client.insecure = true\n"
        "[[proxies]]\n"
        'name = "one"\n'
        'http.static_headers_file = "headers.json"\n'
        "[rpc.proxy.http.static_headers]\n"
        f'{NAME} = "{VALUE}"\n'
    )
    found = config.load(str(tmp_path / "config.toml"), env={})
    for options in (found.proxies[0], found.rpc.proxy):
        assert options.http.static_headers == ((NAME, VALUE),)
    assert config.from_json(config.to_json(found)) == found
    assert VALUE not in str(config.printable(found))
    assert VALUE not in repr(found)


def test_proxies_with_names_and_headers_are_taken_over_and_what_they_lack_is_listed():
    done = convert(
        {
            "proxies": [
                {
                    "name": "one",
                    "endpoint": "http://backend/one",
                    "timeout": "2s",
                    "http": {
                        "static_headers": {"X-Key": "of the backend"},
                        "status_to_code_transforms": [{"status_code": 404}],
                    },
                    "grpc": {"tls": {"enabled": True}},
                }
            ],
            "channel": {
                "namespaces": [
                    {"name": "chat", "publish_proxy_enabled": True, "publish_proxy_name": "one"}
                ]
            },
        }
    )
    [proxy] = read(done).proxies
    assert (proxy.name, proxy.endpoint, proxy.timeout) == ("one", "http://backend/one", 2.0)
    assert proxy.http.static_headers == (("X-Key", "of the backend"),)
    assert read(done).channel.namespaces[0].options.publish_proxy_name == "one"
    assert set(done.lost) == {"proxies[0].http.status_to_code_transforms", "proxies[0].grpc"}
    assert "over HTTP only" in done.lost["proxies[0].grpc"]
    assert "of the backend" not in str((done.differs, done.lost))
