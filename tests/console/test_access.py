"""Who may read the console, and who may change something through it."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from cluster.console.access import Denied, check_reader, check_writer, has_key

KEY = "a key with ümlaut"


def request(remote: str = "127.0.0.1", **headers: str) -> web.Request:
    transport = Mock()
    facts = {"peername": (remote, 1), "sslcontext": None}
    transport.get_extra_info = lambda name, default=None: facts.get(name, default)
    named = {"Host": "cluster:8001", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return make_mocked_request("POST", "/console/ack", headers=named, transport=transport)


def bearer(key: str) -> str:
    return f"Bearer {key}"


def denied(check: object, *arguments: object) -> int:
    with pytest.raises(Denied) as caught:
        check(*arguments)  # type: ignore[operator]
    return caught.value.status


JSON = {"Content_Type": "application/json"}


@pytest.mark.parametrize("remote", ["127.0.0.1", "10.1.2.3", "192.168.1.9", "::1", "fd00::7"])
def test_a_private_network_reads_without_a_key(remote: str):
    check_reader(request(remote), KEY)


def test_another_network_reads_with_the_key_only():
    assert denied(check_reader, request("8.8.8.8"), KEY) == 401
    check_reader(request("8.8.8.8", Authorization=bearer(KEY)), KEY)


def test_a_client_behind_the_proxy_is_not_mistaken_for_the_proxy():
    assert denied(check_reader, request("127.0.0.1", X_Real_IP="8.8.8.8"), KEY) == 401
    check_reader(request("127.0.0.1", X_Real_IP="10.0.0.5"), KEY)


def test_a_client_behind_two_proxies_is_not_mistaken_for_the_outer_one():
    named = {"X_Real_IP": "10.0.0.5", "X_Forwarded_For": "8.8.8.8, 10.0.0.5"}
    assert denied(check_reader, request("127.0.0.1", **named), KEY) == 401
    check_reader(request("127.0.0.1", X_Real_IP="10.0.0.5", X_Forwarded_For="10.9.9.9"), KEY)


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1:8001", True),
        ("[::1]:8001", True),
        ("localhost:8000", True),
        ("websocket-app:8001", True),
        ("ops.internal", True),
        ("evil.example:8001", False),
        ("", False),
    ],
)
def test_a_host_name_that_others_can_register_reads_with_the_key_only(host: str, is_own: bool):
    if is_own:
        check_reader(request(Host=host), KEY)
    else:
        assert denied(check_reader, request(Host=host), KEY) == 401
    check_reader(request(Host=host, Authorization=bearer(KEY)), KEY)


def test_naming_a_private_address_does_not_help_from_a_public_one():
    assert denied(check_reader, request("8.8.8.8", X_Real_IP="10.0.0.5"), KEY) == 401


def test_an_invalid_address_is_not_private():
    assert denied(check_reader, request("127.0.0.1", X_Real_IP="somewhere"), KEY) == 401


def test_loopback_writes_with_the_key_only():
    assert denied(check_writer, request(**JSON), KEY) == 401
    assert denied(check_writer, request(Authorization=bearer("wrong"), **JSON), KEY) == 401
    check_writer(request(Authorization=bearer(KEY), **JSON), KEY)


def test_without_a_key_in_the_configuration_nothing_can_be_written():
    assert denied(check_writer, request(Authorization="Bearer ", **JSON), "") == 403
    assert not has_key(request(Authorization="Bearer "), "")


def test_a_page_of_another_origin_may_neither_read_nor_write():
    foreign = {"Origin": "http://evil.example", "Authorization": bearer(KEY)}
    assert denied(check_reader, request(**foreign), KEY) == 403
    assert denied(check_writer, request(**foreign, **JSON), KEY) == 403
    assert denied(check_reader, request(Origin="null"), KEY) == 403


def test_our_own_origin_may():
    own = request(Origin="http://cluster:8001", Authorization=bearer(KEY), **JSON)
    check_reader(own, KEY)
    check_writer(own, KEY)


def test_a_form_of_another_page_cannot_write():
    form = request(Authorization=bearer(KEY), Content_Type="application/x-www-form-urlencoded")
    assert denied(check_writer, form, KEY) == 415


def test_bytes_that_are_not_text_are_a_wrong_key():
    given = Mock(headers={"Authorization": "Bearer \udcff"})
    assert not has_key(given, KEY)
