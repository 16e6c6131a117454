"""The Kubernetes manifests: valid for their schema, and in step with the options, the rules and the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import ShutdownConfig, known_keys
from scripts.kubernetes_rules import WRITTEN, document
from tests.architecture.tree import ROOT

FOLDER = ROOT / "docker" / "kubernetes"
VERSION = "1.36"
#: What kustomize reads itself, and what the Prometheus operator defines.
OTHERS = {"Kustomization", "ServiceMonitor", "PrometheusRule"}
FILES = sorted(FOLDER.rglob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


NATIVE = [path for path in FILES if documents(path)[0]["kind"] not in OTHERS]


@pytest.fixture(scope="module")
def deployment() -> dict[str, Any]:
    [found] = documents(FOLDER / "base" / "deployment.yaml")
    return found


def named(text: str) -> str:
    return text.removeprefix("WS_CLUSTER_").lower().replace("__", ".")


def validated(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", VERSION, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("path", NATIVE, ids=[str(path.relative_to(FOLDER)) for path in NATIVE])
def test_a_manifest_is_valid_for_its_schema(path: Path, tmp_path: Path):
    # Labels and selectors come from kustomization.yaml; without them a Deployment is none.
    labels = {"app.kubernetes.io/name": "websocket-app"}
    resources = documents(path)
    for resource in resources:
        if resource["kind"] == "Deployment":
            resource["spec"]["selector"] = {"matchLabels": labels}
            resource["spec"]["template"]["metadata"]["labels"] = labels
    filled = tmp_path / path.name
    filled.write_text(yaml.safe_dump_all(resources))
    done = validated(filled)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == len(resources)


def test_the_check_finds_a_member_that_does_not_exist(tmp_path: Path):
    [policy] = documents(FOLDER / "base" / "network-policy.yaml")
    policy["spec"]["policyTypos"] = ["Ingress"]
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    done = validated(path)
    assert done.returncode != 0


def test_every_file_is_named_by_a_kustomization():
    for path in FOLDER.rglob("kustomization.yaml"):
        [kustomization] = documents(path)
        listed = set(kustomization.get("resources", ()))
        listed |= {patch["path"] for patch in kustomization.get("patches", ())}
        for name in listed:
            assert (path.parent / name).exists(), (path, name)
        beside = {one.name for one in path.parent.glob("*.yaml")} - {path.name}
        assert beside <= listed, path


def test_the_options_exist():
    for path in NATIVE:
        for resource in documents(path):
            if resource["kind"] == "ConfigMap":
                for name in resource["data"]:
                    assert named(name).removesuffix("_file") in known_keys(), name


def test_secrets_are_files_of_one_secret(deployment: dict[str, Any]):
    pod = deployment["spec"]["template"]["spec"]
    [app] = pod["containers"]
    assert "env" not in app
    mounts = {mount["name"]: mount["mountPath"] for mount in app["volumeMounts"]}
    [options] = documents(FOLDER / "base" / "options.yaml")
    files = [text for name, text in options["data"].items() if name.endswith("_FILE")]
    assert len(files) == 4
    assert all(Path(text).parent == Path(mounts["secrets"]) for text in files)


def test_a_pod_has_time_to_drain_and_few_rights(deployment: dict[str, Any]):
    pod = deployment["spec"]["template"]["spec"]
    [app] = pod["containers"]
    sleeps = int(app["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = sleeps + ShutdownConfig().stop_grace_period
    assert pod["terminationGracePeriodSeconds"] > needed
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] == 10001
    assert app["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert "USER 10001:10001" in dockerfile


def test_the_alerts_find_the_job():
    [kustomization] = documents(FOLDER / "base" / "kustomization.yaml")
    [pairs] = [one["pairs"] for one in kustomization["labels"]]
    [monitor] = documents(FOLDER / "monitoring" / "service-monitor.yaml")
    rules = (ROOT / "docker" / "alert_rules.yml").read_text(encoding="utf-8")
    assert f'job="{pairs[monitor["spec"]["jobLabel"]]}"' in rules


def test_the_rules_are_those_of_docker():
    assert WRITTEN.read_text(encoding="utf-8") == document(), "run scripts/kubernetes_rules.py"
    [resource] = documents(WRITTEN)
    [source] = documents(ROOT / "docker" / "alert_rules.yml")
    assert resource["spec"]["groups"][: len(source["groups"])] == source["groups"]
