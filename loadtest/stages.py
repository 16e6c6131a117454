"""`--shape stages`: every scenario in turn, each for `--step-seconds`, with at most `-u` users.

Rules
- A user class has a weight in one scenario and another in the next, and Locust reads it from the
  class: it is set when a stage begins.
- Between two stages all users disconnect: Locust only adds users of the classes it is given.
"""

from __future__ import annotations

from typing import ClassVar, Final

from locust import LoadTestShape, User

from loadtest.scenarios import SCENARIOS, Scenario
from loadtest.shapes import options_of, run_seconds

_LEAVE_RATE: Final = 100.0


class StagesShape(LoadTestShape):
    """One stage per scenario."""

    use_common_options: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waiting = list(SCENARIOS.values())
        self._scenario: Scenario | None = None
        self._ends = 0.0

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """Users, users per second and their classes now; None at the end."""
        options, now = options_of(self), run_seconds(self)
        if self._scenario is not None and now >= self._ends:
            self._scenario = None
            return (0, _LEAVE_RATE, []) if self._waiting else None
        if self._scenario is None:
            self._scenario = self._waiting.pop(0)
            self._ends = now + options.step_seconds
            _set_shares(self._scenario)
        return stage(self._scenario, options.num_users)


def stage(scenario: Scenario, most: int | None) -> tuple[int, float, list[type[User]]]:
    """A scenario as a shape gives it: its own number of users, or fewer."""
    users = min(most or scenario.users, scenario.users) + sum(scenario.fixed.values())
    return users, scenario.spawn_rate, [*scenario.weights, *scenario.fixed]


def _set_shares(scenario: Scenario) -> None:
    for kind, weight in scenario.weights.items():
        kind.weight, kind.fixed_count = weight, 0
    for kind, count in scenario.fixed.items():
        kind.fixed_count = count
