"""Faults in the containers of docker/compose.yml: `python -m loadtest.drilling.faults.containers ACTION …`.

The commands of docker/drill.toml, which run in the service `drill` beside the others. They ask the engine
over its socket, for containers of the same project only.

Rules
- `pause`, `kill` and `signal` are undone by `unpause` and `start`, `start-hog` by `end-hog`, `use-cpu` by `free-cpu`,
  `fill-disk` by `free-disk`. What undoes may be repeated.
- The disk is filled in the metrics only: a file of node_exporter's textfile collector says so.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from loadtest.drilling import undo

_SOCKET: Final = "/var/run/docker.sock"
_SECONDS: Final = 30.0
_BAD_STATUS: Final = 400
_LABEL: Final = "com.docker.compose."
_MEMORY_SHARE: Final = 0.92
_TEXTFILE: Final = Path("/var/lib/node-exporter/drill.prom")
_PIDS: Final = Path(tempfile.gettempdir()) / "drill-cpu.json"
_FULL_DISK: Final = """\
# HELP node_filesystem_{what}_bytes {help}
# TYPE node_filesystem_{what}_bytes gauge
node_filesystem_{what}_bytes{{device="drill",device_error="",fstype="drill",mountpoint="/"}} {value}
"""
_DISK: Final = (
    ("avail", "Filesystem space available to non-root users in bytes.", 6),
    ("size", "Filesystem size in bytes.", 100),
)
_END_HOG: Final = """\
for folder in /proc/[0-9]*; do
    if tr '\\0' ' ' <"$folder/cmdline" 2>/dev/null | grep -q '[m]emory_hog'; then kill "${folder#/proc/}"; fi
done
true"""
# A worker that hardly runs while it drains. It may not stand still for five seconds: the supervisor would end it.
_SLOW_ROLL: Final = """\
for folder in /proc/[0-9]*; do
    if tr '\\0' ' ' <"$folder/cmdline" 2>/dev/null | grep -q '[w]orker --slot 0'; then worker=${folder#/proc/}; fi
done
kill -HUP 1
for round in 1 2 3 4 5; do
    kill -STOP "$worker" 2>/dev/null || exit 0
    sleep 3.5
    kill -CONT "$worker" 2>/dev/null || exit 0
    sleep 0.3
done"""
_SLOW_ROLL_SECONDS: Final = 20


class EngineRefused(Exception):
    """The engine does not answer, or does not do it; the text says why."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


class ContainerEngine:
    """A Docker engine.

    Args:
        path: of its socket.
    """

    def __init__(self, path: str = _SOCKET) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send one request; returns the JSON of the answer, None if there is none.

        Raises:
            EngineRefused: if it cannot be reached, or answers with an error.
        """
        connection = _Connection(self._path)
        text = json.dumps(body) if body is not None else None
        try:
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineRefused(f"the engine does not answer at {self._path}: {error}") from None
        finally:
            connection.close()
        if answer.status >= _BAD_STATUS:
            said = content.decode(errors="replace").strip()
            raise EngineRefused(f"{method} {path}: {answer.status} {said}")
        return json.loads(content) if content.startswith((b"{", b"[")) else None

    def of_service(self, service: str, project: str) -> list[str]:
        """The ids of a service's containers, running or not.

        Raises:
            EngineRefused: if there is none.
        """
        labels = [
            f"{_LABEL}project={project}",
            f"{_LABEL}service={service}",
            f"{_LABEL}oneoff=False",
        ]
        filters = urllib.parse.quote(json.dumps({"label": labels}))
        found = [
            one["Id"] for one in self.ask("GET", f"/containers/json?all=true&filters={filters}")
        ]
        if not found:
            raise EngineRefused(f"the project {project} has no container of {service}")
        return sorted(found)

    def project(self) -> str:
        """The project of the container that this runs in."""
        label = self.ask("GET", f"/containers/{socket.gethostname()}/json")["Config"]["Labels"]
        return str(label[f"{_LABEL}project"])

    def address(self, container: str) -> str:
        """An address of a container that this one reaches."""
        networks = self.ask("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]
        for name, network in networks.items():
            if name.endswith("_monitoring"):
                return str(network["IPAddress"])
        raise EngineRefused(f"the container {container[:12]} is not on the network monitoring")

    def run(self, container: str, *command: str) -> None:
        """Start a program in a container, and do not wait for it."""
        exec_id = self.ask("POST", f"/containers/{container}/exec", {"Cmd": list(command)})["Id"]
        self.ask("POST", f"/exec/{exec_id}/start", {"Detach": True})


# --- the actions ---------------------------------------------------------------------------


def _each(verb: str, state: str) -> Callable[[ContainerEngine, list[str], str], None]:
    """Do something to all containers of a service that are in another state."""

    def act(engine: ContainerEngine, containers: list[str], _: str) -> None:
        for container in containers:
            now = engine.ask("GET", f"/containers/{container}/json")["State"]["Status"]
            if now != state:
                engine.ask("POST", f"/containers/{container}/{verb}")

    return act


def _unpause(engine: ContainerEngine, containers: list[str], _: str) -> None:
    for container in containers:
        if engine.ask("GET", f"/containers/{container}/json")["State"]["Paused"]:
            engine.ask("POST", f"/containers/{container}/unpause")


def _signal(engine: ContainerEngine, containers: list[str], name: str) -> None:
    for container in containers:
        engine.ask("POST", f"/containers/{container}/kill?signal={urllib.parse.quote(name)}")


def _start_hog(engine: ContainerEngine, containers: list[str], _: str) -> None:
    """Hold memory in the first replica, up to a share of its limit."""
    connection = http.client.HTTPConnection(engine.address(containers[0]), 8001, timeout=_SECONDS)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    finally:
        connection.close()
    used, limit = (_value(page, name) for name in ("working_set", "limit"))
    held = f"{max(0.0, _MEMORY_SHARE * limit - used):.0f}"
    words = ("python", "-m", "loadtest.drilling.faults.memory_hog", held, "0", held)
    engine.run(containers[0], *words)


def _value(page: str, name: str) -> float:
    found = re.search(rf"^app_memory_{name}_bytes (\S+)$", page, re.MULTILINE)
    if found is None:
        raise EngineRefused(f"the replica exports no memory {name}: does it have a limit?")
    return float(found[1])


def _end_hog(engine: ContainerEngine, containers: list[str], _: str) -> None:
    for container in containers:
        engine.run(container, "sh", "-c", _END_HOG)


def _slow_roll(engine: ContainerEngine, containers: list[str], _: str) -> None:
    for container in containers:
        engine.run(container, "sh", "-c", _SLOW_ROLL)
    time.sleep(_SLOW_ROLL_SECONDS)


_ACTIONS: Final[Mapping[str, Callable[[ContainerEngine, list[str], str], None]]] = {
    "pause": _each("pause", "paused"),
    "unpause": _unpause,
    "kill": _each("kill", "exited"),
    "start": _each("start", "running"),
    "signal": _signal,
    "start-hog": _start_hog,
    "end-hog": _end_hog,
    "slow-roll": _slow_roll,
}


def _use_cpu() -> None:
    """Start a busy loop on each core, at the lowest priority."""
    loops = [
        subprocess.Popen(
            ["nice", "-n", "19", "sh", "-c", "while :; do :; done"],
            # Whoever reads the output of this program waits until nobody can write to it.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(os.cpu_count() or 1)
    ]
    _PIDS.write_text(json.dumps([[one.pid, undo.started(one.pid)] for one in loops]))


def _free_cpu() -> None:
    with suppress(OSError, ValueError):
        for pid, since in json.loads(_PIDS.read_text()):
            if undo.is_same(pid, since):
                os.kill(pid, signal.SIGKILL)
        _PIDS.unlink()


def _fill_disk() -> None:
    pieces = [_FULL_DISK.format(what=what, help=text, value=value) for what, text, value in _DISK]
    new = _TEXTFILE.with_suffix(".new")
    new.write_text("".join(pieces))
    new.replace(_TEXTFILE)


def _free_disk() -> None:
    _TEXTFILE.unlink(missing_ok=True)


_LOCAL_ACTIONS: Final[Mapping[str, Callable[[], None]]] = {
    "use-cpu": _use_cpu,
    "free-cpu": _free_cpu,
    "fill-disk": _fill_disk,
    "free-disk": _free_disk,
}


ACTIONS: Final = (*_ACTIONS, *_LOCAL_ACTIONS)


def main(words: Sequence[str]) -> int:
    """Do one action; returns the exit code."""
    parser = argparse.ArgumentParser(prog="containers", description="Inject or undo a fault.")
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("service", nargs="?", default="", help="service of the project")
    parser.add_argument("argument", nargs="?", default="", help="the signal")
    arguments = parser.parse_args(words)
    try:
        if arguments.action in _LOCAL_ACTIONS:
            _LOCAL_ACTIONS[arguments.action]()
            return 0
        engine = ContainerEngine()
        containers = engine.of_service(arguments.service, engine.project())
        _ACTIONS[arguments.action](engine, containers, arguments.argument)
    except (EngineRefused, OSError) as error:
        sys.stderr.write(f"containers: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
