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
from tests.contract.test_store_reasons import failure
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


@pytest.fixture
def strict_port(tmp_path: Path, certificate: Path) -> Iterator[int]:
    """A server that asks for a client's certificate."""
    port = free_ports(1)
    key = certificate.with_suffix(".key")
    options = (
        *("--tls-port", str(port), "--tls-auth-clients", "yes"),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(certificate)),
    )
    with Server(program("redis"), tmp_path / "strict", options=options):
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


async def test_a_client_shows_the_certificate_that_the_url_names(
    strict_port: int, certificate: Path
):
    url = f"rediss://localhost:{strict_port}?ssl_ca_certs={certificate}"
    key = certificate.with_suffix(".key")
    assert await connects(f"{url}&ssl_certfile={certificate}&ssl_keyfile={key}")
    assert not await connects(url)


async def test_a_certificate_that_is_not_trusted_is_the_reason_that_is_given(tls_port: int):
    assert "certificate verify failed" in await failure(f"rediss://localhost:{tls_port}")
    assert await failure(f"redis://localhost:{tls_port}") != "", "TLS is spoken there"


@pytest.mark.parametrize(
    "options",
    [
        "ssl_ca_certs=/not/there.pem",
        "ssl_certfile=/not/there.pem",
        "ssl_cert_reqs=perhaps",
        "ssl_check_hostname=perhaps",
        "ssl_nonsense=1",
        "ssl_password=x",
    ],
)
def test_what_tls_cannot_use_is_refused_with_a_sentence(options: str):
    with pytest.raises(ValueError, match=r"give |use only"):
        Address.from_url(f"rediss://localhost?{options}")
