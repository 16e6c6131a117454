"""The files of this checkout, as the architecture tests look at them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON_FOLDERS = ("cluster", "examples", "loadtest", "scripts", "tests", "benchmarks")


@cache
def files() -> tuple[Path, ...]:
    """Every file that is tracked or would be: what `git add --all` takes."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:  # an unpacked archive is no git checkout
        return tuple(path for path in ROOT.rglob("*") if path.is_file())
    names = {ROOT / name for name in listing.stdout.split("\0") if name}
    return tuple(sorted(path for path in names if path.is_file()))


def texts() -> list[tuple[Path, str]]:
    """Each file that is UTF-8 text, with its content."""
    found = []
    for path in files():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def python_files(*folders: str) -> list[Path]:
    """The Python files below these top-level folders; below all of ours without arguments."""
    wanted = folders or PYTHON_FOLDERS
    return [p for p in files() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in wanted]
