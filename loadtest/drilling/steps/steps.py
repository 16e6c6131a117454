"""The steps of one drill, from a clean baseline to a clean ledger, with the time of each.

Rules
- Every step has a deadline; a step that is not reached in time names the broken link of the chain.
- Every fault is undone whatever happens, and the drill fails if one could not be undone.
- Times are those of Prometheus, Alertmanager and the receivers, where they report them.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cluster.alerting.prometheus import Rule
from cluster.errors import ClusterError, NotAnswering
from loadtest.drilling.drill import Drill
from loadtest.drilling.environment.load import LoadFailed, RunningLoad
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector, Interrupted
from loadtest.drilling.receivers import Notifications, Receiver, last_id, receivers_of
from loadtest.drilling.result import STEPS, DrillResult, StepListener
from loadtest.drilling.steps import diagnosis, evidence
from loadtest.drilling.steps.acknowledge import acknowledge, is_closed, unsilence
from loadtest.drilling.steps.below_threshold import BelowThreshold, NotBelow

_BASELINE_SECONDS: Final = 900.0
_SCRAPES: Final = 2
_ALERTMANAGER_SECONDS: Final = 75.0
# group_wait or group_interval, whichever comes first, and a retry.
_NOTIFY_SECONDS: Final = 420.0
_RESOLVE_NOTIFY_SECONDS: Final = 660.0
# Real time that no compression shortens: scrapes, evaluations, a busy machine.
_SLACK_SECONDS: Final = 30.0
# Two group intervals, and some time.
_FORGOTTEN_SECONDS: Final = 750.0
_LATE: Final = 1.6


class NotReached(Exception):
    """A step was not reached."""

    def __init__(self, step: str, why: str) -> None:
        super().__init__(why)
        self.step = step


class DrillSteps:
    """One drill on one environment.

    Args:
        slack_seconds: real time added to the deadline of each step, which compression does not shorten.
    """

    def __init__(
        self,
        drill: Drill,
        injector: FaultInjector,
        result: DrillResult,
        listener: StepListener,
        *,
        slack_seconds: float = _SLACK_SECONDS,
    ) -> None:
        self._slack_seconds = slack_seconds
        self._drill = drill
        self._injector = injector
        self._environment = injector.monitored_cluster
        self._result = result
        self._listener = listener
        self._load: RunningLoad | None = None
        self._provoked: threading.Thread | None = None
        self._provocation_fault: Exception | None = None
        self._sampled_at = 0.0
        self._notifications = Notifications(self._environment.receiver, drill.alert, 0)

    def run(self) -> None:
        """Run all steps; the result says which were reached."""
        result = self._result
        try:
            self._go()
            result.result = "simulated" if self._injector.simulated_because else "passed"
            result.simulated_because = self._injector.simulated_because
        except NotReached as error:
            result.failed_at, result.why = error.step, str(error)
        except Interrupted:
            result.failed_at, result.why = self._next_step(), "the run was interrupted"
        except (ClusterError, NotAnswering, CannotProvoke, LoadFailed, OSError) as error:
            result.failed_at, result.why = self._next_step(), f"{error}"
        finally:
            self._finish()

    def _go(self) -> None:
        drill = self._drill
        if drill.prepare is not None:
            drill.prepare(self._injector)
        if drill.is_active_without_load:
            self._begin_load()
        self._baseline()
        self._start_load()
        if drill.below is not None:
            self._stay_below()
        self._notifications = Notifications(
            self._environment.receiver, drill.alert, last_id(self._environment.receiver)
        )
        self._provoke()
        self._fire()
        if drill.proof == "full":
            self._notify()
        if drill.is_acknowledged:
            self._acknowledge()
        self._undo()
        self._resolve()
        if drill.proof == "full":
            self._resolve_notified()
        self._settle()

    # --- steps -----------------------------------------------------------------------------

    def _baseline(self) -> None:
        alert = self._drill.alert
        if self._rule() is None:
            raise NotReached("baseline", self._why_not_clean())

        def is_clean() -> bool:
            active = any(one.name == alert for one in self._environment.alertmanager.alerts())
            return (
                self._has_history()
                and self._is_quiet()
                and not active
                and not self._is_unresolved()
            )

        self._reach("baseline", is_clean, _BASELINE_SECONDS, self._why_not_clean)

    def _why_not_clean(self) -> str:
        if self._rule() is None:
            rules = self._environment.prometheus.rules()
            return diagnosis.missing_rule(self._environment, self._drill.alert, rules)
        if not self._has_history():
            return f"Prometheus has not scraped every target {_SCRAPES} times"
        return f"{self._drill.alert} is active before the fault is injected"

    def _has_history(self) -> bool:
        """Whether every target was scraped twice: a counter first seen after a fault has no rate."""
        scrapes = self._environment.prometheus.number("min(count_over_time(up[1h]))")
        return scrapes is not None and scrapes >= _SCRAPES

    def _begin_load(self) -> None:
        if self._drill.load is not None and self._load is None:
            self._load = self._injector.start_load(self._drill.load)
            self._load.wait_until_connected(self._injector.wait)

    def _start_load(self) -> None:
        self._begin_load()
        self._stay_quiet_under_load()

    def _stay_quiet_under_load(self) -> None:
        alert = self._drill.alert
        self._reach(
            "load",
            self._is_quiet,
            _BASELINE_SECONDS,
            lambda: f"{alert} is active under steady load",
        )

    def _stay_below(self) -> None:
        """Bring the value just below the threshold: the alert must not even be pending."""
        assert self._drill.below is not None
        self._drill.below(self._injector)
        hold = self._injector.seconds(self._drill.below_seconds)
        below = BelowThreshold(hold, hold + self._slack_seconds)
        try:
            while not below.check(self._rule(), self._sample()):
                self._injector.wait(self._pace)
        except NotBelow as error:
            raise NotReached("below", str(error)) from None
        self._raise_faults(self._injector.undo())
        seen = "none" if below.highest is None else f"{below.highest:g}"
        self._result.below = (
            f"{self._drill.below_breaks}: inactive for {hold:.0f} s, highest value {seen}"
        )
        self._reached("below")

    def _provoke(self) -> None:
        self._reached("provoked")

        def provoke() -> None:
            try:
                self._drill.provoke(self._injector)
            except Exception as error:  # noqa: BLE001 - whatever it is, the drill says it
                self._provocation_fault = error

        self._provoked = threading.Thread(target=provoke, name=f"{self._injector.name} provokes")
        self._provoked.start()

    def _fire(self) -> None:
        drill = self._drill

        def fires() -> bool:
            self._check_provocation("pending")
            rule = self._rule()
            if rule is not None and rule.alerts:
                since = max(
                    self._result.step_times["provoked"], min(a.active_at for a in rule.alerts)
                )
                if "pending" not in self._result.step_times:
                    self._reached("pending", since)
            return rule is not None and rule.state == "firing"

        why = lambda: diagnosis.not_firing(self._environment, drill.alert, self._rule())  # noqa: E731
        step = "firing"
        self._reach(step, fires, drill.fires_seconds * _LATE, why, fixed=drill.fixed_seconds)
        self._keep("prometheus", evidence.at_prometheus(self._environment, drill.alert))
        if drill.proof == "prometheus":
            return
        self._reach(
            "alertmanager",
            lambda: evidence.is_active_at_alertmanager(
                self._environment, drill.alert, self._rule()
            ),
            _ALERTMANAGER_SECONDS,
            lambda: diagnosis.not_at_alertmanager(self._environment),
        )
        self._keep("alertmanager", evidence.at_alertmanager(self._environment, drill.alert))

    def _notify(self) -> None:
        wanted = self._receivers()

        def lacking() -> list[tuple[str, str]]:
            arrived = self._notifications.arrived("firing")
            return [receiver for receiver in wanted if receiver not in arrived]

        self._reach(
            "notified",
            lambda: not lacking(),
            _NOTIFY_SECONDS,
            lambda: (
                self._notifications.malformed()
                or diagnosis.not_notified(self._environment, self._drill.alert, lacking())
            ),
        )
        arrived = self._notifications.arrived("firing")
        self._result.notified = list(arrived.values())
        self._result.step_times["notified"] = max(arrived[receiver].at for receiver in wanted)

    def _acknowledge(self) -> None:
        acknowledge(self._environment, self._drill.alert)

        def is_notified() -> bool:
            return self._is_closed() is not None and (
                self._result.severity != "critical"
                or bool(self._notifications.arrived("acknowledged"))
            )

        self._reach(
            "acknowledged",
            is_notified,
            _NOTIFY_SECONDS,
            lambda: "incident tracker: the acknowledgement did not arrive",
        )

    def _is_closed(self) -> bool | None:
        provoked = self._result.step_times["provoked"]
        return is_closed(self._environment, self._drill.alert, since=provoked)

    def _undo(self) -> None:
        if self._provoked is not None:
            self._provoked.join()
        self._check_provocation("provoked")
        self._raise_faults(self._injector.undo())
        self._reached("undone")

    def _resolve(self) -> None:
        def is_over() -> bool:
            rule = self._rule()
            return rule is not None and rule.is_settled and rule.state != "firing"

        self._reach(
            "resolved",
            is_over,
            self._drill.resolves_seconds * _LATE,
            lambda: (
                "cause: the fault was undone and the alert still fires: "
                + diagnosis.value_text(self._environment.prometheus, self._rule())
            ),
            fixed=self._drill.fixed_seconds,
        )

    def _resolve_notified(self) -> None:
        wanted = self._receivers()
        if self._drill.is_acknowledged:
            # Alertmanager sends no resolve for a silenced alert: the tracker does, to PagerDuty.
            wanted = [receiver for receiver in wanted if receiver[0] == "pagerduty"]

        def is_resolved() -> bool:
            arrived = self._notifications.arrived("resolved")
            if self._drill.is_acknowledged and not self._is_closed():
                return False
            return all(receiver in arrived for receiver in wanted)

        self._reach(
            "resolve_notified",
            is_resolved,
            _RESOLVE_NOTIFY_SECONDS,
            lambda: "receiver: the alert is resolved, and a receiver was not notified of it",
        )
        arrived = self._notifications.arrived("resolved")
        self._result.resolve_notified = list(arrived.values())
        if wanted:
            self._result.step_times["resolve_notified"] = max(
                arrived[receiver].at for receiver in wanted
            )
        self._check_routes()

    def _check_routes(self) -> None:
        """Fail if a receiver that is not on the route was notified."""
        result = self._result
        allowed = {*self._receivers(), *receivers_of(result.severity, result.team)}
        unexpected = self._notifications.arrived("firing").keys() - allowed
        if unexpected:
            where = ", ".join(sorted(" ".join(receiver) for receiver in unexpected))
            raise NotReached("notified", f"route: {where} was notified, too")

    def _settle(self) -> None:
        """End the load: its ledger must account for every publication."""
        if self._load is not None:
            account = self._load.end()
            load, self._load = self._load.load, None
            self._keep("ledger", account)
            if faults := load.faults(account):
                raise NotReached("ledger", f"service: publications are not accounted for: {faults}")
        self._reached("ledger")

    def _finish(self) -> None:
        """Undo the faults, end the load, and keep the evidence."""
        self._injector.give_up()
        if self._provoked is not None:
            self._provoked.join(60)
        faults = self._injector.undo()
        if self._load is not None:
            self._load.end()
        with suppress(ClusterError, NotAnswering, OSError, subprocess.SubprocessError):
            if self._drill.is_acknowledged:
                unsilence(self._environment, self._drill.alert)
        with suppress(NotAnswering, KeyError, TypeError, ValueError):
            self._keep("payloads", [entry["document"] for entry in self._notifications.entries()])
        if faults:
            self._result.result = "failed"
            self._result.failed_at = self._result.failed_at or "undone"
            self._result.why = " ".join(filter(None, [self._result.why, *faults]))
        self._result.ended_at = time.time()

    # --- queries ---------------------------------------------------------------------------

    @property
    def _pace(self) -> float:
        return 0.25 if self._environment.compress > 1 else 2.0

    def _reach(
        self,
        step: str,
        is_reached: Callable[[], bool],
        production_seconds: float,
        why: Callable[[], str],
        *,
        fixed: float = 0.0,
    ) -> None:
        """Wait until a step is reached; a service that does not answer is asked again until the deadline."""
        limit = self._injector.seconds(production_seconds) + fixed + self._slack_seconds
        deadline = time.monotonic() + limit
        away = ""
        while True:
            try:
                if is_reached():
                    break
                away = ""
                self._sample()
            except NotAnswering as error:
                away = str(error)
            if time.monotonic() > deadline:
                raise NotReached(step, f"{away or why()} (waited {limit:.0f} s)")
            self._injector.wait(self._pace)
        if step not in self._result.step_times:
            self._reached(step)

    def _reached(self, step: str, at: float | None = None) -> None:
        self._result.step_times[step] = at or time.time()
        self._listener.stepped(self._result, step)

    def _next_step(self) -> str:
        return next((step for step in STEPS if step not in self._result.step_times), "ledger")

    def _check_provocation(self, step: str) -> None:
        if self._provocation_fault is not None:
            error = self._provocation_fault
            if isinstance(error, Interrupted):
                raise error
            raise NotReached(
                step, f"cause: the fault could not be injected: {diagnosis.text_of(error)}"
            )

    def _raise_faults(self, faults: list[str]) -> None:
        if faults:
            raise NotReached("undone", " ".join(faults))

    def _is_unresolved(self) -> bool:
        """Whether a receiver was notified that it fires, by an earlier drill, and not yet of the end.

        Alertmanager notifies of the end at the next group interval, unless the alert fires again by
        then. It never does for an alert that was silenced meanwhile.
        """
        notified_at = self._notifications.unresolved_at()
        return time.time() - notified_at < self._injector.seconds(_FORGOTTEN_SECONDS)

    def _is_quiet(self) -> bool:
        rule = self._rule()
        return rule is not None and rule.is_settled and not rule.alerts

    def _rule(self) -> Rule | None:
        rules = self._environment.prometheus.rules()
        fired = {r.name for r in rules if r.state == "firing"} - {self._drill.alert, "Watchdog"}
        if "provoked" in self._result.step_times:
            self._result.also_fired = sorted({*self._result.also_fired, *fired})
        return next((rule for rule in rules if rule.name == self._drill.alert), None)

    def _sample(self) -> float | None:
        """The value that the alert compares, queried about once per evaluation."""
        now = time.time()
        samples = self._result.samples
        if now - self._sampled_at < max(1.0, 15.0 / self._environment.compress):
            return samples[-1][1] if samples else None
        self._sampled_at = now
        rule = self._rule()
        if rule is not None:
            value = diagnosis.value_of(self._environment.prometheus, rule.expression)
            samples.append((now, value))
        return samples[-1][1] if samples else None

    def _receivers(self) -> list[Receiver]:
        if self._drill.reaches is not None:
            return list(self._drill.reaches)
        return receivers_of(self._result.severity, self._result.team)

    def _keep(self, name: str, found: object) -> None:
        self._result.evidence[name] = found
