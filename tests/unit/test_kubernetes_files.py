"""The Kubernetes manifests: valid for their schema, and in step with the options, the rules and the image."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import config
from cluster.config import ShutdownConfig, known_keys
from cluster.metrics.catalogue import FAMILIES
from scripts.kubernetes_rules import WRITTEN, document
from tests.architecture.tree import ROOT
from tests.unit import kustomization

FOLDER = ROOT / "docker" / "kubernetes"
VERSION = "1.36"
#: What kustomize reads itself, and what the Prometheus operator defines.
OTHERS = {"Kustomization", "ServiceMonitor", "PrometheusRule"}
FILES = sorted(FOLDER.rglob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


ADAPTER = FOLDER / "prometheus-adapter" / "values.yaml"
NATIVE = [path for path in FILES if path != ADAPTER and documents(path)[0]["kind"] not in OTHERS]


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
    assert [one["name"] for one in app["env"]] == ["POD_IP", "WS_CLUSTER_SERVER__INSTANCE"]
    mounts = {mount["name"]: mount["mountPath"] for mount in app["volumeMounts"]}
    [options] = documents(FOLDER / "base" / "options.yaml")
    files = [text for name, text in options["data"].items() if name.endswith("_FILE")]
    assert len(files) == 4
    assert all(Path(text).parent == Path(mounts["secrets"]) for text in files)


def test_the_admin_port_of_a_pod_is_reached_from_outside_it():
    [options] = documents(FOLDER / "base" / "options.yaml")
    assert options["data"]["WS_CLUSTER_SERVER__ADMIN_HOST"] == "0.0.0.0"
    for path in FOLDER.rglob("*.yaml"):
        if path != FOLDER / "base" / "options.yaml":
            assert "ADMIN_HOST" not in path.read_text(encoding="utf-8"), path


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


def test_applying_the_manifests_again_leaves_the_number_of_pods_to_the_autoscaler(
    deployment: dict[str, Any],
):
    """A number here would end all pods above it, at once, whenever the manifests are applied."""
    [scaler] = documents(FOLDER / "base" / "autoscaler.yaml")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaler["spec"]["minReplicas"] == 2
    assert "replicas" not in deployment["spec"]


def test_the_alerts_find_the_job():
    [kustomization] = documents(FOLDER / "base" / "kustomization.yaml")
    [pairs] = [one["pairs"] for one in kustomization["labels"]]
    [monitor] = documents(FOLDER / "monitoring" / "service-monitor.yaml")
    rules = (ROOT / "docker" / "alert_rules.yml").read_text(encoding="utf-8")
    assert f'job="{pairs[monitor["spec"]["jobLabel"]]}"' in rules


def test_the_autoscaler_gets_its_metric_from_the_rule_of_the_adapter(tmp_path: Path):
    [scaler] = documents(FOLDER / "base" / "autoscaler.yaml")
    [metric] = [one["pods"]["metric"]["name"] for one in scaler["spec"]["metrics"]]
    assert metric in {family.name for family in FAMILIES}
    [values] = documents(ADAPTER)
    [rule] = values["rules"]["custom"]
    # Without `name`, the metric of the API has the name of the series.
    assert set(rule) == {"seriesQuery", "resources", "metricsQuery"}
    assert rule["seriesQuery"].startswith(metric + "{")
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    asked = rule["metricsQuery"]
    for name, text in {
        "Series": metric,
        "LabelMatchers": 'namespace="default",pod=~"a|b"',
        "GroupBy": "pod",
    }.items():
        asked = asked.replace(f"<<.{name}>>", text)
    queries = {"series": rule["seriesQuery"], "pods": asked}
    recorded = [{"record": name, "expr": text} for name, text in queries.items()]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "adapter", "rules": recorded}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = (ROOT / "docker" / "alert_rules.yml").read_text(encoding="utf-8")
    assert all('job="websocket-app"' in text for text in (*queries.values(), rules))


def test_the_rules_are_those_of_docker():
    assert WRITTEN.read_text(encoding="utf-8") == document(), "run scripts/kubernetes_rules.py"
    [resource] = documents(WRITTEN)
    [source] = documents(ROOT / "docker" / "alert_rules.yml")
    assert resource["spec"]["groups"][: len(source["groups"])] == source["groups"]


# --- what kustomize makes of them ----------------------------------------------------------

OVERLAYS = sorted(path.parent for path in (FOLDER / "overlays").rglob("kustomization.yaml"))


def kustomize() -> list[str] | None:
    """A program that builds them, if one is installed; kubectl before 1.24 has one that is too old."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        command = ["kubectl", "version", "--client", "--output=json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        if "kustomizeVersion" in json.loads(done.stdout):
            return ["kubectl", "kustomize"]
    return None


@pytest.fixture(params=OVERLAYS, ids=[path.name for path in OVERLAYS])
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An overlay as a file, built here and, where it is installed, by kustomize, which must agree.

    The name of the overlay is that of the file.
    """
    resources = kustomization.build(request.param)
    if command := kustomize():
        done = subprocess.run(
            [*command, str(request.param)], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        theirs = {kustomization.identity(one): one for one in yaml.safe_load_all(done.stdout)}
        assert {kustomization.identity(one): one for one in resources} == theirs
    path = tmp_path / f"{request.param.name}.yaml"
    path.write_text(yaml.safe_dump_all(resources))
    return path


def test_there_is_an_overlay_for_each_kind_of_store():
    assert [path.name for path in OVERLAYS] == ["one-redis", "redis-cluster", "sentinel"]


def test_what_is_not_built_here_is_an_error_and_not_left_out(tmp_path: Path):
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n"
    (tmp_path / "kustomization.yaml").write_text(head + "namePrefix: own-\n")
    with pytest.raises(AssertionError, match="namePrefix"):
        kustomization.build(tmp_path)


def test_an_overlay_as_kustomize_builds_it_is_valid_for_its_schema(built: Path):
    done = validated(built)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = sum(len(documents(path)) for path in NATIVE if path.parent.name == "base")
    assert done.stdout.count("passed") == len(documents(built)) == expected


def test_what_selects_pods_selects_those_of_the_overlay(built: Path):
    resources = documents(built)
    [deployment] = [one for one in resources if one["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]
    selectors = [
        *(one["spec"]["selector"] for one in resources if one["kind"] == "Service"),
        deployment["spec"]["selector"]["matchLabels"],
        pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        *(
            one["spec"]["selector"]["matchLabels"]
            for one in resources
            if one["kind"] == "PodDisruptionBudget"
        ),
        *(
            one["spec"]["podSelector"]["matchLabels"]
            for one in resources
            if one["kind"] == "NetworkPolicy"
        ),
    ]
    assert len(selectors) == 6
    for selector in selectors:
        assert selector.items() <= pod["metadata"]["labels"].items()
        assert "app.kubernetes.io/name" in selector
    [scaler] = [one for one in resources if one["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_the_cluster_accepts_the_options_of_an_overlay(built: Path, tmp_path: Path):
    [options] = [one["data"] for one in documents(built) if one["kind"] == "ConfigMap"]
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for text in (value for name, value in options.items() if name.endswith("_FILE")):
        (secrets / Path(text).name).write_text("k" * 64)
    here = {
        name: text.replace("/run/secrets/ws-cluster", str(secrets))
        for name, text in options.items()
    }
    here["WS_CLUSTER_SERVER__DATA_DIR"] = str(tmp_path / "data")
    loaded = config.load(None, env=here)
    assert loaded.server.workers == 2
    [url] = loaded.broker.redis_urls
    sentinels = ",".join(f"sentinel-{number}.sentinel:26379" for number in range(3))
    scheme, server = {
        "one-redis": ("redis", "redis:6379/0"),
        "redis-cluster": ("redis", "redis-cluster:6379"),
        "sentinel": ("redis+sentinel", f"{sentinels}/mymaster/0"),
    }[built.stem]
    assert url == f"{scheme}://:{'k' * 64}@{server}"
