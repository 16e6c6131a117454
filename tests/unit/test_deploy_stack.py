"""docker/deploy-stack.sh, with a stand-in for `docker`: what it deploys, and what a change of a file renames."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tests.harness.certificates import write_certificate
from tests.unit.test_compose_files import DOCKER

#: A manager of a swarm of one service, which runs at once.
ENGINE = r"""#!/usr/bin/env bash
cd "$(dirname "$0")"
echo "$*" >>calls
case "$*" in
    "info --format {{.Swarm.ControlAvailable}}") echo true ;;
    "node ls "*) echo machine ;;
    *" nginx-config "*) echo "# nginx" ;;
    *" monitoring-config "*) tar -C rendered -c . ;;
    "stack deploy "*) env | grep _VERSION= >versions ;;
    "stack services "*) echo ws-cluster_nginx ;;
    "service ls "*) echo "ws-cluster_nginx 1/1" ;;
esac
"""


@dataclass
class Deployment:
    """A copy of docker/ with secrets, and a folder of programs with the stand-in."""

    folder: Path
    programs: Path

    def run(self, *arguments: str, **variables: str) -> str:
        """Run the script; returns its complaint, "" if it has deployed."""
        (self.programs / "calls").unlink(missing_ok=True)
        done = subprocess.run(
            [self.folder / "deploy-stack.sh", *arguments],
            env={"PATH": f"{self.programs}:{os.environ['PATH']}", **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == (1 if done.stderr else 0)
        return done.stderr.removeprefix("deploy-stack: ").strip()

    def called(self, part: str) -> str:
        """The one command of docker with this part; paths in the copy are relative."""
        calls = (self.programs / "calls").read_text().replace(f"{self.folder}/", "").splitlines()
        [found] = [one for one in calls if part in one]
        return found

    def versions(self) -> dict[str, str]:
        """What names of configs and secrets end with."""
        lines = (self.programs / "versions").read_text().splitlines()
        return dict(line.split("=") for line in lines)

    def give_certificate(self) -> None:
        secrets = self.folder / "secrets"
        write_certificate(secrets / "tls_certificate", secrets / "tls_key")


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    folder, programs = tmp_path / "docker", tmp_path / "programs"
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("secrets", "generated", ".env"))
    subprocess.run([folder / "prepare.sh"], check=True, capture_output=True, timeout=30)
    (programs / "rendered" / "templates").mkdir(parents=True)
    (programs / "rendered" / "prometheus.yml").write_text("# Prometheus\n")
    (programs / "rendered" / "templates" / "notifications.tmpl").write_text("text\n")
    # Its pauses are for a swarm that takes its time.
    for name, text in {"docker": ENGINE, "sleep": "#!/bin/sh\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return Deployment(folder, programs)


def test_without_a_certificate_there_is_no_second_port(deployment: Deployment):
    assert deployment.run("--with-registry-auth") == ""
    assert deployment.called("stack deploy") == (
        "stack deploy --prune --compose-file stack.yml --with-registry-auth ws-cluster"
    )
    assert " -f compose.yml run " in deployment.called(" nginx-config ")


def test_a_certificate_in_the_secrets_is_deployed_and_in_the_configuration_of_nginx(
    deployment: Deployment,
):
    deployment.give_certificate()
    assert deployment.run("--compose-file", "own.yml", HSTS="365d") == ""
    files = ("stack.yml", "stack-tls.yml", "own.yml")
    wanted = " ".join(f"--compose-file {name}" for name in files)
    assert f"--prune {wanted} ws-cluster" in deployment.called("stack deploy")
    made = deployment.called(" nginx-config ")
    assert " -f compose.yml -f tls.yml run " in made
    assert "--tls-from=/run/secrets" in made
    assert "--hsts=365d" in made


@pytest.mark.parametrize("name", ["HTTP_PORT", "HTTPS_PORT"])
def test_a_port_with_an_address_as_compose_takes_it_is_refused(name: str, deployment: Deployment):
    said = deployment.run(**{name: "127.0.0.1:80"})
    assert said == f"{name} is 127.0.0.1:80; give a port: a swarm publishes it at every address"
    assert not (deployment.folder / "generated").exists()


def test_only_what_changes_has_another_name(deployment: Deployment):
    deployment.give_certificate()
    assert deployment.run() == ""
    before = deployment.versions()
    assert set(before) == {f"{name}_VERSION" for name in ("NGINX", "MONITORING", "GRAFANA", "SECRETS", "TLS")}  # fmt: skip
    assert deployment.run() == ""
    assert deployment.versions() == before, "nothing has changed"

    def changed() -> set[str]:
        nonlocal before
        assert deployment.run() == ""
        now = deployment.versions()
        names = {name for name in now if now[name] != before[name]}
        before = now
        return names

    # A renewal updates nginx alone: replicas, Valkey and the rest keep their secrets.
    deployment.give_certificate()
    assert changed() == {"TLS_VERSION"}
    for file in ("dashboards/ws-store.json", "provisioning/datasources/prometheus.yml"):
        with (deployment.folder / "grafana" / file).open("a") as writing:
            writing.write("\n")
        assert changed() == {"GRAFANA_VERSION"}
    (deployment.folder / "secrets" / "grafana_password").write_text("another\n")
    assert changed() == {"SECRETS_VERSION"}


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("alone", "docker/secrets needs both tls_certificate and tls_key, or neither"),
        (
            "another",
            "docker/secrets/tls_certificate and docker/secrets/tls_key do not match: the certificate is of another key",
        ),
        ("expired", "docker/secrets/tls_certificate has expired"),
        ("text", "docker/secrets/tls_certificate is no certificate in PEM"),
    ],
)
def test_a_wrong_certificate_is_said_before_anything_is_written(
    what: str, sentence: str, deployment: Deployment
):
    certificate, key = (
        deployment.folder / "secrets" / name for name in ("tls_certificate", "tls_key")
    )
    write_certificate(certificate, key, valid=timedelta(days=-1 if what == "expired" else 1))
    if what == "alone":
        certificate.unlink()
    elif what == "another":
        write_certificate(deployment.folder / "other", key)
    elif what == "text":
        certificate.write_text("text\n")
    assert deployment.run() == sentence
    assert not (deployment.folder / "generated").exists()
    assert "stack deploy" not in (deployment.programs / "calls").read_text()
