"""When a worker's cyclic garbage is collected: often and little at a time."""

from __future__ import annotations

import gc
from typing import Final

#: Most new objects that are looked through at once, while no connection is served. aiohttp leaves garbage with
#: every request: by `gc.callbacks`, under the attack "requests without waiting for answers", a collection of
#: 20,000 took 4 to 6 ms, one of 5,000 at most 0.8. With 2,000, what a crowd of publishers had under way was
#: looked through again and again, for 1.4 % of the CPU.
YOUNG_OBJECTS: Final = 5_000

# After `gc.freeze()` almost nothing that lives is looked through in vain by rare collections of the old.
_OLDER_GENERATIONS: Final = (40, 500)


def collect_in_small_parts() -> None:
    """Let what this process holds now stay for good, and collect what comes from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *_OLDER_GENERATIONS)
