"""The limit of open files: as high as this process may have it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from cluster.supervisor import limits


class Kernel:
    """The limits of a process; fs.nr_open; and the highest hard limit that its capability lets it set."""

    RLIMIT_NOFILE = resource.RLIMIT_NOFILE
    RLIM_INFINITY = resource.RLIM_INFINITY

    def __init__(self, soft: int, hard: int, highest: int, nr_open: int) -> None:
        self.now = (soft, hard)
        self.highest = highest
        self.nr_open = nr_open

    def getrlimit(self, _kind: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, _kind: int, wanted: tuple[int, int]) -> None:
        if wanted[1] > min(max(self.now[1], self.highest), self.nr_open):
            raise ValueError("not allowed to raise maximum limit")
        self.now = wanted


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "sys/fs").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("soft", "hard", "highest", "nr_open", "then"),
    [
        pytest.param(1024, 20_000, 0, 2**20, (20_000, 20_000), id="without the capability"),
        pytest.param(1024, 20_000, 2**30, 2**20, (262_144, 262_144), id="with the capability"),
        pytest.param(1024, 20_000, 2**30, 100_000, (100_000, 100_000), id="as the kernel allows"),
        pytest.param(1024, 2**20, 2**30, 2**20, (2**20, 2**20), id="high already"),
        pytest.param(1024, 2**20, 0, 100_000, (100_000, 100_000), id="above the kernel's since"),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may(
    monkeypatch: pytest.MonkeyPatch,
    proc: Path,
    soft: int,
    hard: int,
    highest: int,
    nr_open: int,
    then: tuple[int, int],
) -> None:
    kernel = Kernel(soft, hard, highest, nr_open)
    (proc / "sys/fs/nr_open").write_text(f"{nr_open}\n")
    monkeypatch.setattr(limits, "resource", kernel)
    # Asking how far leaves everything as it is.
    assert limits.reachable_file_limit(proc) == then[0]
    assert kernel.now == (soft, hard)
    assert limits.raise_file_limit(proc) == then[0]
    assert kernel.now == then


def test_a_kernel_that_does_not_say_its_highest_limit_is_asked_for_enough(
    monkeypatch: pytest.MonkeyPatch, proc: Path
) -> None:
    kernel = Kernel(1024, 20_000, 2**30, 2**20)
    monkeypatch.setattr(limits, "resource", kernel)
    assert limits.raise_file_limit(proc) == 262_144
    endless = Kernel(1024, resource.RLIM_INFINITY, 2**30, 2**20)
    monkeypatch.setattr(limits, "resource", endless)
    assert limits.raise_file_limit(proc) == 2**20
