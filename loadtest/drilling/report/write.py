"""The report of a run: drill.json for programs, drill.xml for CI (JUnit), drill.html for people.

Each file is written atomically.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

from loadtest.drilling.report import html, junit
from loadtest.drilling.result import RunResult

NAMES: Final = ("drill.json", "drill.xml", "drill.html")


def write(run: RunResult, folder: Path) -> None:
    """Write all three files into a directory, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    document = finite(run.to_document())
    texts = (json.dumps(document, indent=1, ensure_ascii=False), junit.text(run), html.text(run))
    for name, text in zip(NAMES, texts, strict=True):
        waiting = folder / f".{name}.new"
        waiting.write_text(text + "\n", encoding="utf-8")
        waiting.replace(folder / name)


def read(folder: Path) -> dict[str, Any]:
    """The document of a report."""
    document: dict[str, Any] = json.loads((folder / NAMES[0]).read_text(encoding="utf-8"))
    return document


def finite(value: Any) -> Any:
    """The value with NaN and infinities, which JSON does not have, replaced by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value
