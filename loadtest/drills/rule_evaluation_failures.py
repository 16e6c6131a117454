"""RuleEvaluationFailures: a rule that cannot be evaluated."""

from __future__ import annotations

import signal
from typing import Final

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector

# It makes all targets the same, which is an error in every evaluation.
_GROUP: Final = """
- name: drill
  rules:
  - record: job:drill:broken
    expr: label_replace(label_replace(up, "job", "x", "", ""), "instance", "x", "", "")
"""


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment
    # Undone in reverse order: first the file, then the reload.
    injector.note(undo.signalled(environment.pid_of("prometheus"), signal.SIGHUP))
    injector.change_file(
        environment.rendered("alert_rules.yml"), lambda text: text.rstrip() + _GROUP
    )
    environment.reload("prometheus")


DRILL = Drill(
    alert="RuleEvaluationFailures",
    breaks="a recording rule is added that fails in every evaluation",
    undo="the rule is removed",
    provoke=provoke,
    fires_seconds=75,
    resolves_seconds=330,
    fixed_seconds=5,
    affects=frozenset({Component.RULES}),
    needs=MONITORING,
    load=None,
)
