"""Keep a drill's report in the documentation: `python scripts/drill_page.py REPORT_DIR [LATER_DIR]`.

Copies drill.json, drill.xml and drill.html to docs/drills/, those of a later run of some alerts to
docs/drills/later/, and writes README.md from both. What the later run has takes the place of what the
first one has, and the page says so. tests/docs/test_drills.py holds the page against the files.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "drills"
FILES: Final = ("drill.json", "drill.xml", "drill.html")
_STEPS: Final = (
    "pending_seconds",
    "firing_seconds",
    "notified_seconds",
    "acknowledged_seconds",
    "resolved_seconds",
)
_HEAD: Final = """# The last drill in real durations

<!-- Written by `python scripts/drill_page.py`: drill again instead of editing it. -->

`make drill-production`, {when}: **{good} of {count} alerts proven**, {simulated} simulated, in {minutes:.0f} minutes,
on {cores} cores ({processor}), {gib:.0f} GiB, Linux {kernel}, Python {python}, {programs}.
{again}
Seconds from the moment the cause was provoked. A dash is a step that the alert does not take: one
that calls nobody is not acknowledged, and what says that Alertmanager is gone cannot be told by it
([how far an alert can travel](../topics/life-of-a-drill.md#how-far-an-alert-can-travel)). The whole
report is [drill.html](drill.html), to be opened in a browser; [drill.json](drill.json) has everything that
was seen, and [how to read it](../how-to/read-a-drill-report.md) is a page of its own.

"""
_AGAIN: Final = """
**Drilled again alone**, in real durations, on {when} ([its report](later/drill.html)), and shown below as it
went then:

{lines}
"""

Document = dict[str, Any]


def page(document: Document, later: Document | None = None) -> str:
    """The page of a report, and of a later one of some of its alerts."""
    machine, counts = document["machine"], document["counts"]
    head = _HEAD.format(
        when=_day(document),
        good=counts["passed"] + counts["simulated"],
        count=sum(counts.values()),
        simulated=counts["simulated"] or "none",
        minutes=(document["ended_at"] - document["started_at"]) / 60,
        cores=machine["cores"],
        processor=machine["processor"],
        gib=machine["memory_bytes"] / (1 << 30),
        kernel=machine["kernel"],
        python=machine["python"],
        programs=" and ".join(machine["programs"].values()),
        again=_again(document, later) if later is not None else "",
    )
    names = ("alert", "result", *(step.removesuffix("_s") for step in _STEPS), "told")
    rows = [_row(one) for _, one in sorted(shown(document, later).items())]
    rule = ("---", "---", *("--:" for _ in _STEPS), "---")
    lines = ["| " + " | ".join(cells) + " |" for cells in (names, rule, *rows)]
    return head + "\n".join(lines) + "\n"


def shown(document: Document, later: Document | None) -> dict[str, Document]:
    """Every alert as it went last."""
    runs = [document] if later is None else [document, later]
    return {one["alert"]: one for run in runs for one in run["alerts"]}


def _again(document: Document, later: Document) -> str:
    first = {one["alert"]: one for one in document["alerts"]}
    lines = [
        f"- {one['alert']}: {one['result']}; the first time {_how(first[one['alert']])}"
        for one in later["alerts"]
    ]
    return _AGAIN.format(when=_day(later), lines="\n".join(lines))


def _how(one: Document) -> str:
    if one["result"] != "failed":
        return str(one["result"])
    return f"failed at *{one['failed_at']}*: {one['why']}"


def _day(document: Document) -> str:
    return datetime.fromtimestamp(document["started_at"], UTC).strftime("%Y-%m-%d")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    times = ("–" if one[step] is None else f"{one[step]:.0f}" for step in _STEPS)
    told = ", ".join(dict.fromkeys(one["notified"])) or "–"
    return f"[{one['alert']}](../runbooks/{one['alert']}.md)", one["result"], *times, told


def kept(folder: Path = FOLDER) -> tuple[Document, Document | None]:
    """The reports that are kept."""
    later = folder / "later" / FILES[0]
    return _read(folder / FILES[0]), _read(later) if later.exists() else None


def _read(path: Path) -> Document:
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


def main() -> int:
    shutil.rmtree(FOLDER, ignore_errors=True)
    for source, target in zip(sys.argv[1:3], (FOLDER, FOLDER / "later"), strict=False):
        target.mkdir(parents=True)
        for name in FILES:
            shutil.copyfile(Path(source) / name, target / name)
    (FOLDER / "README.md").write_text(page(*kept()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
