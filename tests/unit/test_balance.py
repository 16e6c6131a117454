"""The decision how many connections a worker closes: towards the mean, slowly, once, and not in a storm.

The workers here are simulated: a turn is a second, each reports every five, and a client that is closed is
back a second or two later at the worker with the fewest connections, as nginx's least_conn chooses it, or
at a random one, as a load balancer in front of several nginx chooses it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import BalanceConfig
from cluster.node import balance as balance_module
from cluster.node.balance import Balance, ReportedState, WorkerLoad
from cluster.worker.shedding import rules_of

#: What is promised of the balance is promised of the defaults.
RULES = rules_of(BalanceConfig())
INTERVAL = round(BalanceConfig().interval)
STEADY = ReportedState.STEADY

starts = st.lists(st.integers(min_value=0, max_value=300), min_size=2, max_size=5)
seeds = st.integers(min_value=0, max_value=2**32)


class Simulated:
    """One worker: its connections, the oldest first, by how often each has moved."""

    def __init__(self, name: str, connections: int) -> None:
        self.name = name
        self.balance = Balance(name, RULES)
        self.moves = deque([0] * connections)
        self.cpu = 0.1
        self.state = STEADY
        self.offset = 0
        self.closed: list[tuple[int, int, int]] = []


class Simulation:
    """Workers over time; `choose` is where a client connects."""

    def __init__(self, starts: list[int], seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.workers: list[Simulated] = []
        self.now = 0
        self.away: list[tuple[int, int, Simulated]] = []
        self.choose: Callable[[Simulated], Simulated] = self.least
        for connections in starts:
            self.add(connections)

    def add(self, connections: int = 0) -> Simulated:
        worker = Simulated(f"w{self.random.random()}", connections)
        worker.offset = self.random.randrange(INTERVAL)
        self.workers.append(worker)
        return worker

    def least(self, before: Simulated) -> Simulated:
        return min(self.workers, key=lambda one: len(one.moves))

    def anywhere(self, before: Simulated) -> Simulated:
        return self.random.choice(self.workers)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self._turn()

    def _turn(self) -> None:
        self.now += 1
        back = [one for one in self.away if one[0] <= self.now]
        self.away = [one for one in self.away if one[0] > self.now]
        for _, moves, before in back:
            self.choose(before).moves.append(moves)
        for worker in self.random.sample(self.workers, len(self.workers)):
            load = worker.balance.own_load(len(worker.moves), worker.cpu, worker.state, self.now)
            if self.now % INTERVAL == worker.offset:
                for other in self.workers:
                    other.balance.heard(worker.name, load, self.now)
            had = len(worker.moves)
            count = worker.balance.to_close(load, self.now)
            if count:
                worker.closed.append((self.now, count, had))
            for _ in range(count):
                due = self.now + self.random.randint(1, 2)
                self.away.append((due, worker.moves.popleft() + 1, worker))

    @property
    def mean(self) -> float:
        return (sum(self.loads) + len(self.away)) / len(self.workers)

    @property
    def loads(self) -> list[int]:
        return [len(worker.moves) for worker in self.workers]

    @property
    def closed(self) -> int:
        return sum(count for worker in self.workers for _, count, _ in worker.closed)

    @property
    def furthest(self) -> float:
        return max(abs(load - self.mean) for load in self.loads)

    @property
    def band(self) -> float:
        """How far from the mean is still even: the threshold, or three standard deviations of chance."""
        return max(1.0, RULES.threshold * self.mean, 3 * self.mean**0.5)


@settings(max_examples=15, deadline=None)
@given(starts, seeds)
def test_from_any_start_the_workers_become_even_and_stay_so(starts: list[int], seed: int):
    simulation = Simulation(starts, seed)
    surplus = sum(max(0.0, load - simulation.mean) for load in starts)
    simulation.run(8 * 60)
    assert simulation.furthest <= simulation.band
    closed = simulation.closed
    # No more than the surplus has moved, and nothing does any more.
    assert closed <= surplus
    simulation.run(8 * 60)
    assert simulation.closed == closed


@settings(max_examples=15, deadline=None)
@given(starts, seeds)
def test_no_worker_closes_a_connection_below_the_mean_and_none_moves_twice(
    starts: list[int], seed: int
):
    simulation = Simulation(starts, seed)
    mean = simulation.mean
    simulation.run(8 * 60)
    for worker in simulation.workers:
        for _, count, had in worker.closed:
            assert had - count >= mean
        assert all(moves <= 1 for moves in worker.moves)


@settings(max_examples=15, deadline=None)
@given(starts, seeds)
def test_in_no_minute_a_worker_closes_more_than_its_share(starts: list[int], seed: int):
    simulation = Simulation(starts, seed)
    simulation.run(8 * 60)
    for worker in simulation.workers:
        for began, _, had in worker.closed:
            minute = [count for at, count, _ in worker.closed if began <= at < began + 60]
            assert sum(minute) <= max(1, RULES.share_per_minute * had)
            # Evenly: not all of it at once.
            assert minute[0] <= 1 + 3 * RULES.share_per_minute * had / 60


def test_twice_as_many_workers_have_about_as_many_connections_after_three_minutes():
    simulation = Simulation([1000, 1000])
    simulation.run(60)
    for _ in range(2):
        simulation.add()
    simulation.run(180)
    assert all(abs(load - simulation.mean) <= 0.15 * simulation.mean for load in simulation.loads)


def test_one_more_worker_gets_its_part_of_many():
    simulation = Simulation([1100] * 10)
    simulation.add()
    simulation.run(240)
    assert min(simulation.loads) >= 900
    assert all(moves <= 1 for worker in simulation.workers for moves in worker.moves)


@settings(max_examples=10, deadline=None)
@given(starts, seeds)
def test_clients_that_return_to_any_worker_do_not_move_for_ever(starts: list[int], seed: int):
    simulation = Simulation(starts, seed)
    simulation.choose = simulation.anywhere
    surplus = sum(max(0.0, load - simulation.mean) for load in starts)
    simulation.run(20 * 60)
    closed = simulation.closed
    # Of what is closed, about half comes to a worker that has fewer.
    assert closed <= 4 * surplus + 100
    assert simulation.furthest <= 2 * simulation.band
    simulation.run(8 * 60)
    assert simulation.closed - closed <= simulation.band * len(starts)


def test_clients_that_cannot_go_elsewhere_are_closed_more_and_more_rarely():
    simulation = Simulation([200, 0])
    simulation.choose = lambda before: before
    hours = []
    for _ in range(4):
        before = simulation.closed
        simulation.run(3600)
        hours.append(simulation.closed - before)
    assert simulation.workers[0].balance.attempts_in_vain > 3
    assert hours[0] <= 1000
    assert hours[-1] <= 100


@pytest.mark.parametrize("state", [s for s in ReportedState if s is not STEADY])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nothing_moves_while_a_worker_drains_starts_or_recovers(state: ReportedState, place: int):
    simulation = Simulation([300, 300, 0])
    simulation.workers[place].state = state
    simulation.run(600)
    assert simulation.closed == 0
    simulation.workers[place].state = STEADY
    simulation.run(600)
    assert simulation.closed > 150


def test_a_worker_that_comes_and_goes_starts_the_wait_again():
    simulation = Simulation([300, 300])
    for _ in range(20):
        worker = simulation.add()
        simulation.run(10)
        simulation.workers.remove(worker)
        # Until its lease ends, it seems to be there.
        simulation.run(20)
    assert simulation.closed == 0


def test_a_worker_that_comes_and_goes_slowly_moves_no_more_than_the_share():
    simulation = Simulation([300, 300])
    for minutes in range(2, 12, 2):
        worker = simulation.add()
        simulation.run(60)
        simulation.workers.remove(worker)
        # Its clients come back to the others.
        for moves in worker.moves:
            simulation.least(worker).moves.append(moves)
        simulation.run(60)
        assert simulation.closed <= minutes * 2 * RULES.share_per_minute * 300


def test_a_worker_that_was_killed_counts_until_its_lease_ends():
    simulation = Simulation([200, 200, 200, 200])
    simulation.run(60)
    for worker in simulation.workers[2:]:
        simulation.workers.remove(worker)
        for moves in worker.moves:
            simulation.least(worker).moves.append(moves)
    simulation.run(300)
    # Half of the workers have all connections evenly: nothing has to move.
    assert (simulation.closed, simulation.loads) == (0, [400, 400])
    for _ in range(2):
        simulation.add()
    simulation.run(240)
    assert all(abs(load - simulation.mean) <= 0.15 * simulation.mean for load in simulation.loads)


def test_a_worker_with_most_of_the_cpu_gives_up_what_is_a_little_above_the_mean():
    simulation = Simulation([1060, 970, 970])
    simulation.workers[0].cpu = 0.8
    simulation.run(120)
    assert 40 <= simulation.closed <= 60
    assert simulation.loads[0] >= simulation.mean


def test_cpu_alone_moves_nothing():
    simulation = Simulation([1000, 1000, 1000])
    simulation.workers[0].cpu = 0.9
    simulation.run(600)
    assert simulation.closed == 0


def test_nothing_moves_to_workers_without_cpu():
    simulation = Simulation([1000, 0])
    simulation.workers[1].cpu = 0.95
    simulation.run(300)
    assert simulation.closed == 0
    simulation.workers[1].cpu = 0.5
    simulation.run(60)
    assert simulation.closed > 0


def test_a_worker_alone_closes_nothing():
    simulation = Simulation([1000])
    simulation.run(300)
    assert simulation.closed == 0


def test_a_late_turn_is_not_made_up_for():
    balance, other = Balance("a", RULES), WorkerLoad(0)
    closed = 0
    for now in range(40):
        balance.heard("b", other, now)
        closed += balance.to_close(balance.own_load(6000 - closed, 0.1, STEADY, now), now)
    assert closed > 0
    balance.heard("b", other, 49)
    late = balance.to_close(balance.own_load(6000 - closed, 0.1, STEADY, 49), 49)
    assert late <= 2 * 30 + 32


def test_the_table_of_workers_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(balance_module, "MOST_WORKERS", 2)
    balance = Balance("a", RULES)
    assert [balance.heard(uid, WorkerLoad(1), 0) for uid in "abcd"] == [True, True, True, False]
    # One that is in it already is heard.
    assert balance.heard("b", WorkerLoad(1), 0)
    # Those that are gone make room.
    balance.to_close(balance.own_load(1, 0, STEADY, 20), 20)
    assert balance.heard("d", WorkerLoad(1), 20)


def test_a_worker_that_hears_itself_is_alone():
    """Its own reports come back to it, and would count its connections twice."""
    balance = Balance("a", RULES)
    for now in range(200):
        balance.heard("a", WorkerLoad(0), now)
        assert balance.to_close(WorkerLoad(1000), now) == 0


def first_close(balance: Balance, own: int, other: int) -> tuple[int, int]:
    """When the worker closes connections for the first time, and how many."""
    for now in range(200):
        balance.heard("b", WorkerLoad(other), now)
        if count := balance.to_close(WorkerLoad(own), now):
            return now, count
    raise AssertionError("it closes none")


def test_what_was_closed_is_reported_as_moving_for_a_lease():
    balance = Balance("a", RULES)
    now, count = first_close(balance, 1000, 0)
    for later, moving in ((0, count), (15, count), (16, 0)):
        assert balance.own_load(900, 0.5, STEADY, now + later).moving == moving


def test_connections_that_have_not_come_back_yet_count_where_they_were():
    """Else each worker above the mean would see the mean sink, and go below what it will be."""
    balance = Balance("a", RULES)
    for now in range(100):
        balance.heard("b", WorkerLoad(100, moving=400), now)
        balance.heard("c", WorkerLoad(100), now)
        # With the 400 the mean is 300, without them it is 167.
        assert balance.to_close(WorkerLoad(300), now) == 0


@pytest.mark.parametrize(("silent", "is_there"), [(15, True), (16, False)])
def test_a_worker_is_there_until_its_lease_has_passed(silent: int, is_there: bool):
    balance = Balance("a", RULES)
    now, _ = first_close(balance, 1000, 0)
    for later in range(1, silent):
        assert balance.to_close(WorkerLoad(1000), now + later) > 0
    assert (balance.to_close(WorkerLoad(1000), now + silent) > 0) is is_there


def test_waiting_for_a_worker_with_cpu_saves_nothing_up():
    balance = Balance("a", RULES)
    for now in range(300):
        balance.heard("b", WorkerLoad(0, cpu=0.95), now)
        assert balance.to_close(WorkerLoad(6000), now) == 0
    balance.heard("b", WorkerLoad(0, cpu=0.1), 300)
    # 30 % in a minute are 30 in a second.
    assert balance.to_close(WorkerLoad(6000), 300) <= 31


def test_a_worker_without_cpu_that_is_not_below_the_mean_is_no_reason_to_wait():
    balance = Balance("a", RULES)
    closed = 0
    for now in range(60):
        balance.heard("b", WorkerLoad(1000, cpu=0.95), now)
        balance.heard("c", WorkerLoad(0, cpu=0.1), now)
        closed += balance.to_close(WorkerLoad(1000 - closed), now)
    assert closed > 0


def test_one_connection_of_few_may_be_closed_in_a_minute():
    """The share of a small worker is less than one connection."""
    balance = Balance("a", RULES._replace(share_per_minute=0.01))
    closed = 0
    for now in range(700):
        balance.heard("b", WorkerLoad(0), now)
        closed += balance.to_close(WorkerLoad(20 - closed), now)
    assert 1 <= closed <= 4


def test_another_worker_ends_the_long_waits_after_attempts_in_vain():
    """Where all came back, connections may now go to the new one."""
    simulation = Simulation([200, 0])
    simulation.choose = lambda before: before
    simulation.run(3600)
    balance = simulation.workers[0].balance
    assert balance.attempts_in_vain > 1
    simulation.add()
    simulation.run(10)
    assert balance.attempts_in_vain == 0


def test_a_worker_does_not_go_below_a_mean_that_is_no_whole_number():
    balance = Balance("a", RULES)
    for now in range(300):
        own, others = (20, (0, 0)) if now < 60 else (7, (5, 7))
        for uid, other in zip("bc", others, strict=True):
            balance.heard(uid, WorkerLoad(other), now)
        count = balance.to_close(WorkerLoad(own), now)
        # The mean is 6.3, and one worker is still further from it than 1.
        assert now < 60 or count == 0


def test_an_attempt_closes_twice_the_surplus_and_then_waits():
    balance = Balance("a", RULES)
    now, closed = first_close(balance, 1000, 0)
    quiet = 0
    while quiet < RULES.after_seconds:
        now += 1
        balance.heard("b", WorkerLoad(0), now)
        count = balance.to_close(WorkerLoad(1000), now)
        closed += count
        quiet = 0 if count else quiet + 1
    assert closed == 2 * 500


def test_much_cpu_moves_nothing_from_a_worker_that_is_hardly_above_the_mean():
    simulation = Simulation([1030, 985, 985])
    simulation.workers[0].cpu = 0.9
    simulation.run(300)
    assert simulation.closed == 0


def test_what_chance_does_to_small_numbers_moves_nothing():
    """20 of 100 are more than the threshold, and no more than a random choice makes."""
    simulation = Simulation([120, 100, 80])
    simulation.run(300)
    assert simulation.closed == 0
