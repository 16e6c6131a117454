"""Programs in Go: the one that holds the Go SDK, and the Go library as a server. Each is built once per process of the tests, if there is a Go toolchain.

Go keeps what it has compiled, so that a build takes about a second after the first.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent / "go"
# Where the toolchain's own archive is unpacked, which is often not in PATH.
USUAL: Final = "/usr/local/go/bin"
LIBRARY: Final = Path(__file__).parents[2] / "benchmarks/peers/golib"
#: Enough to fetch the module and compile everything.
BUILD_WITHIN_SECONDS: Final = 100.0


@functools.cache
def go_program(source: Path = SOURCE) -> tuple[Path | None, str]:
    """The program, or None and the reason."""
    go = shutil.which("go") or shutil.which("go", path=USUAL)
    if go is None:
        return None, "no Go toolchain, which centrifuge needs"
    folder = tempfile.mkdtemp(prefix="go-program-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = Path(folder, "program")
    try:
        done = subprocess.run(
            [go, "build", "-buildvcs=false", "-o", str(program), "."],
            cwd=source,
            # An older toolchain is not to fetch a newer one.
            env={**os.environ, "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_WITHIN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None, f"{source.name} was not built in {BUILD_WITHIN_SECONDS:.0f} s"
    if done.returncode:
        return None, f"{source.name} cannot be built: {done.stderr.strip().splitlines()[-1]}"
    return program, ""
