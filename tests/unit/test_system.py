"""Memory with cgroup v1, cgroup v2 and without a cgroup; resource usage of a process."""

from __future__ import annotations

import os

import pytest

from cluster.metrics import system

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n"
NO_LIMIT_V1 = "9223372036854771712\n"


@pytest.fixture
def kernel(tmp_path):
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    root.mkdir()

    def write(cgroup: str, files: dict[str, str]) -> system.MemoryUsage:
        (proc / "self/cgroup").write_text(cgroup)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return system.memory(root, proc)

    return write


def test_v2_does_not_count_reclaimable_cache(kernel):
    files = {
        "app/memory.current": "5000\n",
        "app/memory.max": "10000\n",
        "app/memory.stat": "anon 1\ninactive_file 1500\n",
    }
    assert kernel("0::/app\n", files) == system.MemoryUsage(3500, 10000)


def test_v2_in_a_container_reads_the_root_of_the_mount(kernel):
    files = {"memory.current": "5000", "memory.max": "10000", "memory.stat": ""}
    assert kernel("0::/../host/path\n", files) == system.MemoryUsage(5000, 10000)


def test_v2_without_a_limit_is_limited_by_the_machine(kernel):
    files = {"memory.current": "5000", "memory.max": "max\n", "memory.stat": ""}
    assert kernel("0::/\n", files) == system.MemoryUsage(5000, 1000 * 1024)


def test_v1_does_not_count_reclaimable_cache(kernel):
    files = {
        "memory/a/memory.usage_in_bytes": "5000",
        "memory/a/memory.limit_in_bytes": "9000",
        "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 1000\n",
    }
    assert kernel("4:memory:/a\n0::/\n", files) == system.MemoryUsage(4000, 9000)


def test_v1_without_a_limit_in_a_container_is_limited_by_the_machine(kernel):
    files = {
        "memory/memory.usage_in_bytes": "5000",
        "memory/memory.limit_in_bytes": NO_LIMIT_V1,
        "memory/memory.stat": "total_inactive_file 1000",
    }
    assert kernel("4:memory:/docker/xyz\n", files) == system.MemoryUsage(4000, 1000 * 1024)


def test_without_a_cgroup_the_machine_s_memory_is_used(kernel):
    assert kernel("", {}) == system.MemoryUsage(600 * 1024, 1000 * 1024)


def test_a_process_that_has_ended_has_no_usage():
    own = system.process(os.getpid())
    assert own is not None
    assert own.resident_bytes > 1 << 20
    assert own.open_fds >= 3
    assert own.cpu_seconds > 0
    assert system.process(2**22 + 1) is None
