"""docker/preflight.sh and docker/renew-certificate.sh: what is wrong is said before anything starts."""

from __future__ import annotations

import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.harness.certificates import write_certificate
from tests.harness.processes import free_ports
from tests.unit.test_compose_files import DOCKER, admin_port


def preflight(folder: Path, docker: str = "", arguments: str = "", **variables: str) -> list[str]:
    """What docker/preflight.sh says in a copy of docker/ with new secrets.

    Args:
        folder: the copy.
        docker: lines of Bash that stand in for the program; without them there is none.
        arguments: of the script, with spaces between them.
        variables: the environment.
    """
    bare = folder / "bin"
    bare.mkdir(exist_ok=True)
    if docker:
        (bare / "docker").write_text(f"#!{shutil.which('bash')}\n{docker}\n")
        (bare / "docker").chmod(0o755)
    for name in (
        "bash",
        "sed",
        "sort",
        "head",
        "stat",
        "dirname",
        "cat",
        "openssl",
        "timeout",
    ):
        program = shutil.which(name)
        assert program is not None
        (bare / name).unlink(missing_ok=True)
        (bare / name).symlink_to(program)
    done = subprocess.run(
        [str(folder / "preflight.sh"), *arguments.split()],
        env={"PATH": str(bare), "OPEN_FILES": "64", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == (1 if done.stderr else 0)
    return [line.removeprefix("preflight: ") for line in done.stderr.splitlines()]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A copy of what the scripts read, with secrets."""
    for name in (
        *("prepare.sh", "preflight.sh", "certificate-check.sh", "env-file.sh"),
        "compose.yml",
    ):
        shutil.copy(DOCKER / name, tmp_path)
    subprocess.run([tmp_path / "prepare.sh"], check=True, capture_output=True, timeout=30)
    return tmp_path


@contextmanager
def listener(address: str) -> Iterator[int]:
    """A port at which something listens, at this address only; that of :: takes IPv4, too."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server(
        (address, free_ports(1)), family=family, dualstack_ipv6=address == "::"
    ) as sock:
        yield sock.getsockname()[1]


def ports_apart(first: int) -> dict[str, str]:
    names = ("HTTP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "RECEIVER_PORT", "GRAFANA_PORT")
    return {name: str(first + number) for number, name in enumerate(names)}


def test_the_preflight_misses_an_engine_and_nothing_else(prepared: Path):
    [said] = preflight(prepared, **ports_apart(free_ports(5)))
    assert said.startswith("docker is not installed")


#: An engine and a Compose of these versions, a stack that runs or not, and whether Valkey takes a password.
ENGINE = """case "$*" in
    *Server.Version*) echo {engine} ;;
    *"compose version"*) echo {compose} ;;
    *" ps --quiet "*) echo {running} ;;
    *" port nginx "*) echo 0.0.0.0:{published} ;;
    *" exec "*valkey*) [ "$(cat)" = "{password}" ] && echo PONG || echo NOAUTH ;;
esac"""


@pytest.mark.parametrize(
    ("versions", "sentences"),
    [
        ({}, []),
        (
            {"engine": ""},
            ["no Docker engine answers: start it, or see DOCKER_HOST and your rights"],
        ),
        (
            {"engine": "20.10.9", "compose": "v2.20.3"},
            [
                "the Docker engine is 20.10.9; 20.10.10 or later is needed",
                "docker compose is 2.20.3; 2.24 or later is needed",
            ],
        ),
        (
            {"compose": ""},
            ["docker compose is missing: install the Compose plugin, 2.24 or later"],
        ),
        (
            {"running": "3f", "password": "another"},
            [
                (
                    "docker/secrets/valkey_password is not what the running Valkey was started with:"
                    " write that back, or end the stack first (docker compose down)"
                )
            ],
        ),
    ],
)
def test_the_preflight_says_what_is_wrong_with_the_engine_or_a_stack_that_runs(
    versions: dict[str, str], sentences: list[str], prepared: Path
):
    password = (prepared / "secrets" / "valkey_password").read_text().strip()
    stands = {"engine": "28.0.1", "compose": "2.24.0", "running": "", "published": ""}
    stands["password"] = password
    docker = ENGINE.format(**stands | versions)
    assert preflight(prepared, docker, **ports_apart(free_ports(5))) == sentences


@pytest.mark.parametrize("page", ["compose.md", "swarm.md"])
def test_the_pages_and_the_scripts_want_the_same_versions(page: str):
    script = (DOCKER / "preflight.sh").read_text(encoding="utf-8")
    [engine] = re.findall(r'at_least "\$engine" ([0-9.]+)', script)
    [compose] = re.findall(r'at_least "\$compose" ([0-9.]+)', script)
    text = " ".join((ROOT / "docs/how-to" / page).read_text(encoding="utf-8").split())
    assert f"Docker Engine {engine} or later" in text
    assert f"Compose {compose} or later" in text
    deploys = (DOCKER / "deploy-stack.sh").read_text(encoding="utf-8")
    assert f"the Compose plugin, {compose} or later" in deploys


def test_the_preflight_accepts_the_password_of_the_stack_that_runs(prepared: Path):
    password = (prepared / "secrets" / "valkey_password").read_text().strip()
    docker = ENGINE.format(
        engine="28.0.1", compose="2.24.0", running="3f", password=password, published=""
    )
    assert preflight(prepared, docker, **ports_apart(free_ports(5))) == []


def test_a_port_of_the_stack_that_runs_is_not_taken_and_one_of_another_program_is(prepared: Path):
    with listener("127.0.0.1") as own, listener("127.0.0.1") as other:
        password = (prepared / "secrets" / "valkey_password").read_text().strip()
        docker = ENGINE.format(
            engine="28.0.1", compose="2.24.0", running="3f", password=password, published=own
        )
        ports = {**ports_apart(free_ports(5)), "HTTP_PORT": str(own), "GRAFANA_PORT": str(other)}
        [said] = preflight(prepared, docker, **ports)
        assert said.startswith(f"port {other} is taken, which Grafana needs: ")


def test_the_preflight_names_a_secret_that_is_missing_empty_or_unreadable(prepared: Path):
    (prepared / "secrets" / "token_key").unlink()
    (prepared / "secrets" / "api_key").write_text("")
    (prepared / "secrets" / "admin_key").chmod(0o600)
    said = preflight(prepared, **ports_apart(free_ports(5)))[1:]
    assert sorted(said) == [
        "docker/secrets/admin_key has mode 600, and user 10001 of the containers cannot read it: chmod 644",
        "docker/secrets/api_key is empty: write the secret into it, or remove it and run docker/prepare.sh",
        "docker/secrets/token_key is missing: docker/prepare.sh makes it",
    ]


def test_the_preflight_names_a_port_that_is_taken_and_a_limit_that_is_too_high(prepared: Path):
    with admin_port(200, b"") as port:
        ports = {**ports_apart(free_ports(5)), "HTTP_PORT": str(port), "PROMETHEUS_PORT": "0"}
        ports["GRAFANA_PORT"] = str(port)
        said = preflight(prepared, OPEN_FILES="2000000000", **ports)[1:]
    assert said[0].startswith(f"port {port} is taken, which nginx needs")
    assert said[1] == "PROMETHEUS_PORT is 0; give a port from 1 to 65535"
    assert said[2].startswith(f"port {port} is taken, which Grafana needs")
    assert said[3].startswith("OPEN_FILES is 2000000000, and this machine allows")
    assert len(said) == 4


@pytest.mark.parametrize(
    ("listens", "published", "is_taken"),
    [
        # Compose publishes on every address of the machine, of IPv4 and of IPv6.
        ("127.0.0.2", "{port}", True),
        ("::1", "{port}", True),
        ("0.0.0.0", "{port}", True),
        ("::", "{port}", True),
        # … or on the one that is named.
        ("127.0.0.2", "127.0.0.2:{port}", True),
        ("127.0.0.2", "127.0.0.1:{port}", False),
        ("0.0.0.0", "127.0.0.1:{port}", True),
        ("::", "127.0.0.1:{port}", True),
        ("::1", "127.0.0.1:{port}", False),
        ("::1", "[::1]:{port}", True),
        ("::", "[::1]:{port}", True),
        ("127.0.0.1", "[::1]:{port}", False),
        ("127.0.0.2", "0.0.0.0:{port}", True),
        ("::1", "0.0.0.0:{port}", False),
        ("::1", "[::]:{port}", True),
        ("127.0.0.1", "[::]:{port}", False),
    ],
)
def test_a_port_is_taken_by_whoever_listens_at_an_address_that_is_published(
    listens: str, published: str, is_taken: bool, prepared: Path
):
    with listener(listens) as port:
        ports = {**ports_apart(free_ports(5)), "HTTP_PORT": published.format(port=port)}
        said = preflight(prepared, **ports)[1:]
    wanted = [f"port {port} is taken, which nginx needs: end what listens there, or set HTTP_PORT to another one"]  # fmt: skip
    assert said == (wanted if is_taken else [])


@pytest.mark.parametrize(
    ("listens", "is_taken"), [("127.0.0.1", True), ("127.0.0.2", False), ("::", True)]
)
def test_what_is_published_on_loopback_only_needs_the_port_there_only(
    listens: str, is_taken: bool, prepared: Path
):
    with listener(listens) as port:
        said = preflight(prepared, **{**ports_apart(free_ports(5)), "GRAFANA_PORT": str(port)})[1:]
    assert [f"port {port} is taken, which Grafana needs" in one for one in said] == [
        True
    ] * is_taken


def test_a_port_with_an_address_is_refused_where_compose_has_put_one(prepared: Path):
    ports = {**ports_apart(free_ports(5)), "GRAFANA_PORT": "0.0.0.0:3000"}
    assert preflight(prepared, **ports)[1:] == [
        "GRAFANA_PORT is 0.0.0.0:3000; give a port from 1 to 65535"
    ]


@pytest.mark.parametrize(
    ("arguments", "variables", "is_asked_for"),
    [
        ("", {}, False),
        ("--profile logs", {"COMPOSE_PROFILES": "drill"}, False),
        ("--profile load", {}, True),
        ("--profile=logs --profile=load", {}, True),
        ("--profile *", {}, True),
        ("", {"COMPOSE_PROFILES": "logs,load"}, True),
    ],
)
def test_the_port_of_locust_is_wanted_only_with_the_profile_load(
    arguments: str, variables: dict[str, str], is_asked_for: bool, prepared: Path
):
    with listener("127.0.0.1") as port:
        ports = {**ports_apart(free_ports(5)), "LOCUST_PORT": str(port), **variables}
        said = preflight(prepared, "", arguments, **ports)[1:]
    wanted = [f"port {port} is taken, which Locust needs: end what listens there, or set LOCUST_PORT to another one"]  # fmt: skip
    assert said == (wanted if is_asked_for else [])


def test_the_port_of_locust_that_runs_is_not_taken(prepared: Path):
    with listener("127.0.0.1") as port:
        docker = f"""[[ "$COMPOSE_PROFILES" != load ]] || case "$*" in
            *Server.Version*) echo 28.0.1 ;;
            *"compose version"*) echo 2.24.0 ;;
            *" port load-master 8089") echo 127.0.0.1:{port} ;;
        esac"""
        ports = {**ports_apart(free_ports(5)), "LOCUST_PORT": str(port)}
        assert preflight(prepared, docker, "--profile load", **ports) == []


def test_the_preflight_names_an_argument_that_it_does_not_know(prepared: Path):
    assert preflight(prepared, "", "--profiles") == [
        "--profiles is not known; what can be given is --profile NAME, as to docker compose"
    ]


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("right", ""),
        ("alone", "docker/secrets needs both tls_certificate and tls_key, or neither"),
        (
            "another",
            "docker/secrets/tls_certificate and docker/secrets/tls_key do not match: the certificate is of another key",
        ),
        ("expired", "docker/secrets/tls_certificate has expired"),
        ("text", "docker/secrets/tls_certificate is no certificate in PEM"),
        (
            "private",
            "docker/secrets/tls_key has mode 600, and user 10001 of the containers cannot read it: chmod 644",
        ),
    ],
)
def test_the_preflight_says_what_is_wrong_with_a_certificate(
    what: str, sentence: str, prepared: Path
):
    certificate, key = (prepared / "secrets" / name for name in ("tls_certificate", "tls_key"))
    write_certificate(certificate, key, valid=timedelta(days=-1 if what == "expired" else 1))
    key.chmod(0o600 if what == "private" else 0o644)
    if what == "alone":
        key.unlink()
    elif what == "another":
        write_certificate(prepared / "other", key)
    elif what == "text":
        certificate.write_text("text\n")
    ports = {**ports_apart(free_ports(5)), "HTTPS_PORT": str(free_ports(1))}
    assert preflight(prepared, **ports)[1:] == ([sentence] if sentence else [])


def test_a_certificate_that_does_not_match_is_not_put_in_place(prepared: Path):
    for name in ("renew-certificate.sh", "tls.yml"):
        shutil.copy(DOCKER / name, prepared)
    first, second = prepared / "first", prepared / "second"
    write_certificate(first, prepared / "first.key")
    write_certificate(second, prepared / "second.key")

    def renew(certificate: Path, key: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [prepared / "renew-certificate.sh", certificate, key],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert renew(first, prepared / "first.key").returncode == 0
    kept = prepared / "secrets" / "tls_certificate"
    before = kept.stat().st_ino
    done = renew(second, prepared / "first.key")
    assert done.returncode == 1
    assert done.stderr.endswith("is of another key; nothing was changed\n")
    assert kept.read_bytes() == first.read_bytes()
    assert renew(second, prepared / "second.key").returncode == 0
    assert renew(kept, prepared / "secrets" / "tls_key").returncode == 0, "its own files"
    # The same file: the container has it mounted.
    assert (kept.stat().st_ino, kept.read_bytes()) == (before, second.read_bytes())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o644


def test_the_preflight_reads_the_variables_of_the_file(prepared: Path):
    (prepared / ".env").write_text("HTTP_PORT=nothing\n")
    ports = ports_apart(free_ports(5))
    del ports["HTTP_PORT"]
    assert "HTTP_PORT is nothing; give a port from 1 to 65535" in preflight(prepared, **ports)


def test_the_preflight_and_the_deployment_say_what_is_wrong_with_the_file(prepared: Path):
    (prepared / ".env").write_text("HTTP_PORT 80\n")
    assert preflight(prepared, **ports_apart(free_ports(5)))[0] == (
        "line 1 of docker/.env is no NAME=VALUE"
    )
    shutil.copy(DOCKER / "deploy-stack.sh", prepared)
    done = subprocess.run(
        [prepared / "deploy-stack.sh"], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr == f"deploy-stack: line 1 of {prepared}/.env is no NAME=VALUE\n"
