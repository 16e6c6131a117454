"""A Docker engine in namespaces of its own, which ends with the program that started it.

Guarantees
- All its containers, mounts, bridges and firewall rules are in namespaces of its own: they end with
  its first process, whatever happens, and so does the engine if this program is killed.
- Without `has_way_out` nothing in it reaches another machine, and its ports are those of its own
  network: commands enter that with `entering`.
- What stays is the data root: images and volumes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.compose.stand_in.machine import Unavailable

_READY_WITHIN: Final = 60.0
_ENDS_WITHIN: Final = 60.0
_CONTROL_GROUP: Final = "/ws-cluster-stand-in"
_CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
#: Of its first bridge. No other network is in its namespace, so no address can be taken.
ADDRESS: Final = "172.29.0.1"
_OWN_NETWORK: Final = (
    f"--bip={ADDRESS}/24",
    "--default-address-pool=base=172.30.0.0/16,size=24",
)
#: A container with the network of this machine needs no bridge, and this machine's rules stay as they are.
_NO_NETWORK: Final = ("--bridge=none", "--iptables=false", "--ip-forward=false")


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that runs.

    Args:
        host: its address, as in DOCKER_HOST.
        pid: the process whose network is the engine's.
    """

    host: str
    pid: int

    @property
    def entering(self) -> list[str]:
        """What stands before a command that runs in the engine's network."""
        return ["nsenter", f"--target={self.pid}", "--net", "--"]


@contextmanager
def running(data_root: Path, *, has_way_out: bool) -> Iterator[Engine]:
    """An engine, until the end of the block.

    Args:
        data_root: folder of images and volumes; one engine at a time uses it.
        has_way_out: it has the network of this machine, for builds, and none of its own.

    Raises:
        Unavailable: it does not start, or another one uses the folder.
    """
    data_root.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A path of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="ws-engine-"))
    try:
        with _locked(data_root), (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                _command(data_root, folder, has_way_out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the tests, which still need the engine to clean up.
                start_new_session=True,
            )
            try:
                yield _ready(process, folder)
            finally:
                _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_control_groups()


@contextmanager
def _locked(data_root: Path) -> Iterator[None]:
    with (data_root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unavailable(f"another engine uses {data_root}: wait for its end") from None
        yield


def _command(data_root: Path, folder: Path, has_way_out: bool) -> list[str]:
    engine = [
        "dockerd",
        f"--host=unix://{folder}/docker.sock",
        f"--data-root={data_root}",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
        "--storage-driver=overlay2",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        f"--cgroup-parent={_CONTROL_GROUP}",
        *(_NO_NETWORK if has_way_out else _OWN_NETWORK),
    ]
    spaces = ["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    if not has_way_out:
        spaces.append("--net")
    loopback = ["sh", "-ec", 'ip link set lo up; exec "$@"', "sh"]
    return ["setpriv", "--pdeathsig=KILL", "unshare", *spaces, *loopback, *engine]


def _ready(process: subprocess.Popen[bytes], folder: Path) -> Engine:
    host = f"unix://{folder}/docker.sock"
    asking = ["docker", "--host", host, "info", "--format", "{{.ServerVersion}}"]
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        done = subprocess.run(asking, capture_output=True, check=False, timeout=30)
        if done.returncode == 0 and done.stdout.strip():
            return Engine(host, _first_process(process.pid))
        time.sleep(0.2)
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    raise Unavailable(f"the engine does not start: {lines[-1] if lines else 'it wrote nothing'}")


def _first_process(unshare: int) -> int:
    children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    return int(children[0])


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError, IndexError):
        # It stops its containers and writes what it holds.
        os.kill(_first_process(process.pid), signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_ENDS_WITHIN)
    # Its child, the first process of the namespace, has --kill-child.
    process.kill()
    process.wait()


def _remove_control_groups() -> None:
    """The kernel keeps empty groups; there is one tree for each controller, or one for all."""
    for top in (*_CONTROL_GROUPS.glob(f"*{_CONTROL_GROUP}"), _CONTROL_GROUPS / _CONTROL_GROUP[1:]):
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
