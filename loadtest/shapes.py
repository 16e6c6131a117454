"""The number of users over time: ramp until the knee, spike, soak, steps of churn.

Rules
- A shape is chosen with `--shape`; without one, `-u` and `-r` hold.
- The ramp stops raising when p99 or the share of errors has passed its limit twice in a row, goes
  back to the last load that was well, and that is the capacity.
- The decision is pure (`Ramp`): from the measurements it returns the next number of users.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from locust import LoadTestShape

_EVENTS: Final = ("delivery", "delivery other host", "publish", "connect")
_STEP_SECONDS: Final = 10.0
_STEPS: Final = 12
_BAD_STEPS: Final = 2
_SPIKE: Final = ((15.0, 0.2), (20.0, 1.0), (20.0, 0.2))


@dataclass(slots=True)
class Ramp:
    """Raises the load by a step as long as the limits are met.

    Attributes:
        step: users more at each step.
        most: where it ends in any case.
        p99_ms: limit of the 99th percentile.
        error_share: limit of the share of failed events.
        capacity: users at the last step that was well.
        knee: why it stopped raising; empty if it never had to.
    """

    step: int
    most: int
    p99_ms: float
    error_share: float
    users: int = 0
    capacity: int = 0
    knee: str = ""
    _bad: int = 0
    history: list[tuple[int, float | None, float]] = field(default_factory=list)

    def next(self, p99_ms: float | None, error_share: float) -> int | None:
        """The next number of users; None at the end.

        Args:
            p99_ms: of the step that ends; None if nothing was measured.
            error_share: of the step that ends.
        """
        if self.users:
            self.history.append((self.users, p99_ms, error_share))
            if fault := self._fault(p99_ms, error_share):
                self._bad += 1
                if self._bad >= _BAD_STEPS:
                    self.knee = f"at {self.users} users {fault}"
                    return None
                return self.users
            self._bad = 0
            self.capacity = self.users
        if self.users >= self.most:
            return None
        self.users = min(self.most, self.users + self.step)
        return self.users

    def _fault(self, p99_ms: float | None, error_share: float) -> str:
        if p99_ms is not None and p99_ms > self.p99_ms:
            return f"p99 was {p99_ms:.0f} ms, above {self.p99_ms:g} ms"
        if error_share > self.error_share:
            return f"{100 * error_share:.1f} % of events failed, above {100 * self.error_share:g} %"
        return ""


def options_of(shape: LoadTestShape) -> Namespace:
    assert shape.runner is not None
    options = shape.runner.environment.parsed_options
    assert isinstance(options, Namespace)
    return options


def run_seconds(shape: LoadTestShape) -> float:
    return float(shape.get_run_time())


class RampShape(LoadTestShape):
    """`--shape ramp`: up to the knee. `-u` is where it ends, in twelve steps of ten seconds."""

    use_common_options: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ramp: Ramp | None = None
        self._step_ends = 0.0
        self._before = (0, 0)

    def tick(self) -> tuple[int, float] | None:
        options = options_of(self)
        if self.ramp is None:
            most = options.num_users or 1000
            self.ramp = Ramp(
                step=max(1, most // _STEPS),
                most=most,
                p99_ms=options.knee_p99_ms,
                error_share=options.knee_error_share,
            )
        now = run_seconds(self)
        if now >= self._step_ends:
            users = self.ramp.next(*self._seen())
            if users is None:
                return None
            self._step_ends = now + options.step_seconds
        rate = options.spawn_rate or self.ramp.step
        return self.ramp.users, max(1.0, float(rate))

    def _seen(self) -> tuple[float | None, float]:
        assert self.runner is not None
        stats = self.runner.environment.stats
        total = stats.total
        requests, failures = total.num_requests, total.num_failures
        share = (failures - self._before[1]) / max(1, requests - self._before[0])
        self._before = requests, failures
        worst = [
            entry.get_current_response_time_percentile(0.99)
            for entry in stats.entries.values()
            if entry.name in _EVENTS and entry.num_requests
        ]
        found = [value for value in worst if value is not None]
        return (max(found) if found else None), share


class SpikeShape(LoadTestShape):
    """`--shape spike`: a fifth of `-u`, all of them at once, and a fifth again."""

    use_common_options: ClassVar[bool] = True

    def tick(self) -> tuple[int, float] | None:
        options = options_of(self)
        most, now = options.num_users or 100, run_seconds(self)
        for seconds, share in _SPIKE:
            if now < seconds:
                users = max(1, int(most * share))
                return users, float(options.spawn_rate or most)
            now -= seconds
        return None


class SoakShape(LoadTestShape):
    """`--shape soak`: all of `-u`, varied by a third over five minutes, for `--soak-seconds`."""

    use_common_options: ClassVar[bool] = True
    period_seconds = 300.0

    def tick(self) -> tuple[int, float] | None:
        options = options_of(self)
        now, most = run_seconds(self), options.num_users or 100
        if now >= options.soak_seconds:
            return None
        phase = (now % self.period_seconds) / self.period_seconds
        tide = 1 - abs(2 * phase - 1)
        return max(1, int(most * (2 / 3 + tide / 3))), float(options.spawn_rate or 10)


class ChurnShape(LoadTestShape):
    """`--shape churn`: all users disconnect and reconnect every twenty seconds."""

    use_common_options: ClassVar[bool] = True
    period_seconds = 20.0

    def tick(self) -> tuple[int, float] | None:
        options = options_of(self)
        most, now = options.num_users or 100, run_seconds(self)
        if now >= options.soak_seconds:
            return None
        is_full = now % self.period_seconds < self.period_seconds / 2
        return (most if is_full else max(1, most // 10)), float(options.spawn_rate or most)


SHAPES: Final[Mapping[str, Callable[[], LoadTestShape]]] = {
    "ramp": RampShape,
    "spike": SpikeShape,
    "soak": SoakShape,
    "churn": ChurnShape,
}


def result(shape: Any) -> dict[str, Any]:
    """What a ramp found, for the summary; empty for other shapes."""
    ramp = getattr(shape, "ramp", None)
    if ramp is None:
        return {}
    steps = [{"users": u, "p99_ms": p, "error_share": round(e, 5)} for u, p, e in ramp.history]
    return {"capacity_users": ramp.capacity, "knee": ramp.knee, "steps": steps}
