"""A real server with TLS: the options of a rediss URL are used."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config.redis_url import Address
from cluster.errors import StoreUnavailable
from cluster.resp.router import Router
from tests.contract.conftest import program
from tests.contract.servers import Server
from tests.harness.processes import free_ports

SUBJECT = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that is its own authority; the key is beside it."""
    path = tmp_path / "server.crt"
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *SUBJECT)
    subprocess.run(
        [*command, "-keyout", path.with_suffix(".key"), "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    return path


@pytest.fixture
def tls_port(tmp_path: Path, certificate: Path) -> Iterator[int]:
    port = free_ports(1)
    options = (
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *(
            "--tls-cert-file",
            str(certificate),
            "--tls-key-file",
            str(certificate.with_suffix(".key")),
        ),
    )
    with Server(program("redis"), tmp_path / "tls", options=options):
        yield port


async def connects(url: str) -> bool:
    Address.from_url(url)
    router = Router([url], timeout_seconds=1.0)
    try:
        await asyncio.wait_for(router.start(), 10)
        await router.call("key", "SET", "key", "1")
    except StoreUnavailable:
        return False
    finally:
        await router.aclose()
    return True


async def test_a_server_is_trusted_by_the_authority_that_the_url_names(
    tls_port: int, certificate: Path
):
    named = f"ssl_ca_certs={certificate}"
    assert await connects(f"rediss://localhost:{tls_port}/1?{named}")
    assert await connects(f"valkeys://127.0.0.1:{tls_port}?{named}&ssl_check_hostname=false")
    assert await connects(f"rediss://127.0.0.1:{tls_port}?ssl_cert_reqs=none")
    assert not await connects(f"rediss://127.0.0.1:{tls_port}?{named}"), "of another name"
    assert not await connects(f"rediss://localhost:{tls_port}"), "of an unknown authority"
