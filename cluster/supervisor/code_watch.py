"""Watches the code of the application, for `--reload`: calls back when a file of it has changed.

What is watched are the `.py` files of the package, or of the directory of the module, that `app.target`
names, without hidden directories and virtual environments. They are looked at twice a second.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cluster import log

_INTERVAL_SECONDS: Final = 0.5
#: More files, and files in more directories, are not watched: each look costs time.
MAXIMUM_FILES: Final = 5000
MAXIMUM_DIRECTORIES: Final = 5000
_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

Seen = dict[str, tuple[int, int]]


async def watch_code(target: str, changed: Callable[[], None]) -> None:
    """Call `changed` after each change, until cancelled.

    Several changes within half a second are one: an editor or a checkout writes many files.
    """
    folder = _folder(target)
    logger = log.get_logger()
    before = await asyncio.to_thread(_look, folder)
    logger.info("code_watch_started", directory=str(folder), files=len(before))
    if len(before) >= MAXIMUM_FILES:
        logger.warning("code_watch_limited", files=MAXIMUM_FILES)
    is_changing = False
    while True:
        await asyncio.sleep(_INTERVAL_SECONDS)
        now = await asyncio.to_thread(_look, folder)
        if now != before:
            before, is_changing = now, True
        elif is_changing:
            is_changing = False
            changed()


def _folder(target: str) -> Path:
    """The directory of the package or module that an application stands in."""
    name = target.partition(":")[0].partition(".")[0]
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    # Of a name without a dot, this imports nothing.
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec is not None and spec.origin and spec.has_location:
        return Path(spec.origin).parent
    return Path.cwd()


def _look(folder: Path) -> Seen:
    seen: Seen = {}
    for path in _python_files(folder):
        try:
            status = path.stat()
        except OSError:
            continue
        seen[str(path)] = (status.st_mtime_ns, status.st_size)
        if len(seen) >= MAXIMUM_FILES:
            break
    return seen


def _python_files(folder: Path) -> Iterator[Path]:
    for number, (directory, names, files) in enumerate(os.walk(folder)):
        if number >= MAXIMUM_DIRECTORIES:
            return
        # What is left in the list is walked into.
        names[:] = sorted(name for name in names if _is_code(Path(directory, name)))
        yield from (Path(directory, name) for name in files if name.endswith(".py"))


def _is_code(directory: Path) -> bool:
    name = directory.name
    if name in _LEFT_OUT or name.startswith("."):
        return False
    try:
        return not (directory / "pyvenv.cfg").exists()
    except OSError:
        return False
