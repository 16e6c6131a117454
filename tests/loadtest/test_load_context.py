"""Addresses: what `--host` may say, and which user gets which host."""

from __future__ import annotations

from argparse import Namespace

import pytest
from locust.env import Environment

from loadtest.load_context import LoadContext, websocket_url


def context(host: str, channels: int) -> LoadContext:
    options = Namespace(channels=channels)
    return LoadContext(Environment(host=host, parsed_options=options))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("ws://one:8000", "ws://one:8000/connection/websocket"),
        ("https://one", "wss://one/connection/websocket"),
        ("one:8000", "ws://one:8000/connection/websocket"),
        ("ws://one/other/path", "ws://one/other/path"),
    ],
)
def test_a_host_becomes_the_address_of_the_websocket_endpoint(host: str, url: str):
    assert websocket_url(host) == url


@pytest.mark.parametrize("channels", [1, 2, 5, 8])
def test_every_channel_has_users_at_every_host(channels: int):
    one = context("ws://a,ws://b", channels)
    hosts = {(number % channels, one.host_of(number)[0]) for number in range(4 * channels)}
    assert hosts == {(channel, host) for channel in range(channels) for host in (0, 1)}
    assert {one.host_of(number)[1] for number in range(4)} == {
        "ws://a/connection/websocket",
        "ws://b/connection/websocket",
    }
