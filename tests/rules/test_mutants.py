"""A rule with a mistake in it is noticed by the cases."""

from __future__ import annotations

import random

import pytest

from tests.rules.cases import CASES
from tests.rules.mutants import attempt, mutants
from tests.rules.survivors import SURVIVORS

SAMPLE = 60


def test_a_sample_of_mistakes_is_noticed():
    every = [m for alert in CASES if alert != "ErrorBudgetFastBurn" for m in mutants(alert)]
    result = attempt(random.Random(SAMPLE).sample(every, SAMPLE))
    assert result.unexplained == []


def test_every_explained_survivor_is_a_mutant():
    assert set(SURVIVORS) <= {(m.alert, m.change) for alert in CASES for m in mutants(alert)}
    assert all(SURVIVORS.values())


@pytest.mark.full
@pytest.mark.timeout(900)
def test_every_mistake_is_noticed_or_explained():
    result = attempt([m for alert in CASES for m in mutants(alert)])
    print(result)
    assert result.unexplained == []
    assert set(SURVIVORS) == set(result.survived), "an explained survivor is noticed by now"
