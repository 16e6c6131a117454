"""The source revision this program was built from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
_LENGTH: Final = 12


def revision(package: Path | None = None) -> str:
    """Return the revision from the package's REVISION file (in an image) or from the git checkout."""
    folder = package or Path(__file__).resolve().parent.parent
    with suppress(OSError):
        return (folder / "REVISION").read_text(encoding="utf-8").strip()[:_LENGTH] or UNKNOWN
    with suppress(OSError):
        return _checkout_revision(folder.parent / ".git")
    return UNKNOWN


def _checkout_revision(git: Path) -> str:
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head[:_LENGTH]
    name = head.removeprefix("ref: ")
    with suppress(OSError):
        return (git / name).read_text(encoding="utf-8").strip()[:_LENGTH]
    for line in (git / "packed-refs").read_text(encoding="utf-8").splitlines():
        if line.endswith(f" {name}"):
            return line[:_LENGTH]
    return UNKNOWN
