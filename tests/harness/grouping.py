"""Which tests run in one process, one after the other, when several processes run tests."""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

#: Folders whose tests all run in one process: drills change things of the whole machine.
TOGETHER: Final = ("drilling",)


def group_of(nodeid: str) -> str:
    """The group of a test: its folder if that is in `TOGETHER`, else its file."""
    path = nodeid.partition("::")[0]
    folder = path.removeprefix("tests/").partition("/")[0]
    return folder if folder in TOGETHER else path


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each group to one process.

    `--dist loadgroup` writes the group into the name of the test, which pytest 9.2 no longer lets it
    (pytest-xdist#1386): the tests are then spread one by one, without a word.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
