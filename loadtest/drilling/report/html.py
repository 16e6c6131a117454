"""A run as one page of HTML: a verdict, a table, and a timeline for each alert.

The page is self-contained: no script, no external resource. All values are escaped.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Final

from loadtest.drilling.report.timeline import timeline
from loadtest.drilling.result import DrillResult, RunResult
from loadtest.drilling.steps.diagnosis import comparison, own_expression

_STYLE: Final = Path(__file__).with_name("page.css")
_ORDER: Final = {"failed": 0, "simulated": 1, "passed": 2}
_MARK: Final = {"failed": "✗", "simulated": "≈", "passed": "✓"}
_TIMED: Final = (
    "pending",
    "firing",
    "notified",
    "acknowledged",
    "undone",
    "resolved",
    "resolve_notified",
)
_HEADS: Final = ("pending", "firing", "notified", "acked", "undone", "resolved", "resolve notified")
_MOST_EVIDENCE: Final = 20_000


def text(run: RunResult) -> str:
    """The page."""
    results = sorted(run.results, key=lambda o: (_ORDER[o.result], o.name))
    sections = "\n".join(_section(result) for result in results)
    title = "Quiet when healthy" if run.kind == "soak" else "Alert drill"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: {escape(_verdict(run))}</title>
<style>{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header class="{"good" if run.is_passed else "bad"}">
<h1>{title}</h1>
<p class="verdict">{escape(_verdict(run))}</p>
<p class="facts">{escape(_facts(run))}</p>
{_notes(run)}
</header>
<main>
{_table(results)}
{sections}
</main>
</body>
</html>"""


def _verdict(run: RunResult) -> str:
    good = sum(result.result != "failed" for result in run.results)
    simulated = sum(result.result == "simulated" for result in run.results)
    what = "stayed as they should" if run.kind == "soak" else "proven"
    words = f"{good} of {len(run.results)} alerts {what}"
    if simulated:
        words += f", {simulated} of them simulated"
    if run.uncovered:
        words += f"; no drill for {', '.join(run.uncovered)}"
    return words


def _facts(run: RunResult) -> str:
    machine = run.machine
    seconds = (run.ended_at or run.started_at) - run.started_at
    when = datetime.fromtimestamp(run.started_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    pace = "real durations" if run.compress == 1 else f"time ÷ {run.compress:g}"
    facts = [f"profile {run.profile} ({pace})", when, f"took {_length(seconds)}", run.target]
    if "cores" in machine:
        gib = machine.get("memory_bytes", 0) / (1 << 30)
        facts.append(f"{machine['cores']} cores, {gib:.0f} GiB, {machine.get('processor', '')}")
    return " · ".join(str(fact) for fact in facts)


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _notes(run: RunResult) -> str:
    faults = "".join(f"<p class=why>{escape(fault)}</p>" for fault in run.faults)
    return faults + "".join(f"<p class=note>{escape(note)}</p>" for note in run.notes)


def _table(results: list[DrillResult]) -> str:
    heads = "".join(f"<th scope=col>{head}</th>" for head in _HEADS)
    rows = "\n".join(_row(result) for result in results)
    return f"""<div class="scroll"><table>
<caption>Seconds from the moment the fault was injected</caption>
<thead><tr><th scope=col>result</th><th scope=col>alert</th><th scope=col>severity</th>{heads}<th scope=col>notified at</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>"""


def _row(result: DrillResult) -> str:
    cells = "".join(f"<td class=number>{_number(result.seconds(step))}</td>" for step in _TIMED)
    where = ", ".join(dict.fromkeys(str(receiver) for receiver in result.notified)) or "–"
    return (
        f'<tr class="{result.result}"><td>{_MARK[result.result]} {result.result}</td>'
        f'<td><a href="#{escape(result.name)}">{escape(result.name)}</a></td>'
        f"<td>{escape(result.severity)}</td>{cells}<td>{escape(where)}</td></tr>"
    )


def _number(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.1f}"


def _section(result: DrillResult) -> str:
    threshold = _threshold(result)
    lines = [("fault", result.breaks), ("undo", result.undo), ("proof", result.proof)]
    if result.below:
        lines.append(("just below", result.below))
    if result.simulated_because:
        lines.append(("simulated because", result.simulated_because))
    if result.also_fired:
        lines.append(("fired meanwhile", ", ".join(result.also_fired)))
    lines.append(("environment", f"{result.environment}, time ÷ {result.compress:g}"))
    facts = "".join(f"<dt>{escape(n)}</dt><dd>{escape(t)}</dd>" for n, t in lines if t)
    why = ""
    if result.result == "failed":
        why = f'<p class="why">Not reached: <b>{escape(result.failed_at)}</b>. {escape(result.why)}</p>'
    evidence = "".join(_evidence(name, value) for name, value in result.evidence.items())
    return f"""<section id="{escape(result.name)}" class="{result.result}">
<h2>{_MARK[result.result]} {escape(result.name)} <small>{escape(result.severity)} · {escape(result.team)}</small></h2>
{why}<div class="scroll">{timeline(result, threshold)}</div>
<dl>{facts}</dl>
{evidence}
</section>"""


def _threshold(result: DrillResult) -> float | None:
    found = comparison(own_expression(result.alert, result.compress))
    return found[2] if found else None


def _evidence(name: str, value: Any) -> str:
    shown = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    if len(shown) > _MOST_EVIDENCE:
        shown = shown[:_MOST_EVIDENCE] + "\n… (all of it is in drill.json)"
    return f"<details><summary>{escape(name)}</summary><pre>{escape(shown)}</pre></details>"
