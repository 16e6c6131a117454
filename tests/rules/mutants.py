"""Wrong versions of each rule, one small mistake each, that the cases must notice.

`python -m tests.rules.mutants` tries all and prints how many are noticed; names of alerts restrict it.

Rules
- A mutant changes one of: a number (± 10 %; whole numbers up to 10 by one), a comparison, a window
  (half and double), `for` (one step less, one more), an aggregation or a set operator; or it removes
  `or vector(0)` or a label matcher.
- A mutant that no case can notice is listed in survivors.py with its reason; a listed mutant that is
  noticed is reported too.
"""

from __future__ import annotations

import copy
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cluster.monitor.stack.render import duration_text, seconds
from tests.rules import promtool
from tests.rules.cases import CASES
from tests.rules.promtool import Rule, step_of
from tests.rules.survivors import SURVIVORS

_STRING = r'"[^"]*"'
_SKIPPED = rf"{_STRING}|#[^\n]*|[a-zA-Z_:][\w:]*"
_NUMBER = re.compile(rf"{_SKIPPED}|\[[^\]]*\]|(?P<hit>\b\d+(?:\.\d+)?\b)")
_COMPARISON = re.compile(rf"{_STRING}|\{{[^}}]*\}}|(?P<hit>==|!=|>=|<=|>|<)")
_WINDOW = re.compile(r"\[(?P<hit>\w+)(?=[\]:])")
_WORD = re.compile(
    rf"{_STRING}|#[^\n]*|(?P<hit>\b(?:sum|max|min|avg|and|or|unless|max_over_time)\b)"
)
_VECTOR = re.compile(r"(?P<hit> or vector\(0\))")
_MATCHER = re.compile(r"(?P<hit>(?:,(?!job)|(?<=\{)(?!job))\w+=~?\"[^\"]*\")")

_OTHER_COMPARISONS = {
    ">": (">=", "<", "=="), "<": ("<=", ">", "=="), "==": ("!=", ">"),
}  # fmt: skip
_OTHER_WORDS = {
    "sum": ("max", "min"), "max": ("min", "sum"), "min": ("max",), "avg": ("max", "min"),
    "and": ("or", "unless"), "or": ("and",), "unless": ("and",),
    "max_over_time": ("min_over_time",),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One rule of an alert, changed.

    Attributes:
        change: what was changed, in words; unique within the alert.
        rules: the alert's rule and the recording rules it reads.
    """

    alert: str
    change: str
    rules: list[Rule]


def _other_numbers(text: str) -> Iterator[str]:
    value = float(text)
    if value == int(value) and value <= 10:
        yield from (str(int(value) + 1), str(int(value) - 1))
    else:
        yield from (f"{value * 1.1:.6g}", f"{value * 0.9:.6g}")


def _others(kind: str, hit: str) -> Iterator[str]:
    if kind == "number":
        yield from _other_numbers(hit)
    elif kind == "comparison":
        yield from _OTHER_COMPARISONS[hit]
    elif kind == "window":
        yield from (duration_text(seconds(hit) * 2), duration_text(seconds(hit) / 2))
    elif kind == "word":
        yield from _OTHER_WORDS[hit]
    else:
        yield ""


_KINDS = {
    "number": _NUMBER,
    "comparison": _COMPARISON,
    "window": _WINDOW,
    "word": _WORD,
    "or vector(0)": _VECTOR,
    "matcher": _MATCHER,
}


def _changed_expressions(expression: str) -> Iterator[tuple[str, str]]:
    for kind, pattern in _KINDS.items():
        hits = [found for found in pattern.finditer(expression) if found["hit"]]
        for number, found in enumerate(hits, 1):
            begin, end = found.span("hit")
            for other in _others(kind, found["hit"]):
                what = f"{kind} {number}: {found['hit'].strip()} -> {other or 'nothing'}"
                yield what, expression[:begin] + other + expression[end:]


def _changed_waits(rule: Rule, step: int) -> Iterator[tuple[str, str]]:
    wait = seconds(str(rule.get("for", "0s")))
    for other in (wait + step, wait - step):
        if other >= 0:
            yield f"for: {rule.get('for', 'none')} -> {duration_text(other)}", duration_text(other)


def mutants(alert: str) -> Iterator[Mutant]:
    """Every mutant of an alert, those of the recording rules it reads included."""
    rules = promtool.part(alert)
    for index, rule in enumerate(rules):
        place = f"{rule['record']}: " if "record" in rule else ""
        for what, expression in _changed_expressions(rule["expr"]):
            changed = copy.deepcopy(rules)
            changed[index]["expr"] = expression
            yield Mutant(alert, place + what, changed)
    for what, wait in _changed_waits(rules[-1], step_of(alert)):
        changed = copy.deepcopy(rules)
        changed[-1]["for"] = wait
        yield Mutant(alert, what, changed)


def is_noticed(mutant: Mutant) -> bool:
    """Whether a case fails under the mutant, or promtool refuses it."""
    rule = mutant.rules[-1]
    with tempfile.TemporaryDirectory() as folder:
        tests = [promtool.as_test(case, rule) for case in CASES[mutant.alert]]
        return promtool.run(promtool.write(Path(folder), mutant.rules, tests)).returncode != 0


@dataclass(frozen=True)
class MutationResult:
    killed: int
    survived: tuple[tuple[str, str], ...]

    @property
    def unexplained(self) -> list[tuple[str, str]]:
        return [one for one in self.survived if one not in SURVIVORS]

    def __str__(self) -> str:
        total = self.killed + len(self.survived)
        return (
            f"{self.killed} of {total} mutants noticed ({100 * self.killed / total:.1f} %),"
            f" {len(self.survived) - len(self.unexplained)} others explained,"
            f" {len(self.unexplained)} not"
        )


def attempt(tried: Sequence[Mutant], *, side_by_side: int = 2) -> MutationResult:
    """Try mutants, several promtool processes at a time."""
    with ThreadPoolExecutor(side_by_side) as pool:
        noticed = list(pool.map(is_noticed, tried))
    survived = tuple(
        (mutant.alert, mutant.change)
        for mutant, dead in zip(tried, noticed, strict=True)
        if not dead
    )
    return MutationResult(sum(noticed), survived)


def main(names: Sequence[str]) -> int:
    result = attempt([mutant for name in names or CASES for mutant in mutants(name)])
    for alert, change in result.survived:
        print(f"survived: {alert}: {change}: {SURVIVORS.get((alert, change), 'UNEXPLAINED')}")
    print(result)
    return 1 if result.unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
