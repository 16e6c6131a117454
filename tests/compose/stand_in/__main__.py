"""Run a command, such as pytest, where `docker` reaches an engine that has the images of docker/compose.yml.

This is the user's own engine if one answers, has Compose, and has or can pull the images. Otherwise,
or with --always, an engine is started for the command, with images made of Debian's packages: see
engine.py and images.py. The exit code is the command's; 69 if there can be no engine.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.compose.stack import docker, missing
from tests.compose.stand_in import compose_plugin, engine, images, machine

_UNAVAILABLE: Final = 69
_CLEANS_UP_WITHIN: Final = 120.0
#: As in docker/compose.yml.
_OPEN_FILES: Final = 65536
_BUILT: Final = "the image of the cluster was built in {:.0f} s"


def main() -> int:
    arguments = _arguments()
    # So that the engine ends.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    reason = "an engine of its own is asked for" if arguments.always else _reason()
    try:
        if not reason:
            # What is tested is this checkout, not an image of another day.
            _say(_BUILT.format(images.build_application(dict(os.environ))))
            os.execvp(arguments.command[0], arguments.command)
        _say(f"{reason}; an engine with stand-in images is started")
        return _on_stand_ins(arguments.root, arguments.command)
    except machine.Unavailable as error:
        if arguments.if_permitted and isinstance(error, machine.NotPermitted):
            _say(f"SKIPPED, as there can be no engine here: {error}")
            return 0
        _say(f"there can be no engine here: {error}")
        return _UNAVAILABLE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.compose.stand_in", description=__doc__)
    parser.add_argument(
        "--always", action="store_true", help="even where the user's own engine answers"
    )
    parser.add_argument(
        "--if-permitted",
        action="store_true",
        help="end with 0 where this user or this kernel does not allow to start an engine",
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument(
        "--root",
        type=Path,
        default=cache / "ws-cluster-stand-in",
        help="folder of root file systems and images, two gigabytes (default %(default)s)",
    )
    parser.add_argument("command", nargs="+", help="the command and its arguments, after --")
    return parser.parse_args()


def _reason() -> str:
    """Why the user's own engine will not do; empty if it will."""
    if reason := missing():
        return f"no Docker engine with Compose answers ({reason})"
    for image in images.stand_ins().values():
        if docker("image", "inspect", "--format", "{{.Id}}", image, fails=True):
            continue
        try:
            pulled = docker("pull", "--quiet", image, within=300, fails=True)
        except subprocess.TimeoutExpired:
            pulled = ""
        if not pulled:
            return f"the Docker engine cannot pull {image}"
    return ""


def _on_stand_ins(root: Path, command: list[str]) -> int:
    machine.extend_path()
    machine.check_user()
    machine.install_programs()
    machine.check_rights()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    env = {**os.environ, **compose_plugin.provide(root / "docker")}
    env["OPEN_FILES"] = str(_open_files())
    moment = time.monotonic()
    with engine.running(root / "data", has_way_out=True) as building:
        _say(_BUILT.format(images.make(root, {**env, "DOCKER_HOST": building.host})))
    _say(f"images are there after {time.monotonic() - moment:.0f} s")
    with engine.running(root / "data", has_way_out=False) as serving:
        env["DOCKER_HOST"] = serving.host
        # This engine is the tests' own: tests/compose/test_swarm.py may make a swarm of it.
        env["WS_CLUSTER_STAND_IN_ADDRESS"] = engine.ADDRESS
        return _status_of([*serving.entering, *command], env)


def _status_of(command: list[str], env: dict[str, str]) -> int:
    """Run a command to its end; Ctrl-C is for the command, which has things to clean up, and SIGTERM too."""
    child = subprocess.Popen(command, env=env)
    try:
        while True:
            with suppress(KeyboardInterrupt):
                return child.wait()
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(_CLEANS_UP_WITHIN)
        child.kill()


def _open_files() -> int:
    """Containers may not have more than this program may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)


def _say(text: str) -> None:
    print(f"stand-in: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
