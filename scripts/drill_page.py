"""Write docs/drills/ from the reports of real runs.

    python scripts/drill_page.py REPORT_DIR [LATER_DIR …] [--soak SOAK_DIR]
    python scripts/drill_page.py [--add LATER_DIR] [--soak SOAK_DIR]

REPORT_DIR and LATER_DIR are what `ws-cluster drill --report` wrote: a run of all drills, and later
runs of some of them. SOAK_DIR is what `ws-cluster soak --report` wrote.

Rules
- summary.json keeps the facts of each run and the times of each alert; README.md is written from it.
- Where a later run has a drill, the page shows the later result, and says so.
- Without --soak, the soak that the summary has stays; with --add, its runs do. The reports themselves are
  not kept.
- tests/docs/test_drills.py compares the page with the summary, and the summary with the alert rules.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "drills"
REPORT: Final = "drill.json"
SUMMARY: Final = "summary.json"
_RUN_FACTS: Final = (
    *("kind", "profile", "compress", "started_at", "ended_at", "target", "machine"),
    *("uncovered", "faults", "notes", "is_passed", "counts"),
)
_STEPS: Final = tuple(
    f"{step}_seconds"
    for step in (
        *("pending", "firing", "alertmanager", "notified", "acknowledged", "undone", "resolved"),
        "resolve_notified",
    )
)
_ALERT_FACTS: Final = (
    *("alert", "variant", "severity", "result", "simulated_because", "failed_at", "why"),
    *("notified", *_STEPS),
)
_SHOWN: Final = tuple(
    f"{step}_seconds" for step in ("pending", "firing", "notified", "acknowledged", "resolved")
)
_HEAD: Final = """# The last drill in real durations

<!-- Written by `python scripts/drill_page.py`: drill again instead of editing it. -->

`make drill-production`, {when}: **{good} of {count} alerts proven**, {simulated} simulated, in {minutes:.0f} minutes,
on {cores} cores ({processor}), {gib:.0f} GiB, Linux {kernel}, Python {python}, {programs}.
{again}
Seconds from the moment the fault was injected. A dash is a step that the drill does not have: only
some drills acknowledge their alert, and Alertmanager cannot notify anyone that it is down itself
([how far an alert can travel](../topics/life-of-a-drill.md#how-far-an-alert-can-travel)).
[summary.json](summary.json) has these figures and those of the other steps. The whole report of a run, with a
timeline and the evidence of each alert, is not kept here: `make drill` and `make drill-production` write it to
`drill-report/`, and [how to read it](../how-to/read-a-drill-report.md) is a page of its own.

![a report](../img/drill-report.png)

"""
_LATER: Final = """
**Drilled later**, in real durations, on {when}, and shown below with the result of that run:

{lines}
"""
_SOAK: Final = """
## The last soak in real time

`make soak`, {when}: {verdict}.

{lines}
"""

Document = dict[str, Any]


def summary_of(report: Document) -> Document:
    """The facts of a run, and the times of each of its alerts, oldest first."""
    alerts = [{name: one[name] for name in _ALERT_FACTS if name in one} for one in report["alerts"]]
    run = {name: report[name] for name in _RUN_FACTS}
    # A soak proves that nothing fires: it has no times, only names.
    if report["kind"] == "soak":
        return {**run, "alerts": sorted(one["alert"] for one in alerts)}
    return {**run, "alerts": alerts}


def page(summary: Document) -> str:
    """README.md."""
    first, later, soak = (summary[name] for name in ("first", "later", "soak"))
    machine, counts = first["machine"], first["counts"]
    head = _HEAD.format(
        when=_day(first),
        good=counts["passed"] + counts["simulated"],
        count=sum(counts.values()),
        simulated=counts["simulated"] or "none",
        minutes=(first["ended_at"] - first["started_at"]) / 60,
        cores=machine["cores"],
        processor=machine["processor"],
        gib=machine["memory_bytes"] / (1 << 30),
        kernel=machine["kernel"],
        python=machine["python"],
        programs=" and ".join(machine["programs"].values()),
        again="".join(_later(summary, number) for number in range(len(later))),
    )
    names = ("alert", "result", *(step.removesuffix("_seconds") for step in _SHOWN), "notified at")
    rows = [_row(one) for _, one in sorted(latest(summary).items())]
    rule = ("---", "---", *("--:" for _ in _SHOWN), "---")
    lines = ["| " + " | ".join(cells) + " |" for cells in (names, rule, *rows)]
    return head + "\n".join(lines) + "\n" + (_soak(soak) if soak else "")


def latest(summary: Document) -> dict[str, Document]:
    """The last result of every drill, by its name."""
    return {
        name_of(one): one for run in (summary["first"], *summary["later"]) for one in run["alerts"]
    }


def name_of(one: Document) -> str:
    """The name of a drill: the alert's, or Alert/variant."""
    variant = one.get("variant", "")
    return f"{one['alert']}/{variant}" if variant else str(one["alert"])


def missing(summary: Document, alerts: set[str]) -> set[str]:
    """The alerts of which the summary has no result."""
    return alerts - latest(summary).keys()


def _later(summary: Document, number: int) -> str:
    """What a later run has shown, and the runs before it."""
    run = summary["later"][number]
    before = latest({**summary, "later": summary["later"][:number]})
    lines = []
    for one in run["alerts"]:
        name = name_of(one)
        then = f"before, {_how(before[name])}" if name in before else "for the first time"
        lines.append(f"- {name}: {one['result']}; {then}")
    return _LATER.format(when=_day(run), lines="\n".join(lines))


def _soak(soak: Document) -> str:
    verdict = "quiet" if soak["is_passed"] else "not quiet"
    lines = [f"- {line}" for line in soak["faults"] + soak["notes"]]
    return _SOAK.format(when=_day(soak), verdict=verdict, lines="\n".join(lines))


def _how(one: Document) -> str:
    if one["result"] != "failed":
        return str(one["result"])
    return f"failed at *{one['failed_at']}*: {one['why']}"


def _day(run: Document) -> str:
    return datetime.fromtimestamp(run["started_at"], UTC).strftime("%Y-%m-%d")


def _row(one: Document) -> tuple[str, ...]:
    times = ("–" if one[step] is None else f"{one[step]:.0f}" for step in _SHOWN)
    where = ", ".join(dict.fromkeys(one["notified"])) or "–"
    return f"[{name_of(one)}](../runbooks/{one['alert']}.md)", one["result"], *times, where


def read_summary(folder: Path = FOLDER) -> Document:
    """The summary that is kept."""
    return _read(folder / SUMMARY)


def text_of(summary: Document) -> str:
    """summary.json: one line for each alert, so that a change of one is a change of one line."""
    later = ",\n".join(_run_text(run) for run in summary["later"])
    soak = _run_text(summary["soak"]) if summary["soak"] else "null"
    parts = (f'"first": {_run_text(summary["first"])}', f'"later": [{later}]', f'"soak": {soak}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _run_text(run: Document) -> str:
    head = {key: value for key, value in run.items() if key != "alerts"}
    facts = json.dumps(head, indent=1, ensure_ascii=False)[:-2]
    lines = ",\n".join("  " + json.dumps(one, ensure_ascii=False) for one in run["alerts"])
    return f'{facts},\n "alerts": [\n{lines}\n ]\n}}'


def _read(path: Path) -> Document:
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


def write(summary: Document, folder: Path = FOLDER) -> None:
    """Write summary.json and README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).write_text(text_of(summary), encoding="utf-8")
    (folder / "README.md").write_text(page(summary), encoding="utf-8")


def _summary_in(folder: Path) -> Document:
    return summary_of(_read(folder / REPORT))


def main() -> int:
    """Write the page and its summary."""
    parser = argparse.ArgumentParser(
        description="Write docs/drills/ from the reports of real runs."
    )
    parser.add_argument("report", type=Path, nargs="?")
    parser.add_argument("later", type=Path, nargs="*")
    parser.add_argument("--add", type=Path, action="append", default=[])
    parser.add_argument("--soak", type=Path)
    arguments = parser.parse_args()
    if arguments.report is None and not (arguments.add or arguments.soak):
        parser.error("give a report, or --add or --soak for what is kept")
    kept = read_summary() if (FOLDER / SUMMARY).exists() else {"later": [], "soak": None}
    first = _summary_in(arguments.report) if arguments.report else kept["first"]
    later = [] if arguments.report else kept["later"]
    later += [_summary_in(folder) for folder in (*arguments.later, *arguments.add)]
    soak = _summary_in(arguments.soak) if arguments.soak else kept["soak"]
    write({"first": first, "later": later, "soak": soak})
    return 0


if __name__ == "__main__":
    sys.exit(main())
