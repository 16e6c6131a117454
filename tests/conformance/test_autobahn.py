"""Autobahn's cases for servers, on real sockets: all with an echo server, closes with real workers."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator

import pytest

from cluster.websocket.handshake import PATH
from tests.conformance.autobahn_cases import CASES, GROUPS, Case, Frame
from tests.conformance.echo_server import serving
from tests.harness.cluster import Cluster
from tests.harness.wire import CLOSE, TEXT, frame, upgrade_request

WITHIN_SECONDS = 20.0
CONNECT = frame(TEXT, b'{"id":1,"connect":{}}')


async def next_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame of a server."""
    first, length = await reader.readexactly(2)
    assert first & 0xF0 == 0x80, "a server sends final frames without reserved bits"
    assert length < 0x80, "a server masks nothing"
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    return first & 0x0F, await reader.readexactly(length)


@contextlib.asynccontextmanager
async def opened(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket of which only the handshake is done."""
    async with asyncio.timeout(WITHIN_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(upgrade_request("x", PATH))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            yield reader, writer
        finally:
            writer.close()


async def returned(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pieces: tuple[bytes, ...]
) -> list[Frame]:
    """Every frame that comes back to these pieces; a close frame is the last that comes."""
    for piece in pieces:
        writer.write(piece)
        # The echo server shares this event loop: it reads what is there.
        await asyncio.sleep(0)
    found = [await next_frame(reader)]
    while found[-1][0] != CLOSE:
        found.append(await next_frame(reader))
    # A server that has closed without reading everything resets the connection.
    with contextlib.suppress(OSError):
        writer.write_eof()
        assert await reader.read(-1) == b""
    return found


def code_of(last: Frame) -> int:
    opcode, payload = last
    assert opcode == CLOSE
    return int.from_bytes(payload[:2], "big")


def test_every_case_is_there_once():
    groups = collections.Counter(case.number.rpartition(".")[0] for case in CASES)
    assert dict(groups) == GROUPS
    assert len({case.number for case in CASES}) == len(CASES) == sum(GROUPS.values()) == 247


def test_the_greek_word_is_autobahns_and_is_whole_after_2_5_7_9_and_11_octets():
    """It has U+1F79, of three octets, and not U+03CC, which looks the same."""
    word = bytes.fromhex("cebae1bdb9cf83cebcceb5")
    by_number = {case.number: case for case in CASES}
    prefixes = [by_number[f"6.6.{size}"] for size in range(1, 12)]
    for size, case in enumerate(prefixes, start=1):
        assert case.pieces[0] == frame(TEXT, word[:size])
    assert [n for n, case in enumerate(prefixes, start=1) if case.code == 1000] == [2, 5, 7, 9, 11]
    assert by_number["6.3.1"].pieces == (frame(TEXT, word + b"\xed\xa0\x80edited"),)


@pytest.mark.parametrize("case", CASES, ids=[case.number for case in CASES])
async def test_the_frames_are_echoed_and_closed_as_autobahn_expects(case: Case):
    async with serving() as port, opened(port) as (reader, writer):
        *before, last = await returned(reader, writer, case.pieces)
    assert tuple(before) == case.returned
    assert code_of(last) == case.code


WITHOUT_MESSAGE = [case for case in CASES if not case.has_message]


@pytest.mark.parametrize("way", ["worker", "nginx"])
@pytest.mark.parametrize("case", WITHOUT_MESSAGE, ids=[case.number for case in WITHOUT_MESSAGE])
async def test_a_worker_answers_and_closes_as_autobahn_expects(
    cluster: Cluster, case: Case, way: str
):
    """The cases in which no whole message arrives: a worker would take it for a command."""
    port = cluster.worker_port(0) if way == "worker" else cluster.port
    async with opened(port) as (reader, writer):
        writer.write(CONNECT)
        opcode, reply = await next_frame(reader)
        assert opcode == TEXT
        assert reply.startswith(b'{"id":1,"connect":{')
        *before, last = await returned(reader, writer, case.pieces)
    # A worker pings its clients, every second here.
    assert tuple(one for one in before if one != (TEXT, b"{}")) == case.returned
    assert code_of(last) == case.code
