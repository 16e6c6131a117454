"""The addresses of a supervisor's sockets."""

from __future__ import annotations

import dataclasses
import fcntl
import resource
import socket
import threading
from typing import Any

import pytest

from cluster.children.listeners import (
    RECEIVE_BUFFER_BYTES,
    Listeners,
    bind,
)
from cluster.config import Config
from cluster.kept_back_files import has_few_files_left
from tests.unit.local_worker import configured


def opened(**server: Any) -> Config:
    ports: dict[str, Any] = {"port": 0, "admin_port": 0, "worker_port_base": 0}
    config = configured()
    return dataclasses.replace(config, server=dataclasses.replace(config.server, **ports, **server))


@pytest.mark.parametrize(("nginx", "host"), [(True, "127.0.0.1"), (False, "0.0.0.0")])
def test_workers_behind_nginx_listen_on_loopback_only(nginx: bool, host: str):
    listeners = Listeners(opened(host="0.0.0.0", nginx=nginx), 2)
    try:
        listeners.add_slot()
        assert [sock.getsockname()[0] for sock in listeners.slots] == [host] * 3
        assert listeners.admin.getsockname()[0] == "127.0.0.1"
    finally:
        listeners.close()


@pytest.mark.parametrize(("given", "bound"), [("0.0.0.0", "0.0.0.0"), ("localhost", "127.0.0.1")])
def test_the_admin_port_listens_where_it_is_told_to(given: str, bound: str):
    listeners = Listeners(opened(host="127.0.0.1", admin_host=given, nginx=True), 1)
    try:
        assert listeners.admin.getsockname()[0] == bound
        assert listeners.public is not None
        assert listeners.public.getsockname()[0] == "127.0.0.1"
    finally:
        listeners.close()


def test_an_accepted_connection_that_takes_one_of_the_last_descriptors_is_noticed():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        socket.socket() as low,
        socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD, 1140)) as high,
    ):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1200, limits[1]))
            assert (has_few_files_left(low), has_few_files_left(high)) == (False, True)
            resource.setrlimit(resource.RLIMIT_NOFILE, (2000, limits[1]))
            assert not has_few_files_left(high)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_the_kernel_keeps_of_a_connection_does_not_grow_with_what_is_sent():
    sent = 8 * 2**20
    with bind("127.0.0.1", 0) as listener:
        listener.settimeout(30)
        with (
            socket.create_connection(listener.getsockname(), 30) as client,
            listener.accept()[0] as accepted,
        ):
            accepted.settimeout(30)
            sender = threading.Thread(target=client.sendall, args=(bytes(sent),))
            sender.start()
            received = 0
            while received < sent:
                received += len(accepted.recv(2**16))
            sender.join()
            # The kernel doubles what it is given (socket(7)).
            assert (
                accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * RECEIVE_BUFFER_BYTES
            )
