"""The unix sockets over which nginx reaches the workers."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cluster.children.listeners import UnavailableResponder, address, bind
from cluster.children.local_sockets import LocalSockets, bind_local


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_a_socket_that_was_left_is_replaced_and_only_its_owner_may_connect(tmp_path: Path):
    path = tmp_path / "w0"
    bind_local(path).close()
    with bind_local(path) as again, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert mode(path) == "0o600"
        assert address(again) == f"unix:{path}"


def test_a_group_may_be_let_in(tmp_path: Path):
    with bind_local(tmp_path / "w0", os.getgid()):
        assert mode(tmp_path / "w0") == "0o660"
        assert (tmp_path / "w0").stat().st_gid == os.getgid()


def test_each_slot_has_a_socket_that_is_removed_with_it(tmp_path: Path):
    sockets = LocalSockets(lambda: tmp_path, None)
    opened = [sockets.open(slot) for slot in range(3)]
    assert all(opened)
    sockets.close(1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w0", "w2"]
    assert sockets.open(1) is not None
    sockets.close_all()
    assert list(tmp_path.iterdir()) == []


def test_what_makes_the_sockets_impossible_is_logged_once(tmp_path: Path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with capture_logs() as logs:
        sockets = LocalSockets(lambda: folder, None)
        assert [sockets.open(slot) for slot in range(3)] == [None] * 3
    [warning] = logs
    assert warning["event"] == "worker_sockets_not_opened"
    assert warning["log_level"] == "warning"
    assert warning["reason"] == "AF_UNIX path too long"
    assert "over TCP" in warning["hint"]


def test_without_a_directory_no_slot_has_a_socket():
    def none() -> Path:
        raise OSError("no directory is open to nginx's user")

    with capture_logs() as logs:
        assert LocalSockets(none, 65534).open(0) is None
    assert [one["reason"] for one in logs] == ["no directory is open to nginx's user"]


async def answer(family: int, at: str | tuple[str, int]) -> bytes:
    """The answer to a request; nothing if none comes soon."""
    loop = asyncio.get_running_loop()
    with socket.socket(family) as client:
        client.setblocking(False)
        await loop.sock_connect(client, at)
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\n\r\n")
        return await loop.sock_recv(client, 100)


async def test_a_slot_without_a_worker_answers_503_on_its_port_and_on_its_unix_socket(
    tmp_path: Path,
):
    with bind("127.0.0.1", 0) as port, bind_local(tmp_path / "w0") as local:
        responder = UnavailableResponder(port, local)
        responder.set_active(True)
        ways = ((socket.AF_INET, port.getsockname()), (socket.AF_UNIX, str(tmp_path / "w0")))
        async with asyncio.timeout(10):
            for way in ways:
                assert (await answer(*way)).startswith(b"HTTP/1.1 503 ")
        responder.set_active(False)
        waiting = [asyncio.create_task(answer(*way)) for way in ways]
        # They wait in the kernel for the worker that the slot will have.
        assert not (await asyncio.wait(waiting, timeout=0.1))[0]
        responder.set_active(True)
        async with asyncio.timeout(10):
            assert all(text.startswith(b"HTTP/1.1 503 ") for text in await asyncio.gather(*waiting))
        responder.close()


@pytest.mark.parametrize("slot", [0, 1])
def test_a_slot_that_has_none_can_be_closed(slot: int, tmp_path: Path):
    LocalSockets(lambda: tmp_path, None).close(slot)
