"""Installs the peers into the cache on first use, from locks, and says why one cannot be had.

Rules:
- Everything is pinned: hashes for Python, integrity for npm, go.sum for Go.
- A stamp beside each part holds the digest of its inputs: what has not changed is not built again.
- A tool that is missing makes its peer unavailable, never the whole benchmark.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.paths import BENCHMARKS, PEERS, make_cache

NODE_AT_LEAST = 20
CENTRIFUGO = "github.com/centrifugal/centrifugo/v6"


class PeerUnavailable(Exception):
    """This peer cannot be installed here; the text says what is missing."""


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise PeerUnavailable(f"{Path(command[0]).name} failed: {' '.join(last)}")


def _need(tool: str, why: str) -> str:
    found = shutil.which(tool)
    if found is None:
        raise PeerUnavailable(f"{tool} is not on PATH; {why}")
    return found


def _once(name: str, inputs: Sequence[Path], build: Callable[[Path], None]) -> Path:
    """Build into the cache's `name` unless the same inputs were built before; returns that directory."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    target = make_cache() / name
    stamp = target / ".stamp"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing {name} into {target}", file=sys.stderr)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        build(target)
        stamp.write_text(digest)
    return target


def python_peers() -> Path:
    """Return the interpreter of an environment that holds the Python peers."""
    lock = BENCHMARKS / "requirements-peers.txt"

    def build(target: Path) -> None:
        _run(sys.executable, "-m", "venv", target)
        pip = (target / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet")
        _run(*pip, "install", "--require-hashes", "--requirement", lock)

    return _once("python", [lock], build) / "bin/python"


def socketio() -> Path:
    """Return a folder with the Socket.IO server and its node_modules."""
    node = _need("node", f"Socket.IO needs Node {NODE_AT_LEAST} or newer")
    npm = _need("npm", "it installs Socket.IO")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < NODE_AT_LEAST:
        raise PeerUnavailable(f"node is {version.strip()}; {NODE_AT_LEAST} or newer is needed")
    sources = [PEERS / "socketio" / name for name in ("package.json", "package-lock.json")]
    server = PEERS / "socketio/server.mjs"

    def build(target: Path) -> None:
        for source in (*sources, server):
            shutil.copy(source, target)
        _run(npm, "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=target)

    return _once("socketio", [*sources, server], build)


def go_library() -> Path:
    """Return the built server of the Go library."""
    go = _need("go", "a Go toolchain builds centrifugal/centrifuge")
    folder = PEERS / "golib"
    sources = [folder / name for name in ("main.go", "go.mod", "go.sum")]
    target = _once(
        "golib", sources, lambda target: _run(go, "build", "-o", target / "server", ".", cwd=folder)
    )
    return target / "server"


def centrifugo() -> Path:
    """Return Centrifugo itself, built from its module; the first time takes some minutes."""
    go = _need("go", "a Go toolchain builds Centrifugo")
    folder = PEERS / "centrifugo"
    sources = [folder / name for name in ("go.mod", "go.sum")]

    def build(target: Path) -> None:
        _run(go, "build", "-o", target / "centrifugo", CENTRIFUGO, cwd=folder)

    return _once("centrifugo", sources, build) / "centrifugo"


def has_compiler() -> bool:
    return bool(shutil.which("cc") or shutil.which("gcc"))


def floor() -> tuple[str | Path, ...]:
    """Return the command of the floor: compiled where there is a compiler, else in Python."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return (sys.executable, BENCHMARKS / "floor/floor.py")
    source = BENCHMARKS / "floor/floor.c"
    target = _once(
        "floor", [source], lambda target: _run(compiler, "-O2", source, "-o", target / "floor")
    )
    return (target / "floor",)
