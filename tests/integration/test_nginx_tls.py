"""The nginx of the containers with a certificate: https and wss in front of a real cluster."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from cluster import cli
from cluster.children.binaries import nginx_program
from tests.harness.certificates import write_certificate
from tests.harness.cluster import Cluster
from tests.harness.processes import free_ports
from tests.harness.waiting import until_async

pytestmark = pytest.mark.slow


def tls_folder(folder: Path) -> Path:
    folder.mkdir()
    write_certificate(folder / "tls_certificate", folder / "tls_key")
    return folder


def context(certificate: Path, most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(certificate))
    if most is not None:
        # Old versions of OpenSSL's own defaults must not be what refuses it.
        made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version = ssl.TLSVersion.TLSv1
        made.maximum_version = most
    return made


async def handshake(port: int, how: ssl.SSLContext) -> tuple[str, str, int]:
    """Version, cipher, and serial number of the certificate."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=how)
    try:
        tls = writer.get_extra_info("ssl_object")
        certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
        return tls.version(), tls.cipher()[0], certificate.serial_number
    finally:
        writer.close()


@asynccontextmanager
async def nginx(
    cluster: Cluster, folder: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """An nginx with the configuration of a container; its two ports, and its process."""
    monkeypatch.setenv("WS_CLUSTER_SERVER__WORKER_PORT_BASE", str(cluster.worker_port_base))
    monkeypatch.setenv("WS_CLUSTER_SERVER__ADMIN_PORT", str(cluster.admin_port))
    monkeypatch.setenv("WS_CLUSTER_CLIENT__INSECURE", "true")
    plain = free_ports(2)
    conf = folder / "nginx.conf"
    flags = ["--app", "127.0.0.1", "--workers", "2", "--file-limit", "1000", "--processes", "1"]
    flags += ["--listen", f"127.0.0.1:{plain}", "--tls-listen", f"127.0.0.1:{plain + 1}"]
    # The nginx of the wheel has no stub_status.
    flags += ["--status-listen", "", "--tls-from", str(secrets), "--hsts", "365d"]
    assert cli.main(["nginx-config", *flags, "--output", str(conf)]) == 0
    program = subprocess.Popen(
        [nginx_program(), "-p", f"{folder}/", "-c", conf, "-e", "stderr"],
        stdout=subprocess.DEVNULL,
    )
    try:

        async def answers() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", plain)
            except OSError:
                return False
            writer.close()
            return True

        await until_async(answers, 20, "nginx answers")
        yield plain, plain + 1, program
    finally:
        program.terminate()
        program.wait(20)


async def test_clients_connect_over_tls_and_a_renewal_moves_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    secrets = tls_folder(tmp_path / "secrets")
    certificate = secrets / "tls_certificate"
    (tmp_path / "nginx").mkdir()
    async with (
        Cluster(tmp_path / "cluster", workers=2) as cluster,
        nginx(cluster, tmp_path / "nginx", secrets, monkeypatch) as (plain, port, program),
        aiohttp.ClientSession() as session,
    ):
        how = context(certificate)
        url = f"wss://127.0.0.1:{port}/connection/websocket"
        async with session.ws_connect(url, ssl=how) as socket:
            await socket.send_str('{"id":1,"connect":{}}')
            assert "client" in json.loads(await socket.receive_str())["connect"]

            version, cipher, old = await handshake(port, how)
            assert version == "TLSv1.3"
            version, cipher, _ = await handshake(port, context(certificate, ssl.TLSVersion.TLSv1_2))
            assert (version, cipher[:5]) == ("TLSv1.2", "ECDHE")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await handshake(port, context(certificate, ssl.TLSVersion.TLSv1_1))

            async with session.get(f"https://127.0.0.1:{port}/health", ssl=how) as answer:
                assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
            async with session.get(f"http://127.0.0.1:{plain}/health") as answer:
                assert "Strict-Transport-Security" not in answer.headers

            new = write_certificate(certificate, secrets / "tls_key")
            assert new != old
            program.send_signal(1)

            async def has_new_certificate() -> bool:
                try:
                    return (await handshake(port, context(certificate)))[2] == new
                except ssl.SSLError:
                    return False

            await until_async(has_new_certificate, 20, "nginx has the new certificate")
            await socket.send_str('{"id":2,"publish":{"channel":"a","data":{}}}')
            assert json.loads(await socket.receive_str())["id"] == 2


# --- what is wrong with the files ----------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("alone", "is there alone: give both tls_certificate and tls_key"),
        ("another", "do not match: the certificate is of another key"),
        ("expired", "has expired on 20"),
        ("text", "is no certificate in PEM"),
        ("no key", "is no private key in PEM without a password"),
    ],
)
def test_a_certificate_that_nginx_could_not_use_is_a_sentence(
    what: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    secrets = tls_folder(tmp_path / "secrets")
    certificate, key = secrets / "tls_certificate", secrets / "tls_key"
    if what == "alone":
        key.unlink()
    elif what == "another":
        write_certificate(tmp_path / "other", key)
    elif what == "expired":
        write_certificate(certificate, key, valid=timedelta(days=-1))
    else:
        {"text": certificate, "no key": key}[what].write_text("text\n")
    monkeypatch.setenv("WS_CLUSTER_CLIENT__INSECURE", "true")
    flags = ["--app", "app", "--workers", "2", "--tls-from", str(secrets)]
    assert cli.main(["nginx-config", *flags]) == 3
    assert sentence in capsys.readouterr().err


def test_without_the_files_there_is_no_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WS_CLUSTER_CLIENT__INSECURE", "true")
    flags = ["--app", "app", "--workers", "2", "--tls-from", str(tmp_path), "--hsts", "365d"]
    assert cli.main(["nginx-config", *flags]) == 0
    text = capsys.readouterr().out
    assert "ssl" not in text
    assert "Strict" not in text
