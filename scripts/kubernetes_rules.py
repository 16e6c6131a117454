"""Write docker/kubernetes/monitoring/prometheus-rule.yaml from the rules of docker/; with --check, say if it differs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

DOCKER: Final = Path(__file__).resolve().parents[1] / "docker"
WRITTEN: Final = DOCKER / "kubernetes" / "monitoring" / "prometheus-rule.yaml"
SOURCES: Final = ("alert_rules.yml", "capacity.yml")
_HEAD: Final = (
    "# Written by scripts/kubernetes_rules.py from docker/alert_rules.yml and docker/capacity.yml:"
    " change those.\n"
)


def document() -> str:
    """The rules as the Prometheus operator reads them."""
    groups: list[dict[str, Any]] = []
    for name in SOURCES:
        groups += yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))["groups"]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ws-cluster"},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(resource, sort_keys=False, width=100, allow_unicode=True)


def main() -> int:
    text = document()
    is_same = WRITTEN.exists() and WRITTEN.read_text(encoding="utf-8") == text
    if "--check" in sys.argv:
        return 0 if is_same else 1
    WRITTEN.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
