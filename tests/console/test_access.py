"""Who may read the console, and who may change something through it."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from cluster.addresses import trusted_networks
from cluster.console.access import Denied, Guard, WrongKeys

KEY = "a key with ümlaut"


class Counted(list[str]):
    """The reasons that were counted."""

    def count(self, name: str, *, reason: str) -> None:  # type: ignore[override]
        assert name == "app_admin_requests_rejected_total"
        self.append(reason)


def guard(key: str = KEY, *proxies: str, counted: Counted | None = None) -> Guard:
    count = (Counted() if counted is None else counted).count
    return Guard(key=lambda: key, trusted=lambda: trusted_networks(proxies), count=count)


def check_reader(one: web.Request, key: str) -> None:
    guard(key).check_reader(one)


def check_writer(one: web.Request, key: str) -> None:
    guard(key).check_writer(one)


def has_key(one: web.Request, key: str) -> bool:
    return guard(key).has_key(one)


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
    given = CIMultiDict({"Authorization": "Bearer \udcff"})
    assert not has_key(Mock(headers=given, remote="127.0.0.1"), KEY)


@pytest.mark.parametrize("value", ["http://[", "[", "http://[::1", "://", "a b", "http://"])
def test_a_host_or_an_origin_that_is_none_is_refused_and_no_fault(value: str):
    keyed = {"Authorization": bearer(KEY), **JSON}
    assert denied(check_writer, request(Origin=value, **keyed), KEY) == 403
    assert denied(check_reader, request(Host=value), KEY) == 401
    assert denied(check_writer, request(Host=value, Origin=value, **keyed), KEY) == 403


def test_two_origins_are_none():
    one = request(Origin="http://cluster:8001", Authorization=bearer(KEY), **JSON)
    headers = CIMultiDict(one.headers)
    headers.add("Origin", "http://cluster:8001")
    two = one.clone(headers=headers)
    assert denied(check_writer, two, KEY) == 403


def test_a_public_client_behind_a_balancer_reads_nothing_and_a_private_one_does():
    # nginx names the balancer, 10.0.0.9, and the balancer the client.
    public = request("127.0.0.1", X_Forwarded_For="8.8.8.8, 10.0.0.9")
    private = request("127.0.0.1", X_Forwarded_For="192.168.7.7, 10.0.0.9")
    for proxies in ([], ["10.0.0.9"]):
        assert denied(guard(KEY, *proxies).check_reader, public) == 401
        guard(KEY, *proxies).check_reader(private)


def test_a_public_balancer_that_is_trusted_lets_private_clients_read():
    seen = request("127.0.0.1", X_Real_IP="10.1.1.1", X_Forwarded_For="10.1.1.1, 9.9.9.9")
    assert denied(guard(KEY).check_reader, seen) == 401
    guard(KEY, "9.9.9.0/24").check_reader(seen)


def test_a_chain_of_many_addresses_is_not_read():
    chain = ",".join(["10.0.0.9"] * 40)
    assert denied(check_reader, request(X_Forwarded_For=chain), KEY) == 401


def test_the_client_is_the_one_that_the_trusted_proxy_names():
    seen = request("127.0.0.1", X_Forwarded_For="1.1.1.1, 8.8.8.8, 10.0.0.9")
    assert guard(KEY, "10.0.0.9").client(seen) == "8.8.8.8"
    assert guard(KEY).client(seen) == "10.0.0.9"


def test_after_ten_wrong_keys_an_address_waits_and_others_do_not():
    counted = Counted()
    one = guard(KEY, counted=counted)
    wrong = {"Authorization": bearer("wrong"), **JSON}
    right = {"Authorization": bearer(KEY), **JSON}
    statuses = [denied(one.check_writer, request("10.0.0.1", **wrong)) for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert list(counted) == ["key"] * 10
    # Not even the right key is compared now, or guessing would go on.
    assert denied(one.check_writer, request("10.0.0.1", **right)) == 429
    one.check_writer(request("10.0.0.2", **right))
    one.check_writer(request("127.0.0.1", X_Forwarded_For="10.0.0.3", **right))


def test_an_address_gets_one_guess_back_every_five_seconds():
    now = 1000.0
    keys = WrongKeys(lambda: now)
    for _ in range(10):
        assert keys.seconds_to_wait("a") == 0
        keys.add("a")
    assert keys.seconds_to_wait("a") == 5.0
    now += 5.0
    assert keys.seconds_to_wait("a") == 0
    keys.add("a")
    assert keys.seconds_to_wait("a") == 5.0


def test_wrong_keys_of_many_addresses_take_bounded_memory():
    keys = WrongKeys(lambda: 0.0)
    for number in range(10_000):
        keys.add(str(number))
    assert len(keys) == 4096


def test_ipv6_addresses_of_one_site_share_their_guesses():
    one = guard()
    wrong = {"Authorization": bearer("wrong"), **JSON}
    for number in range(10):
        assert denied(one.check_writer, request(f"2001:db8::{number}", **wrong)) == 401
    assert denied(one.check_writer, request("2001:db8::abcd:1", **wrong)) == 429
    assert denied(one.check_writer, request("2001:db8:0:1::1", **wrong)) == 401
