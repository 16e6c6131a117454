"""What docker/Dockerfile promises and no story would notice: pinned packages, a build argument, labels, the rights."""

from __future__ import annotations

import re

from tests.architecture.tree import ROOT

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def test_nothing_is_installed_that_is_not_pinned_with_its_hash():
    installs = re.findall(r"pip install ([^&\n]*)", DOCKERFILE)
    assert len(installs) == 2
    for words in installs:
        is_locked = "--require-hashes" in words and "-r requirements/" in words
        # Our own package, of whose dependencies none is fetched.
        is_ours = "--no-deps" in words and "--no-index" in words and words.split()[-1] == "."
        assert is_locked or is_ours, words
    assert "apt" not in DOCKERFILE
    assert "curl" not in DOCKERFILE


def test_both_stages_stand_on_the_base_that_is_given():
    assert [one.split()[0] for one in instructions("FROM")] == ["${PYTHON_IMAGE}"] * 2
    assert instructions("ARG")[0].startswith("PYTHON_IMAGE=")


def test_the_image_says_what_it_is_and_the_last_user_is_not_root():
    assert instructions("USER") == ["10001:10001"]
    labels = " ".join(instructions("LABEL"))
    for name in ("version", "revision", "licenses", "title"):
        assert f"org.opencontainers.image.{name}=" in labels
    # A shell would be the first process, and get SIGTERM instead of the supervisor.
    assert instructions("ENTRYPOINT") == ['["ws-cluster"]']
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_admin_port_of_a_container_is_reached_from_outside_it():
    environment = " ".join(instructions("ENV")).split()
    assert "WS_CLUSTER_SERVER__ADMIN_HOST=0.0.0.0" in environment
    # What would put it back on the loopback of the container.
    for name in ("compose.yml", "stack.yml"):
        text = (ROOT / "docker" / name).read_text(encoding="utf-8")
        assert "ADMIN_HOST" not in text, name


def test_health_is_asked_of_ready_by_a_program_that_is_not_python():
    [check] = instructions("HEALTHCHECK")
    assert check.endswith('CMD ["ws-cluster-healthcheck"]')
    script = (ROOT / "docker" / "healthcheck.sh").read_text(encoding="utf-8")
    assert script.startswith("#!/bin/bash\n")
    assert "path=${1:-/ready}" in script
    assert not re.search(r"^[^#]*python", script, re.MULTILINE)
