"""The limit of open files: as high as this process may have it."""

from __future__ import annotations

import resource

import pytest

from cluster.supervisor import limits


class Kernel:
    """The limits of a process, and the highest hard limit that it may set."""

    RLIMIT_NOFILE = resource.RLIMIT_NOFILE
    RLIM_INFINITY = resource.RLIM_INFINITY

    def __init__(self, soft: int, hard: int, highest: int) -> None:
        self.now = (soft, hard)
        self.highest = highest

    def getrlimit(self, _kind: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, _kind: int, wanted: tuple[int, int]) -> None:
        if wanted[1] > max(self.now[1], self.highest):
            raise ValueError("not allowed to raise maximum limit")
        self.now = wanted


@pytest.mark.parametrize(
    ("soft", "hard", "highest", "then"),
    [
        pytest.param(1024, 20_000, 0, (20_000, 20_000), id="without the capability"),
        pytest.param(1024, 20_000, 2**20, (262_144, 262_144), id="with the capability"),
        pytest.param(1024, 20_000, 100_000, (20_000, 20_000), id="above what the kernel allows"),
        pytest.param(1024, 2**20, 2**20, (2**20, 2**20), id="high already"),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, highest: int, then: tuple[int, int]
) -> None:
    kernel = Kernel(soft, hard, highest)
    monkeypatch.setattr(limits, "resource", kernel)
    assert limits.raise_file_limit() == then[0]
    assert kernel.now == then
