"""Cyclic garbage is collected in parts that are short."""

import subprocess
import sys

_SCRIPT = """
import gc

from cluster.worker import garbage

found = []
gc.callbacks.append(lambda phase, about: phase == "stop" and found.append(about["collected"]))
garbage.collect_in_small_parts()
found.clear()
for _ in range(100_000):
    cycle = []
    cycle.append(cycle)
print(max(found), sum(found))
"""


def test_garbage_is_collected_in_parts_of_five_thousand_objects_and_nearly_all_of_it_soon() -> None:
    # In a process of its own: what is frozen is so for good.
    said = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )
    most, collected = map(int, said.stdout.split())

    assert most <= 5_100
    assert collected >= 94_000
