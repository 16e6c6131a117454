"""The results of a run of drills: the runner fills them, every report reads them.

Rules
- Times are Unix times; durations end in `_seconds` and count from the moment the fault was injected,
  negative before that. A step that was not reached is None, never 0.
- `to_document` is the public form of DIR/drill.json; names in it change with the changelog only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Protocol

Result = Literal["passed", "failed", "simulated"]
Proof = Literal["full", "prometheus", "deadman"]

# The steps of a drill, in order; `acknowledged` only where a drill acknowledges, and then
# `resolve_notified` is the tracker's resolve at PagerDuty.
STEPS: Final = (
    "baseline",
    "load",
    "below",
    "provoked",
    "pending",
    "firing",
    "alertmanager",
    "notified",
    "acknowledged",
    "undone",
    "resolved",
    "resolve_notified",
    "ledger",
)


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """A receiver that was notified: `slack` with its channel, `pagerduty` with its action, …"""

    kind: str
    address: str
    at: float

    def __str__(self) -> str:
        return f"{self.kind} {self.address}".strip()


@dataclass(slots=True)
class DrillResult:
    """One drill.

    Attributes:
        breaks: one sentence: the fault.
        undo: one sentence: how the fault was undone.
        proof: how far the alert can travel: `full` to the receivers, `prometheus` to Prometheus,
            `deadman` to the dead man's switch, which raises an alarm when the alert stops.
        simulated_because: why the cause was simulated; empty if it was real.
        step_times: Unix time of each step that was reached, by its name in STEPS.
        failed_at: the step that was not reached; empty if all were.
        why: one sentence: which link of the chain is broken, and what was observed instead.
        below: what was observed while the value was just below the threshold; empty if not tried.
        also_fired: other alerts that fired meanwhile in the same environment.
        samples: (Unix time, value or None) of the alert's own expression, for the timeline.
        evidence: `prometheus` and `alertmanager` (the alert as each gave it), `payloads` (as the
            receivers got them), `ledger` (of the load).
        variant: which of the alert's drills it was; empty for the one that every alert has.
    """

    alert: str
    drill: str
    severity: str
    team: str
    proof: Proof
    breaks: str
    undo: str
    environment: str
    compress: float
    started_at: float
    ended_at: float | None = None
    result: Result = "failed"
    simulated_because: str = ""
    failed_at: str = ""
    why: str = ""
    below: str = ""
    is_acknowledged: bool = False
    step_times: dict[str, float] = field(default_factory=dict)
    notified: list[ReceiverState] = field(default_factory=list)
    resolve_notified: list[ReceiverState] = field(default_factory=list)
    also_fired: list[str] = field(default_factory=list)
    samples: list[tuple[float, float | None]] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    variant: str = ""

    @property
    def name(self) -> str:
        """The name of the drill: the alert's, or Alert/variant."""
        return f"{self.alert}/{self.variant}" if self.variant else self.alert

    def seconds(self, step: str) -> float | None:
        """Seconds from the fault to a step; None if either was not reached."""
        provoked, at = self.step_times.get("provoked"), self.step_times.get(step)
        return None if provoked is None or at is None else round(at - provoked, 2)

    def to_document(self) -> dict[str, Any]:
        """The alert's entry in drill.json."""
        document = asdict(self)
        document["notified"] = [str(receiver) for receiver in self.notified]
        document["resolve_notified"] = [str(receiver) for receiver in self.resolve_notified]
        timed = ("pending", "firing", "alertmanager", "notified", "acknowledged", "undone")
        for step in (*timed, "resolved", "resolve_notified"):
            name = "resolve_notified" if step == "resolve_notified" else step
            document[f"{name}_seconds"] = self.seconds(step)
        return document


class StepListener(Protocol):
    """Is notified of the progress of a drill."""

    def stepped(self, result: DrillResult, step: str) -> None:
        """A step was reached."""


@dataclass(slots=True)
class RunResult:
    """All drills of one command.

    Attributes:
        profile: `compressed` or `production`.
        machine: facts of the machine: cores, memory_bytes, kernel, python, cpu model.
        uncovered: alerts that Prometheus has a rule for and no drill is registered for.
        kind: `drill` or `soak`; a soak has one result per alert that fired or was watched.
        faults: a sentence for each fault of the run as a whole; one is enough to fail it.
    """

    profile: str
    compress: float
    started_at: float
    target: str
    machine: dict[str, Any]
    ended_at: float | None = None
    results: list[DrillResult] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)
    kind: str = "drill"
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_passed(self) -> bool:
        """Whether every drill passed (or was simulated as it should be) and nothing else is wrong."""
        return (
            bool(self.results)
            and not self.uncovered
            and not self.faults
            and all(o.result != "failed" for o in self.results)
        )

    def to_document(self) -> dict[str, Any]:
        """DIR/drill.json."""
        document = {
            name: getattr(self, name)
            for name in (
                "kind",
                "profile",
                "compress",
                "started_at",
                "ended_at",
                "target",
                "machine",
                "uncovered",
                "faults",
                "notes",
            )
        }
        counts = {
            r: sum(o.result == r for o in self.results) for r in ("passed", "failed", "simulated")
        }
        return {
            **document,
            "is_passed": self.is_passed,
            "counts": counts,
            "alerts": [result.to_document() for result in self.results],
        }
