"""`python -m loadtest drill|soak|capacity …`: started by `ws-cluster` for these commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence


def main(words: Sequence[str]) -> int:
    """Run one of the commands; returns its exit code."""
    name, *rest = words or ("",)
    command = _command(name)
    if command is None:
        sys.stderr.write("loadtest: give drill, soak or capacity\n")
        return 78
    return command(rest)


def _command(name: str) -> Callable[[Sequence[str]], int] | None:
    if name == "drill":
        return _drill
    if name == "soak":
        from loadtest.drilling.soak import main as soak

        return soak
    if name == "capacity":
        from loadtest.capacity import main as capacity

        return capacity
    return None


def _drill(words: Sequence[str]) -> int:
    from loadtest.drilling.drill_cli import drill
    from loadtest.drills import registered

    return drill(words, registered())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
