"""The steps of the alert that always fires: when it stops, the dead man's switch raises an alarm."""

from __future__ import annotations

from typing import Any, Final

from loadtest.drilling.steps import diagnosis, evidence
from loadtest.drilling.steps.steps import DrillSteps

_SILENCE_SECONDS: Final = 900.0


class DeadmanSteps(DrillSteps):
    """Watchdog: it fires before and after; in between the switch must notice that it has stopped."""

    def _baseline(self) -> None:
        def beats() -> bool:
            rule = self._rule()
            is_firing = rule is not None and rule.state == "firing"
            return is_firing and bool(self._environment.receiver.get("/watchdog")["is_alive"])

        self._reach(
            "baseline",
            beats,
            _SILENCE_SECONDS,
            lambda: diagnosis.not_notified(
                self._environment, self._drill.alert, [("webhook", "dead man's switch")]
            ),
        )

    def _stay_quiet_under_load(self) -> None:
        """It always fires: there is nothing to wait for."""
        self._reached("load")

    def _alarms(self, state: str) -> list[dict[str, Any]]:
        after = self._result.step_times["provoked"]
        found = self._environment.receiver.get("/received", {"kind": "deadman"})
        return [e for e in found if e["at"] >= after and e["document"].get("state") == state]

    def _fire(self) -> None:
        def is_raised() -> bool:
            self._check_provocation("firing")
            return bool(self._alarms("alarm"))

        self._reach(
            "firing",
            is_raised,
            self._drill.fires_seconds * 1.6,
            lambda: "dead man's switch: the heartbeat has stopped and no alarm was raised",
            fixed=self._drill.fixed_seconds,
        )
        self._keep("payloads", [entry["document"] for entry in self._alarms("alarm")])

    def _resolve(self) -> None:
        self._reach(
            "resolved",
            lambda: bool(self._alarms("ended")),
            self._drill.resolves_seconds * 1.6,
            lambda: "dead man's switch: the fault was undone and the alarm has not ended",
            fixed=self._drill.fixed_seconds,
        )
        self._keep("prometheus", evidence.at_prometheus(self._environment, self._drill.alert))
