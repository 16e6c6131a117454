"""Builds a kustomization as `kustomize build` does, as far as docker/kubernetes/ uses it, without kustomize.

Debian's kubectl (1.20) has a kustomize that does not know `labels`, so the tests cannot ask for one. A member that
is not handled here is an error, never left out; where a present kustomize is installed, the tests compare both.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
#: Where a label that is to be in selectors goes, besides metadata.labels: (path, whether it is made if missing).
SELECTORS: dict[str, tuple[tuple[str, bool], ...]] = {
    "Deployment": (
        ("spec/selector/matchLabels", True),
        ("spec/template/metadata/labels", True),
        ("spec/template/spec/topologySpreadConstraints/labelSelector/matchLabels", False),
    ),
    "Service": (("spec/selector", True),),
    "PodDisruptionBudget": (("spec/selector/matchLabels", False),),
    "NetworkPolicy": (("spec/podSelector/matchLabels", False),),
    "HorizontalPodAutoscaler": (),
    "ConfigMap": (),
}


def build(folder: Path) -> list[Resource]:
    """The resources of the kustomization in a folder."""
    [kustomization] = yaml.safe_load_all((folder / "kustomization.yaml").read_text("utf-8"))
    for name in ("apiVersion", "kind"):
        del kustomization[name]
    resources: list[Resource] = []
    for name in kustomization.pop("resources"):
        path = folder / name
        if path.is_dir():
            resources += build(path)
        else:
            resources += yaml.safe_load_all(path.read_text("utf-8"))
    for patch in kustomization.pop("patches", ()):
        assert set(patch) == {"path"}, patch
        for change in yaml.safe_load_all((folder / patch["path"]).read_text("utf-8")):
            [target] = [one for one in resources if identity(one) == identity(change)]
            merge(target, change)
    for label in kustomization.pop("labels", ()):
        assert set(label) == {"pairs", "includeSelectors"}, label
        assert label["includeSelectors"] is True
        for resource in resources:
            add_labels(resource, label["pairs"])
    for image in kustomization.pop("images", ()):
        assert set(image) == {"name", "newTag"}, image
        for resource in resources:
            set_tag(resource, image["name"], image["newTag"])
    assert not kustomization, f"not handled here: {sorted(kustomization)}"
    return resources


def identity(resource: Resource) -> tuple[str, str, str]:
    return resource["apiVersion"], resource["kind"], resource["metadata"]["name"]


def merge(target: Resource, change: Resource) -> None:
    """A strategic merge, of maps and scalars: how lists are merged depends on the schema."""
    for name, value in change.items():
        assert not isinstance(value, list), f"{name}: lists are not handled here"
        assert value is not None, f"{name}: deletions are not handled here"
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = copy.deepcopy(value)


def add_labels(resource: Resource, pairs: dict[str, str]) -> None:
    resource["metadata"].setdefault("labels", {}).update(pairs)
    for path, is_made in SELECTORS[resource["kind"]]:
        for found in reached(resource, path.split("/"), is_made=is_made):
            found.update(pairs)


def reached(value: Any, path: list[str], *, is_made: bool) -> list[dict[str, Any]]:
    """The maps at a path, which goes through every member of a list."""
    if isinstance(value, list):
        return [found for one in value for found in reached(one, path, is_made=is_made)]
    if not path:
        return [value]
    if path[0] not in value and not is_made:
        return []
    return reached(value.setdefault(path[0], {}), path[1:], is_made=is_made)


def set_tag(resource: Resource, name: str, tag: str) -> None:
    for container in reached(resource, ["spec", "template", "spec", "containers"], is_made=False):
        if container["image"] == name:
            container["image"] = f"{name}:{tag}"
