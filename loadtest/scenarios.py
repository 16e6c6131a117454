"""The scenarios by name: their users, and how many by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from locust import User

from loadtest.users.chat import Broadcaster, ChatMember, Reconnector, Subscriber
from loadtest.users.quiet import Caller, Comer, Idle, SessionHolder, SlowReader
from loadtest.users.wrong import ErrorMaker


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario.

    Attributes:
        weights: shares of the user classes.
        fixed: user classes of which there is a fixed number.
        users: how many users there are unless `-u` says otherwise.
        spawn_rate: users per second unless `-r` says otherwise.
    """

    text: str
    weights: Mapping[type[User], int]
    users: int
    spawn_rate: float
    fixed: Mapping[type[User], int]


def _scenario(
    text: str,
    weights: Mapping[type[User], int],
    users: int,
    spawn_rate: float,
    fixed: Mapping[type[User], int] | None = None,
) -> Scenario:
    return Scenario(text, weights, users, spawn_rate, fixed or {})


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "steady": _scenario(
        "a few members that publish slowly and miss nothing", {ChatMember: 1}, 10, 50
    ),
    "idle": _scenario("clients that are connected and silent", {Idle: 1}, 10, 100),
    "connections": _scenario(
        "many subscribers, few publications", {Subscriber: 49, ChatMember: 1}, 2000, 200
    ),
    "churn": _scenario("clients that connect and leave", {Comer: 1}, 30, 100),
    "throughput": _scenario(
        "one channel with many subscribers and a broadcaster",
        {Subscriber: 1},
        200,
        100,
        {Broadcaster: 1},
    ),
    "errors": _scenario("clients that make mistakes", {ErrorMaker: 1}, 5, 50),
    "sessions": _scenario("clients that hold a session each", {SessionHolder: 1}, 100, 100),
    "slow-readers": _scenario(
        "clients that do not read a busy channel", {SlowReader: 1}, 12, 20, {Broadcaster: 1}
    ),
    "reconnects": _scenario("members whose connections break", {Reconnector: 1}, 20, 50),
    "calls": _scenario("clients that call a procedure", {Caller: 1}, 20, 50),
    "mixed": _scenario(
        "a bit of everything that is right",
        {ChatMember: 6, Subscriber: 6, Idle: 3, SessionHolder: 2, Reconnector: 2, Comer: 1},
        40,
        40,
    ),
}
