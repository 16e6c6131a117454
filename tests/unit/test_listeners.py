"""The addresses of a supervisor's sockets."""

from __future__ import annotations

import dataclasses
import fcntl
import resource
import socket
from typing import Any

import pytest

from cluster.children.listeners import Listeners, has_few_files_left
from cluster.config import Config
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
