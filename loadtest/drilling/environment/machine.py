"""Describes the machine: every figure that was measured on it is reported with this."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Cores, memory, kernel, processor, interpreter and the versions of the programs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "programs": {name: _version(name) for name in ("prometheus", "prometheus-alertmanager")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    path = shutil.which(name) or shutil.which(name.removeprefix("prometheus-"))
    if path is None:
        return "not found"
    done = subprocess.run(
        [path, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return (done.stdout or done.stderr).partition("\n")[0].partition(" (")[0]
