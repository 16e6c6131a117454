"""A run as JUnit XML: one test case per drill, and one that fails per alert without a drill."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree as ET

from loadtest.drilling.result import DrillResult, RunResult

# Characters that XML 1.0 does not allow (section 2.2).
_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(run: RunResult) -> str:
    """The document."""
    failed = sum(result.result == "failed" for result in run.results)
    failed += len(run.uncovered) + len(run.faults)
    facts = {
        "name": f"{run.kind} {run.profile}",
        "tests": str(len(run.results) + len(run.uncovered) + len(run.faults)),
        "failures": str(failed),
        "errors": "0",
        "skipped": "0",
        "time": f"{(run.ended_at or run.started_at) - run.started_at:.1f}",
    }
    suites = ET.Element(
        "testsuites", {k: facts[k] for k in ("tests", "failures", "errors", "time")}
    )
    suite = ET.SubElement(suites, "testsuite", facts)
    for result in run.results:
        _case(suite, run.kind, result)
    for alert in run.uncovered:
        case = ET.SubElement(suite, "testcase", {"classname": run.kind, "name": alert, "time": "0"})
        ET.SubElement(case, "failure", {"message": "no drill is registered for this alert"})
    for number, fault in enumerate(run.faults, 1):
        name = f"the run as a whole ({number})"
        case = ET.SubElement(suite, "testcase", {"classname": run.kind, "name": name, "time": "0"})
        ET.SubElement(case, "failure", {"message": _clean(fault)})
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode")


def _case(suite: ET.Element, kind: str, result: DrillResult) -> None:
    seconds = (result.ended_at or result.started_at) - result.started_at
    facts = {
        "classname": f"{kind}.{result.severity}",
        "name": result.name,
        "time": f"{seconds:.1f}",
    }
    case = ET.SubElement(suite, "testcase", facts)
    if result.result == "simulated":
        properties = ET.SubElement(case, "properties")
        ET.SubElement(
            properties,
            "property",
            {"name": "simulated", "value": _clean(result.simulated_because)},
        )
    if result.result == "failed":
        why = _clean(result.why) or "unknown"
        failure = ET.SubElement(case, "failure", {"message": why, "type": result.failed_at or kind})
        failure.text = f"not reached: {result.failed_at}\n{why}"
    steps = "\n".join(f"{step}: {result.seconds(step)} s" for step in result.step_times)
    ET.SubElement(case, "system-out").text = _clean(f"{result.breaks}\n{steps}")


def _clean(text_: str) -> str:
    return _FORBIDDEN.sub("�", text_)
