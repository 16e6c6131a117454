"""The addresses of a supervisor's sockets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cluster.children.listeners import Listeners
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
        assert listeners.admin.getsockname()[0] == "0.0.0.0"
    finally:
        listeners.close()
