"""A real Sentinel, master and replica that speak TLS only to those who show a certificate of their authority."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from cluster.config import BrokerConfig, Config
from cluster.metrics.counters import Counters
from cluster.worker.stores import RedisStores
from tests.contract.conftest import program
from tests.contract.servers import Sentinel, Server
from tests.contract.stores import KEEP, Recorder
from tests.contract.test_store_reasons import failure
from tests.harness.processes import free_ports
from tests.harness.waiting import until

WITHIN = 30.0


class Authority:
    """Signs certificates for the addresses of this machine."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.certificate = directory / "ca.crt"
        self._key = directory / "ca.key"
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=authority of the test", "-addext", "keyUsage=critical,keyCertSign"),
            *("-keyout", self._key, "-out", self.certificate),
        )

    def issued(self, name: str) -> tuple[Path, Path]:
        """A certificate, and its key."""
        certificate, key = (self._directory / f"{name}.{end}" for end in ("crt", "key"))
        request, names = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", key, "-out", request),
        )
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", "1", "-extfile", names, "-out", certificate),
        )
        return certificate, key


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@dataclass
class Deployment:
    """What a worker is given: where the sentinel is, and the files of TLS."""

    sentinel_port: int
    master: Server
    replica_port: int
    authority: Authority
    client: tuple[Path, Path]

    def url(self, **changes: object) -> str:
        """The --redis-url; an option that is None is left out."""
        certificate, key = self.client
        options: dict[str, object] = {
            "ssl_ca_certs": self.authority.certificate,
            "ssl_certfile": certificate,
            "ssl_keyfile": key,
            **changes,
        }
        given = urlencode({name: value for name, value in options.items() if value is not None})
        return f"rediss+sentinel://127.0.0.1:{self.sentinel_port}/main/0?{given}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def deployment(tmp_path: Path, authority: Authority) -> Iterator[Deployment]:
    certificate, key = authority.issued("server")
    tls = (
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(authority.certificate)),
        *("--tls-auth-clients", "yes", "--tls-replication", "yes"),
    )
    first, second, third = (free_ports(1) for _ in range(3))
    binary = program("redis")
    options: tuple[str, ...] = ("--tls-port", str(first), *tls)
    with Server(binary, tmp_path / "master", options=options) as master:
        options = ("--tls-port", str(second), *tls, "--replicaof", f"127.0.0.1 {first}")
        with Server(binary, tmp_path / "replica", options=options) as replica:
            watched = Server(binary, tmp_path, port=first)
            options = ("--tls-port", str(third), *tls)
            with Sentinel(binary, tmp_path / "sentinel", watched, options=options) as sentinel:
                wait_for_replica(sentinel, replica)
                yield Deployment(third, master, second, authority, authority.issued("client"))


def wait_for_replica(sentinel: Server, replica: Server) -> None:
    async def waiting() -> None:
        await until(
            lambda: replica.ask("INFO", "replication")["master_link_status"] == "up",
            WITHIN,
            "the replica follows over TLS",
        )
        await until(
            lambda: sentinel.ask("SENTINEL", "replicas", "main") != [], WITHIN, "it is known"
        )

    asyncio.run(waiting())


async def test_master_and_sentinel_are_reached_over_tls_also_after_a_failover(
    deployment: Deployment,
):
    config = Config(broker=BrokerConfig(redis_urls=(deployment.url(),), timeout=2.0))
    stores, recorder = RedisStores(config, Counters(), name="one"), Recorder()
    broker = stores.open_broker(recorder)
    stores.open_sessions(recorder)
    try:
        await asyncio.wait_for(stores.start(), WITHIN)
        await asyncio.wait_for(broker.subscribe("c"), WITHIN)
        broker.publish("c", b'{"data":1}', KEEP, 0, lambda position: None)
        await recorder.until(lambda: recorder.bodies() == [b'{"data":1}'])
        deployment.master.stop()
        await until(
            lambda: (
                [one.address.port for one in stores._router.shards] == [deployment.replica_port]
            ),
            WITHIN,
            "the promoted replica is used",
        )
        await until(lambda: stores.is_up and broker.is_subscribed("c"), WITHIN, "it serves")
        broker.publish("c", b'{"data":2}', KEEP, 0, lambda position: None)
        await recorder.until(lambda: recorder.bodies()[1:] == [b'{"data":2}'])
    finally:
        await stores.aclose()


async def test_the_true_reason_is_given_when_a_certificate_is_wrong(
    deployment: Deployment, tmp_path: Path
):
    assert await failure(deployment.url()) == ""
    other = Authority(tmp_path / "other")
    text = await failure(deployment.url(ssl_ca_certs=other.certificate))
    assert "certificate verify failed" in text, text
    text = await failure(deployment.url(ssl_ca_certs=None))
    assert "certificate verify failed" in text, text
    # A client that shows nothing, or a certificate of another authority.
    text = await failure(deployment.url(ssl_certfile=None, ssl_keyfile=None))
    assert "certificate" in text, text
    certificate, key = other.issued("stranger")
    text = await failure(deployment.url(ssl_certfile=certificate, ssl_keyfile=key))
    assert "unknown ca" in text.lower() or "certificate" in text, text
    assert "ConnectionPool" not in text, "no object of a library"
    text = await failure(deployment.url().replace("/main/", "/another/"))
    assert text.endswith(
        f"names no master another: 127.0.0.1:{deployment.sentinel_port} knows main"
    )
