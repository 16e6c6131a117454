"""`ws-cluster up` with a store that it cannot use: it ends, and its last line says why."""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract.conftest import program
from tests.contract.servers import Server
from tests.harness.certificates import write_certificate
from tests.harness.processes import free_ports

PASSWORD = "hunter-s3cret"
WITHIN_SECONDS = 120


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(program("valkey"), tmp_path / "store") as running:
        running.ask("ACL", "SETUSER", "ann", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-xadd")
        yield running


def up(url: str, directory: Path, first: int = 0, *, store_timeout: int = 1) -> tuple[int, str]:
    """Start a cluster of one worker, on three ports; returns its exit code and all it has written."""
    first = first or free_ports(3)
    options = {
        "CLIENT__INSECURE": "true",
        "BROKER__TIMEOUT": str(store_timeout),
        "BROKER__REDIS_URLS": url,
        "SERVER__NGINX": "false",
        "SERVER__WORKERS": "1",
        "SERVER__PORT": str(first),
        "SERVER__ADMIN_PORT": str(first + 1),
        "SERVER__WORKER_PORT_BASE": str(first + 2),
        "SERVER__DATA_DIR": str(directory / "data"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "up"],
        env=os.environ | {f"WS_CLUSTER_{name}": value for name, value in options.items()},
        capture_output=True, text=True, timeout=WITHIN_SECONDS, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("ann", "wr0ng-one", "WRONGPASS"),
        ("ann", PASSWORD, "xadd"),
        ("nobody", PASSWORD, "WRONGPASS"),
    ],
    ids=["wrong password", "no permission", "unknown user"],
)
def test_the_last_line_has_the_servers_reason_and_no_password(
    server: Server, tmp_path: Path, user: str, password: str, reason: str
):
    code, text = up(f"redis://{user}:{password}@127.0.0.1:{server.port}", tmp_path)
    assert code == 3
    assert reason in text.strip().splitlines()[-1]
    assert password not in text


def test_a_certificate_that_is_not_trusted_is_the_reason_in_the_last_line(tmp_path: Path):
    certificate, key, port = tmp_path / "store.crt", tmp_path / "store.key", free_ports(8)
    # For localhost and 127.0.0.1.
    write_certificate(certificate, key)
    options: tuple[str, ...] = ("--bind", "127.0.0.1", "127.0.0.2", "--tls-port", str(port))
    options += ("--tls-auth-clients", "no", "--tls-cert-file", str(certificate))
    options += ("--tls-key-file", str(key))
    folders = [tmp_path / "unknown authority", tmp_path / "another name"]
    reasons = {
        f"rediss://localhost:{port}": "certificate verify failed: self-signed certificate",
        f"rediss://127.0.0.2:{port}?ssl_ca_certs={certificate}": "not valid for '127.0.0.2'",
    }
    with (
        Server(program("redis"), tmp_path / "tls", port=port + 1, options=options),
        ThreadPoolExecutor() as beside,
    ):
        # They wait most of the time.
        ends = list(beside.map(up, reasons, folders, (port + 2, port + 5)))
    for (code, text), reason in zip(ends, reasons.values(), strict=True):
        assert code == 3
        assert reason in text.strip().splitlines()[-1]
        assert "Traceback" not in text


def test_a_password_that_is_not_encoded_is_refused_and_not_written(server: Server, tmp_path: Path):
    code, text = up(f"redis://ann:hunter#s3cret@127.0.0.1:{server.port}", tmp_path)
    assert code == 78
    assert "percent-encode" in text
    assert "hunter" not in text
    assert "s3cret" not in text


@pytest.mark.parametrize("has_password", [True, False], ids=["wrong", "none"])
def test_a_password_that_is_refused_ends_the_start_without_waiting_or_another_attempt(
    server: Server, tmp_path: Path, has_password: bool
):
    server.ask("ACL", "SETUSER", "default", "resetpass", f">{PASSWORD}")
    user = ":wr0ng-one@" if has_password else ""
    url = f"redis://{user}127.0.0.1:{server.port}"
    # Who waited for the store, even once, would be ended by the test.
    code, text = up(url, tmp_path, store_timeout=2 * WITHIN_SECONDS)
    assert code == 3
    assert ("WRONGPASS" if has_password else "NOAUTH") in text.strip().splitlines()[-1]
    assert text.count("worker_boot_failed") == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Redis or Valkey"),
        (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
        (b"-DENIED Redis is running in protected mode\r\n", "in protected mode"),
    ],
    ids=["HTTP", "full", "protected"],
)
def test_what_answers_instead_of_a_store_is_told_in_the_last_line_and_without_a_traceback(
    tmp_path: Path, said: bytes, reason: str
):
    class Stranger(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        try:
            code, text = up(f"redis://127.0.0.1:{stranger.server_address[1]}", tmp_path)
        finally:
            stranger.shutdown()
    assert code == 3
    assert reason in text.strip().splitlines()[-1]
    assert "Traceback" not in text


def test_a_server_that_takes_no_more_clients_is_told_in_the_last_line(
    server: Server, tmp_path: Path
):
    with server.client() as only_one:
        only_one.config_set("maxclients", 1)
        code, text = up(server.url, tmp_path)
    assert code == 3
    assert "max number of clients reached" in text.strip().splitlines()[-1]
    assert "Traceback" not in text


def test_a_host_that_is_no_name_is_refused(tmp_path: Path):
    code, text = up("redis://a..b:6379", tmp_path)
    assert code == 78
    assert "between dots" in text
    assert "Traceback" not in text
