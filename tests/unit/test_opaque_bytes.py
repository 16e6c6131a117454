"""What a token says of its user reaches its readers byte for byte in both codecs, and `meta` no client."""

from __future__ import annotations

import base64

import pytest

from cluster.config import ChannelOptions, Config, TokenConfig
from tests.unit.local_worker import LocalWorker, ask, configured
from tests.unit.test_opaque_data import KEY, signed
from tests.unit.test_websocket_protobuf import BY_SUBPROTOCOL, protobuf_caller

#: Each with what is JSON but not what a parser would write again, and bytes that are no JSON.
BYTES = [b'{"n":1.50,"n":1E400}', b'"\\u00e9"', b"\0\xff\xfe", b"{", b'"data:;base64,AAEC"']
OPEN = ChannelOptions(
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_presence_for_client=True,
)


def with_tokens() -> Config:
    return configured(options=OPEN, token=TokenConfig(hmac_secret_key=KEY))


def of(**claims: bytes) -> str:
    """A token with these claims, which are JSON text."""
    return signed(b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), text) for name, text in claims.items()))  # fmt: skip


def encoded(data: bytes) -> bytes:
    return b'"%b"' % base64.b64encode(data)


@pytest.mark.parametrize("data", BYTES)
async def test_info_and_data_of_tokens_reach_protobuf_clients_as_the_bytes_that_they_were(
    data: bytes,
):
    async with LocalWorker(with_tokens()).open() as worker:
        subs = b'{"given":{"b64info":%b,"b64data":%b}}' % (encoded(data), encoded(data))
        ann = await protobuf_caller(
            worker, headers=BY_SUBPROTOCOL, token=of(sub=b'"ann"', b64info=encoded(data), subs=subs)
        )
        given = ann.heard[0].connect.subs["given"]
        assert given.data == data
        token = of(sub=b'"ann"', channel=b'"a"', b64info=encoded(data), b64data=encoded(data))
        subscribed = await ann.ask(2, "subscribe", channel="a", token=token)
        assert subscribed.subscribe.data == data
        [joined, *_] = await ann.until(
            lambda: [one.push.join.info for one in ann.heard if one.push.channel == "a"]
        )
        assert (joined.conn_info, joined.chan_info) == (data, data)
        for number, channel in enumerate(("a", "given"), start=3):
            found = (await ann.ask(number, "presence", channel=channel)).presence.presence
            [info] = found.values()
            assert (info.user, info.conn_info, info.chan_info) == ("ann", data, data)
        await ann.ask(5, "publish", channel="a", data=b"1")
        [pub] = await ann.until(
            lambda: [one.push.pub for one in ann.heard if one.push.HasField("pub")]
        )
        assert (pub.info.conn_info, pub.info.chan_info) == (data, data)


@pytest.mark.parametrize(
    "meta", [b'{"n":1.50,"n":1E400}', b'{ "a" :\t[ ] }', b'{"cut":"\\ud83d"}', b"{}"]
)
async def test_the_meta_of_a_token_is_kept_as_text_and_no_client_sees_it(meta: bytes):
    async with LocalWorker(with_tokens()).open() as worker:
        token = of(sub=b'"ann"', info=b'{"seen":1}', meta=meta)
        caller = await worker.caller()
        await caller.connect(token=token)
        await protobuf_caller(worker, headers=BY_SUBPROTOCOL, token=token)
        for client in worker.node.clients.of("ann"):
            assert client.connection.claims.meta == meta
        assert len(list(worker.node.clients.of("ann"))) == 2
        await ask(caller, "subscribe", channel="a")
        await ask(caller, "publish", channel="a", data=1)
        await ask(caller, "presence", channel="a")
        await caller.until(lambda: caller.pubs() == [1])
        heard = b"\n".join(caller.lines)
        assert b'"seen"' in heard
        assert b"meta" not in heard
        assert meta not in heard or meta == b"{}"


@pytest.mark.parametrize("meta", [b"1", b'"text"', b"[{}]", b"{" + b'"a":{' * 600 + b"}" * 601])
async def test_a_meta_that_is_no_object_or_too_deep_is_refused(meta: bytes):
    async with LocalWorker(with_tokens()).open() as worker:
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {"token": of(sub=b'"ann"', meta=meta)}})
        assert (await caller.closed())[0] == 3500
