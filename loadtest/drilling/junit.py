"""A run as JUnit XML: one test case per drill, and one that fails per alert without a drill."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree as ET

from loadtest.drilling.outcome import Outcome, Run

# What XML 1.0 has no place for (its section 2.2).
_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(run: Run) -> str:
    """The document."""
    failed = sum(outcome.result == "failed" for outcome in run.outcomes)
    failed += len(run.uncovered) + len(run.faults)
    facts = {
        "name": f"{run.kind} {run.profile}",
        "tests": str(len(run.outcomes) + len(run.uncovered) + len(run.faults)),
        "failures": str(failed),
        "errors": "0",
        "skipped": "0",
        "time": f"{(run.ended_at or run.started_at) - run.started_at:.1f}",
    }
    suites = ET.Element(
        "testsuites", {k: facts[k] for k in ("tests", "failures", "errors", "time")}
    )
    suite = ET.SubElement(suites, "testsuite", facts)
    for outcome in run.outcomes:
        _case(suite, run.kind, outcome)
    for alert in run.uncovered:
        case = ET.SubElement(suite, "testcase", {"classname": run.kind, "name": alert, "time": "0"})
        ET.SubElement(case, "failure", {"message": "no drill is registered for this alert"})
    for number, fault in enumerate(run.faults, 1):
        name = f"the run as a whole ({number})"
        case = ET.SubElement(suite, "testcase", {"classname": run.kind, "name": name, "time": "0"})
        ET.SubElement(case, "failure", {"message": _clean(fault)})
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode")


def _case(suite: ET.Element, kind: str, outcome: Outcome) -> None:
    seconds = (outcome.ended_at or outcome.started_at) - outcome.started_at
    facts = {
        "classname": f"{kind}.{outcome.severity}",
        "name": outcome.alert,
        "time": f"{seconds:.1f}",
    }
    case = ET.SubElement(suite, "testcase", facts)
    if outcome.result == "simulated":
        properties = ET.SubElement(case, "properties")
        ET.SubElement(
            properties,
            "property",
            {"name": "simulated", "value": _clean(outcome.simulated_because)},
        )
    if outcome.result == "failed":
        why = _clean(outcome.why) or "unknown"
        failure = ET.SubElement(
            case, "failure", {"message": why, "type": outcome.failed_at or kind}
        )
        failure.text = f"not reached: {outcome.failed_at}\n{why}"
    steps = "\n".join(f"{step}: {outcome.seconds(step)} s" for step in outcome.moments)
    ET.SubElement(case, "system-out").text = _clean(f"{outcome.breaks}\n{steps}")


def _clean(text_: str) -> str:
    return _FORBIDDEN.sub("�", text_)
