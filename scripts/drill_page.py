"""Keep a drill's report in the documentation: `python scripts/drill_page.py REPORT_DIR`.

Copies drill.json, drill.xml and drill.html to docs/drills/ and writes its README.md from the first.
tests/docs/test_drills.py holds the page against the file.
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
_STEPS: Final = ("pending_s", "firing_s", "notified_s", "acknowledged_s", "resolved_s")
_HEAD: Final = """# The last drill in real durations

<!-- Written by `python scripts/drill_page.py`: drill again instead of editing it. -->

`make drill-production`, {when}: **{good} of {count} alerts proven**{simulated}, in {minutes:.0f} minutes,
on {cores} cores ({processor}), {gib:.0f} GiB, Linux {kernel}, Python {python}, {programs}.

Seconds from the moment the cause was provoked. A dash is a step that the alert does not take: one
that calls nobody is not acknowledged, and what says that Alertmanager is gone cannot be told by it
([how far an alert can travel](../topics/life-of-a-drill.md#how-far-an-alert-can-travel)). The whole
report is [drill.html](drill.html), to be opened in a browser; [drill.json](drill.json) has everything that
was seen, and [how to read it](../how-to/read-a-drill-report.md) is a page of its own.

"""


def page(document: dict[str, Any]) -> str:
    """The page of a report."""
    machine, counts = document["machine"], document["counts"]
    simulated = counts["simulated"]
    head = _HEAD.format(
        when=datetime.fromtimestamp(document["started_at"], UTC).strftime("%Y-%m-%d"),
        good=counts["passed"] + simulated,
        count=sum(counts.values()),
        simulated=f", {simulated} of them simulated" if simulated else ", none of them simulated",
        minutes=(document["ended_at"] - document["started_at"]) / 60,
        cores=machine["cores"],
        processor=machine["processor"],
        gib=machine["memory_bytes"] / (1 << 30),
        kernel=machine["kernel"],
        python=machine["python"],
        programs=" and ".join(machine["programs"].values()),
    )
    names = ("alert", "result", *(step.removesuffix("_s") for step in _STEPS), "told")
    rows = [_row(one) for one in sorted(document["alerts"], key=lambda one: str(one["alert"]))]
    rule = ("---", "---", *("--:" for _ in _STEPS), "---")
    lines = ["| " + " | ".join(cells) + " |" for cells in (names, rule, *rows)]
    return head + "\n".join(lines) + "\n"


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    times = ("–" if one[step] is None else f"{one[step]:.0f}" for step in _STEPS)
    told = ", ".join(dict.fromkeys(one["notified"])) or "–"
    return f"[{one['alert']}](../runbooks/{one['alert']}.md)", one["result"], *times, told


def main() -> int:
    report = Path(sys.argv[1])
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(report / name, FOLDER / name)
    document = json.loads((FOLDER / FILES[0]).read_text(encoding="utf-8"))
    (FOLDER / "README.md").write_text(page(document), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
