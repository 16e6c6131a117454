"""The connection to the store: URLs, order, and callbacks that fail."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url

from cluster.config import load
from cluster.config.redis_url import Address, database_of
from cluster.config.sentinel_url import SentinelAddress
from cluster.errors import ConfigError, StoreRefused, StoreUnavailable
from cluster.resp.link import RespConnection
from cluster.resp.scripts import SCRIPTS


class Transport:
    """Collects what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_aborted = False
        self.buffered = 0

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def abort(self) -> None:
        self.is_aborted = True


class Heard:
    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.messages: list[list[Any]] = []
        self.losses = 0

    def lost(self) -> None:
        self.losses += 1


def connected(heard: Heard, *, subscribes: bool = False) -> tuple[RespConnection, Transport]:
    connection = RespConnection(
        on_lost=heard.lost, on_messages=heard.messages.append if subscribes else None
    )
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport


# --- URLs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://h", Address("h")),
        ("redis://h:7000", Address("h", 7000)),
        ("valkey://h:7000/2", Address("h", 7000, database=2)),
        ("redis://:p%40ss@h", Address("h", password="p@ss")),
        ("rediss://u:p@h", Address("h", username="u", password="p", tls=True)),
        ("unix:///run/v.sock?db=3", Address(path="/run/v.sock", database=3)),
        ("unix://u:p@/run/v.sock", Address(path="/run/v.sock", username="u", password="p")),
        ("redis://[::1]:7000", Address("::1", 7000)),
        ("redis://", Address()),
    ],
)
def test_a_url_is_read_as_redis_py_reads_it(url: str, wanted: Address):
    assert Address.from_url(url) == wanted


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://h?db=2", Address("h", database=2)),
        ("redis://h?protocol=2", Address("h")),
        ("redis://h?client_name=ws", Address("h", client_name="ws")),
        ("redis://u:p@ss@h", Address("h", username="u", password="p@ss")),
        ("redis://:a%23b%2Fc@h", Address("h", password="a#b/c")),
        ("unix:///run/v%20w.sock", Address(path="/run/v w.sock")),
        (
            "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=no",
            Address(
                "h",
                tls=True,
                tls_options=(("ssl_cert_reqs", "none"), ("ssl_check_hostname", False)),
            ),
        ),
    ],
)
def test_an_option_that_redis_py_knows_is_used(url: str, wanted: Address):
    assert Address.from_url(url) == wanted


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://h", "redis, rediss, valkey, valkeys, unix"),
        ("h:6379", "redis, rediss"),
        ("", "redis, rediss"),
        ("redis://h:port", "port"),
        ("redis://h:99999", "port"),
        ("redis://h:0", "port"),
        ("redis://h/x", "number of the database"),
        ("redis://h/1/2", "number of the database"),
        ("redis://h?db=x", "option db"),
        ("redis://h?db=-1", "option db"),
        ("redis://h/1?db=2", "not as both"),
        ("redis://h?db=1&db=2", "option db once"),
        ("redis://h?db=", "option db once"),
        ("redis://h?protocol=3", "RESP3"),
        ("redis://h?socket_timeout=3", r"broker\.timeout"),
        ("redis://h?max_connections=3", "only these options"),
        ("redis://h?ssl_ca_certs=/x", "rediss://"),
        ("redis://h?password=s3cret", "before the host"),
        ("rediss://h?ssl_password=s3cret", "not encrypted"),
        ("rediss://h?ssl_ca_certs=/none/here", "No such file"),
        ("rediss://h?ssl_cert_reqs=perhaps", "perhaps"),
        ("rediss://h?ssl_min_version=tls", "option ssl_min_version"),
        ("unix://run/v.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("redis://a..b:6379", "1 to 63 characters"),
        (f"redis://{'a' * 64}.example", "1 to 63 characters"),
        ("redis://a%00b", "1 to 63 characters"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_what_to_change(url: str, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Address.from_url(url)


@pytest.mark.parametrize("special", "#/?[]")
@pytest.mark.parametrize("rest", ["@h:7000/0", "@h", "@h:7000/0?db=1"])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "unix"])
def test_a_password_that_is_not_encoded_is_refused_and_never_shown(
    special: str, rest: str, scheme: str
):
    for password in (f"12{special}s3cret", f"s3cret{special}34", f"{special}s3cret=1"):
        try:
            address = Address.from_url(f"{scheme}://ann:{password}{rest}")
        except ValueError as error:
            shown = "".join(traceback.format_exception(error))
            assert "s3cret" not in shown
            assert "percent-encode" in str(error) or "three slashes" in str(error)
        else:
            # Nothing is lost if the URL can be read as it was meant.
            assert (address.host, address.password) == ("h", password)


@given(st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_a_percent_encoded_password_is_used_as_it_is(password: str):
    assert Address.from_url(f"redis://:{quote(password, safe='')}@h").password == password


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda path: path.strip("/")))
def test_the_url_of_a_socket_means_what_it_means_to_redis_py(path: str):
    url = f"unix://{quote('/' + path, safe='/;:~!')}"
    assert Address.from_url(url).path == parse_url(url).get("path") == f"/{path}"


def test_an_address_is_shown_without_its_password():
    address = Address.from_url("redis://user:s3cret@h:7000")
    assert str(address) == "h:7000"
    assert "s3cret" not in repr(address)
    assert str(Address.from_url("unix:///run/v.sock")) == "unix:/run/v.sock"


def test_a_url_of_the_configuration_is_refused_without_its_password():
    for url in ("redis://:s3#cret@h", "redis://:s3", "redis://h?password=s3cret", "redis://:s3@"):
        with pytest.raises(ConfigError) as refused:
            load(flags={"client.insecure": True, "broker.redis_urls": [url]})
        [problem] = refused.value.problems
        assert problem.key == "broker.redis_urls"
        assert "s3" not in str(problem)


def test_another_node_gets_the_same_credentials():
    address = Address.from_url("rediss://u:p@h:7000/1").at("other", 7001)
    assert (address.host, address.port, address.username, address.password) == (
        "other", 7001, "u", "p",
    )  # fmt: skip
    assert address.tls


def test_every_script_has_its_own_hash():
    assert len({script.sha for script in SCRIPTS}) == len(SCRIPTS) == 16
    assert all(script.text for script in SCRIPTS)


# --- commands and replies ----------------------------------------------------------------------


async def test_the_commands_of_one_turn_leave_in_one_write():
    heard = Heard()
    connection, transport = connected(heard)
    for number in range(5):
        connection.submit(("GET", number, b"raw", 1.5), heard.replies.append)
    assert transport.writes == []
    await asyncio.sleep(0)
    [written] = transport.writes
    assert written.startswith(b"*4\r\n$3\r\nGET\r\n$1\r\n0\r\n$3\r\nraw\r\n$3\r\n1.5\r\n*4")


@given(st.lists(st.integers(min_value=1, max_value=20), max_size=12))
def test_replies_come_in_order_however_the_bytes_are_cut(cuts: list[int]):
    async def run() -> None:
        heard = Heard()
        connection, _ = connected(heard)
        for _ in range(4):
            connection.submit(("X",), heard.replies.append)
        data = b"+OK\r\n:42\r\n-ERR no\r\n*2\r\n$1\r\na\r\n$-1\r\n"
        for cut in cuts:
            connection.data_received(data[:cut]) if data[:cut] else None
            data = data[cut:]
        connection.data_received(data) if data else None
        assert heard.replies[:2] == [b"OK", 42]
        assert isinstance(heard.replies[2], StoreRefused)
        assert heard.replies[3:] == [[b"a", None]]

    asyncio.run(run())


async def test_a_connection_that_ends_answers_everything_once():
    heard = Heard()
    connection, _ = connected(heard)
    for _ in range(3):
        connection.submit(("X",), heard.replies.append)
    connection.data_received(b"+OK\r\n")
    connection.connection_lost(None)
    connection.submit(("X",), heard.replies.append)
    kinds = [type(reply) for reply in heard.replies]
    assert kinds == [bytes, StoreUnavailable, StoreUnavailable, StoreUnavailable]
    assert heard.losses == 1


def broken(reply: Any) -> None:
    raise RuntimeError("a fault of the caller's")


async def test_a_callback_that_fails_does_not_end_the_connection_of_the_others():
    heard = Heard()
    connection, transport = connected(heard)
    for done in (broken, heard.replies.append, broken, heard.replies.append):
        connection.submit(("X",), done)
    connection.data_received(b"+1\r\n+2\r\n")
    connection.connection_lost(None)
    assert heard.replies[0] == b"2"
    assert isinstance(heard.replies[1], StoreUnavailable)
    assert heard.losses == 1
    assert not transport.is_aborted


async def test_everything_one_read_brought_is_one_batch():
    heard = Heard()
    connection, _ = connected(heard, subscribes=True)
    message = b"*3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\nx\r\n"
    connection.data_received(message * 3 + message[:10])
    connection.data_received(message[10:])
    assert [len(batch) for batch in heard.messages] == [3, 1]


async def test_replies_and_messages_on_one_connection_are_distinguished():
    heard = Heard()
    connection, _ = connected(heard, subscribes=True)
    connection.submit(("PING",), heard.replies.append)
    connection.data_received(
        b"*3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\nx\r\n+PONG\r\n-MOVED 1 h:1\r\n"
    )
    assert heard.replies == [b"PONG"]
    [[message, refusal]] = heard.messages
    assert message == [b"smessage", b"c", b"x"]
    assert str(refusal) == "MOVED 1 h:1"


async def test_a_server_that_owes_a_reply_is_watched_from_the_first_command():
    heard = Heard()
    connection, _ = connected(heard)
    assert connection.waiting_since() is None
    connection.submit(("X",), heard.replies.append)
    since = connection.waiting_since()
    connection.submit(("X",), heard.replies.append)
    assert since is not None
    assert connection.waiting_since() == since
    connection.data_received(b"+1\r\n+2\r\n")
    assert connection.waiting_since() is None


async def test_a_store_that_does_not_read_is_given_up():
    heard = Heard()
    connection, transport = connected(heard)
    transport.buffered = 1 << 30
    connection.submit(("X",), heard.replies.append)
    await asyncio.sleep(0)
    assert transport.is_aborted


async def test_a_subscribe_needs_no_reply_and_is_dropped_once_the_connection_has_ended():
    heard = Heard()
    connection, transport = connected(heard, subscribes=True)
    connection.send(("SSUBSCRIBE", "c"))
    await asyncio.sleep(0)
    connection.connection_lost(None)
    connection.send(("SSUBSCRIBE", "d"))
    await asyncio.sleep(0)
    assert transport.writes == [b"*2\r\n$10\r\nSSUBSCRIBE\r\n$1\r\nc\r\n"]
    assert heard.replies == []


# --- URLs of Sentinel ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis+sentinel://h/main", SentinelAddress((("h", 26379),), "main")),
        (
            "valkey+sentinel://u:p@h:1,[::1]:2,i/main/3",
            SentinelAddress(
                (("h", 1), ("::1", 2), ("i", 26379)),
                "main",
                Address(username="u", password="p", database=3),
            ),
        ),
        (
            "rediss+sentinel://h/main?sentinel_username=s&sentinel_password=t%40",
            SentinelAddress(
                (("h", 26379),), "main", Address(tls=True), username="s", password="t@"
            ),
        ),
    ],
)
def test_a_url_of_sentinel_names_hosts_master_database_and_credentials(
    url: str, wanted: SentinelAddress
):
    assert SentinelAddress.from_url(url) == wanted
    assert database_of(url) == wanted.master.database
    assert "t@" not in repr(wanted)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h",
        "redis+sentinel://h,/main",
        "redis+sentinel://h:99999/main",
        "redis+sentinel://h/main/zero",
        "redis+sentinel://h/main/0/1",
        "redis+sentinel:///main",
        "redis+sentinel://h/main?wrong=1",
        "redis+sentinel://u:pa#ss@h/main",
    ],
)
def test_a_wrong_url_of_sentinel_is_refused_with_a_sentence(url: str):
    with pytest.raises(ConfigError) as caught:
        load(flags={"client.insecure": True, "broker.redis_urls": [url]})
    [problem] = caught.value.problems
    assert problem.key == "broker.redis_urls"
    assert "pa#ss" not in str(problem)


def test_a_list_of_urls_with_commas_keeps_the_hosts_of_sentinel_together():
    url = "redis+sentinel://a:26379,b,c:1/main/0"
    found = load(flags={"client.insecure": True, "broker.redis_urls": url})
    assert found.broker.redis_urls == (url,)
    two = load(flags={"client.insecure": True, "broker.redis_urls": "redis://a:1,redis://b:2"})
    assert two.broker.redis_urls == ("redis://a:1", "redis://b:2")
    with pytest.raises(ConfigError, match="no other beside it"):
        load(flags={"client.insecure": True, "broker.redis_urls": f"{url},redis://d"})


def test_a_key_without_its_certificate_is_refused():
    with pytest.raises(ValueError, match="give ssl_certfile"):
        Address.from_url("rediss://h?ssl_keyfile=/etc/hostname")
