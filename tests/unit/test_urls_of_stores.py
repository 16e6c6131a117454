"""URLs of stores: their database is read once, their passwords are shown nowhere, and files may hold these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import pytest

from cluster import config, supervisor
from cluster.config import redis_url, sentinel_url, sources, without_password
from cluster.config.redis_url import Address, database_of
from cluster.config.sentinel_url import SentinelAddress
from cluster.errors import ConfigError

# Digits of other alphabets are digits for int() and for str.isdigit().
NO_NUMBERS = ["+3", "%2B5", "1_0", "%201", "-1", "%D9%A3", "%C2%B2", "0x1", "1.0", "9" * 5000]


def loaded(url: str, **flags: Any) -> config.Config:
    return config.load(flags={"client.insecure": True, "broker.redis_urls": [url], **flags})


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize(
    "form", ["redis://h?db={}", "unix:///run/x?db={}", "redis+sentinel://h/m?db={}"]
)
def test_a_database_that_is_not_digits_alone_is_refused(form: str, number: str):
    with pytest.raises(ConfigError) as caught:
        loaded(form.format(number))
    [problem] = caught.value.problems
    assert problem.key == "broker.redis_urls"
    assert "db" in problem.allowed


@pytest.mark.parametrize("form", ["redis://h/{}", "redis+sentinel://h/m/{}"])
def test_a_database_in_the_path_that_is_too_long_for_a_number_is_refused(form: str):
    with pytest.raises(ConfigError):
        loaded(form.format("9" * 5000))


@pytest.mark.parametrize("url", ["redis://h?db=007", "unix:///run/x?db=12", "redis://h?d%62=%33"])
def test_the_database_in_key_names_is_the_one_that_redis_py_reads(url: str):
    assert database_of(url) == Address.from_url(url).database > 0


@pytest.mark.parametrize(
    "name", ["sentinel_password", "sentinel%5Fpassword", "%73entinel_passwor%64"]
)
def test_a_password_of_the_sentinels_is_never_printed(name: str):
    url = f"redis+sentinel://h/m?client_name=a&{name}=hunter2&sentinel_username=bob"
    assert SentinelAddress.from_url(url).password == "hunter2"
    assert "hunter2" not in without_password(url)
    assert without_password(url).endswith("&sentinel_username=bob")
    assert "client_name=a" in without_password(url)
    assert "hunter2" not in json.dumps(config.printable(loaded(url)))


def test_the_sentinels_password_may_be_in_a_file(tmp_path: Path):
    (tmp_path / "secret").write_text("t@ &=#+%\n")
    flags = {"broker.sentinel_password_file": str(tmp_path / "secret")}
    found = loaded("redis+sentinel://u:p@h,i:7/m/2?sentinel_username=bob", **flags)
    [url] = found.broker.redis_urls
    address = SentinelAddress.from_url(url)
    assert (address.username, address.password) == ("bob", "t@ &=#+%")
    assert (address.master.password, address.master.database) == ("p", 2)
    assert "t@" not in json.dumps(config.printable(found))
    assert "t%40" not in json.dumps(config.printable(found))


def test_a_password_of_the_sentinels_in_the_url_is_kept():
    given = "redis+sentinel://h/m?sentinel%5Fpassword=own"
    [url] = loaded(given, **{"broker.sentinel_password": "other"}).broker.redis_urls
    assert SentinelAddress.from_url(url).password == "own"


def test_the_sentinels_password_is_not_sent_to_a_server_that_is_no_sentinel():
    found = loaded("redis://h", **{"broker.sentinel_password": "watch"})
    assert found.broker.redis_urls == ("redis://h",)


def strict_urlsplit(url: str) -> SplitResult:
    """As CPython 3.12.10 has it, which takes brackets around the only host alone."""
    parts = urlsplit(url)
    before, is_bracketed, rest = parts.netloc.rpartition("@")[2].partition("[")
    port = rest.partition("]")[2]
    if is_bracketed and (before or (port and not port.startswith(":"))):
        raise ValueError("Invalid IPv6 URL")
    return parts


@pytest.mark.parametrize(
    ("hosts", "wanted"),
    [
        ("h1:7,[::1]:26379", (("h1", 7), ("::1", 26379))),
        ("[::1]:26379,h", (("::1", 26379), ("h", 26379))),
        ("[::1],[::2]", (("::1", 26379), ("::2", 26379))),
    ],
)
def test_sentinels_may_have_addresses_of_ipv6_whatever_urlsplit_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hosts: str, wanted: tuple[tuple[str, int], ...]
):
    for module in (redis_url, sentinel_url, sources, supervisor):
        monkeypatch.setattr(module, "urlsplit", strict_urlsplit, raising=False)
    authority = tmp_path / "authority.pem"
    authority.touch()
    given = f"redis+sentinel://ann@{hosts}/m/3?client_name=/{authority}"
    passwords = {"broker.redis_password": "p@[", "broker.sentinel_password": "watch"}
    found = loaded(given, **passwords)
    [url] = found.broker.redis_urls
    address = SentinelAddress.from_url(url)
    assert address.sentinels == wanted
    assert (address.master.username, address.master.password) == ("ann", "p@[")
    assert (address.password, database_of(url)) == ("watch", 3)
    assert without_password(url).startswith(f"redis+sentinel://ann:***@{hosts}/m/3?")
    assert supervisor._needed_files(found) == [Path(f"/{authority}")]
