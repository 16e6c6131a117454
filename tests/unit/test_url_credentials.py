"""The credentials of URLs: where they are used, and nowhere else."""

from __future__ import annotations

import json

import pytest

from cluster import config
from cluster.errors import ConfigError
from cluster.url_credentials import authorized, without_credentials

INSECURE: dict[str, object] = {"client.insecure": True}

_URLS = (
    "console.prometheus_url",
    "console.alertmanager_url",
    "console.prometheus_link",
    "console.alertmanager_link",
    "console.grafana_link",
    "client.token.jwks_public_endpoint",
    "client.subscription_token.jwks_public_endpoint",
    "client.proxy.connect.endpoint",
    "channel.proxy.publish.endpoint",
    "rpc.proxy.endpoint",
)


def test_no_repr_print_or_message_holds_the_password_of_a_url():
    url = "https://user:s3cret@host:1234/there"
    flags: dict[str, object] = {
        key: url if key.endswith("_link") else f"{url}?token=s3cret" for key in _URLS
    }
    flags["client.subscription_token.enabled"] = True
    flags["proxies"] = [{"name": "other", "endpoint": url}]
    found = config.load(flags={**INSECURE, **flags})
    assert found.console.prometheus_url == f"{url}?token=s3cret", "it is used as it is given"
    printed = config.printable(found)
    assert "s3cret" not in repr(found) + json.dumps(printed)
    assert printed["console"]["prometheus_url"] == "https://host:1234/there"
    assert printed["proxies"][0]["endpoint"] == "https://host:1234/there"
    for wrong in ("htp://u:s3cret@h", "http://u:s3c/ret@h", "u:s3cret@h:9090", "http://u:s3cret@["):
        for key in _URLS:
            on = {"client.proxy.connect.enabled": True, "client.subscription_token.enabled": True}
            said = str(_mistakes({**INSECURE, **on, key: wrong}))
            assert "s3c" not in said, (key, said)
    said = str(_mistakes({**INSECURE, "console.prometheus_ulr": url}))
    assert "s3cret" not in said


def _mistakes(flags: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as failure:
        config.load(flags=flags)
    return str(failure.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host", "http://host"),
        ("http://u:p@host:1/a@b", "http://host:1/a@b"),
        ("http://u@host/", "http://host/"),
        ("http://u:p@[::1]:1/?token=t#f", "http://[::1]:1/"),
        ("http://u:p@q@host/", "http://host/"),
        ("http://u:p/q@host/", "***@host/"),
        ("http://u:p?q@host/", "***@host/"),
        ("u:p@host:1", "***@host:1"),
        ("host:1", "host:1"),
        ("", ""),
    ],
)
def test_what_is_shown_of_a_url_has_no_credentials(url: str, shown: str):
    assert without_credentials(url) == shown


def test_a_link_keeps_its_query():
    assert (
        without_credentials("http://u:p@h/d?orgId=1#x", keeps_query=True) == "http://h/d?orgId=1#x"
    )


def test_credentials_are_sent_as_basic_authentication():
    # The example of RFC 7617, section 2.
    address, headers = authorized("http://Aladdin:open%20sesame@host:1/x?y=1")
    assert address == "http://host:1/x?y=1"
    assert headers == {"authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}
    assert authorized("http://host/x") == ("http://host/x", {})
