"""Random kills and signals: the cluster recovers and stops cleanly."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress

import psutil
import pytest

from tests.integration.running import eventually

SECONDS = 6.0
SIGNALS = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_kills_rolls_and_workers_that_come_and_go_leave_a_ready_cluster(a_cluster, seed):
    chance = random.Random(seed)
    policy = {"longest_seconds": 0.2, "boot_failures": 1000}
    cluster = a_cluster(workers=3, nginx=True, embedded=True, metrics=True, policy=policy).ready()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert cluster.process.poll() is None, cluster.errors()
        family = psutil.Process(cluster.process.pid).children(recursive=True)
        if family and chance.random() < 0.8:
            with suppress(psutil.NoSuchProcess):
                chance.choice(family).kill()
        else:
            cluster.signal(chance.choice(SIGNALS))
        assert cluster.get("/metrics")[0] == 200
        cluster.get("/connection/websocket", port=cluster.public)
    eventually(
        lambda: (
            len(cluster.events("operation_finished")) == len(cluster.events("operation_started"))
            and cluster.get("/ready")[0] == 200
        ),
        "all operations are done and the cluster is ready",
        60,
    )
    assert cluster.errors() == ""
    assert cluster.stop() == 0
    assert not cluster.survivors()
