"""The program that holds the Java SDK: built once per process of the tests, if there are a JDK and Maven.

Maven fetches the jars of java/pom.xml into java/build/jars, where they stay. Nothing of them runs before each has
the SHA-256 that java/jars.sha256 says: Maven itself only compares what it fetches with what the repository says
(`-C`). Maven and its plugin are trusted as the JDK is.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import hashlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Final

SOURCE: Final = Path(__file__).parent / "java"
SUMS: Final = SOURCE / "jars.sha256"
JARS: Final = SOURCE / "build" / "jars"
#: Enough to fetch the jars and Maven's plugin, or to wait until another process of the tests has; both
#: together with the compiler take less than a test may.
FETCH_WITHIN_SECONDS: Final = 90.0
COMPILE_WITHIN_SECONDS: Final = 30.0
#: Quick to start, and small: many clients wait most of the time.
_JVM: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m")


class ForeignJar(Exception):
    """The jars are not those that were chosen: no reason to skip a test."""


class _NotBuilt(Exception):
    """Why there is no program."""


@functools.cache
def java_program() -> tuple[tuple[str, ...], str]:
    """The command that starts the program, or none and the reason.

    Raises:
        ForeignJar: a jar that was fetched is not the one that java/jars.sha256 names.
    """
    java, javac, maven = map(shutil.which, ("java", "javac", "mvn"))
    if java is None or javac is None or maven is None:
        return (), "no JDK or no Maven, which centrifuge-java needs"
    try:
        _fetch(maven)
        classes = _compile(javac)
    except _NotBuilt as reason:
        return (), str(reason)
    return (java, *_JVM, "-cp", f"{classes}:{JARS}/*", "SdkClient"), ""


def foreign_jars(folder: Path) -> list[str]:
    """What of a folder differs from java/jars.sha256; also what is missing, or not named there."""
    wanted = {tuple(line.split()) for line in SUMS.read_text().splitlines()}
    found = {
        (hashlib.sha256(path.read_bytes()).hexdigest(), path.name) for path in folder.glob("*.jar")
    }
    return sorted({name for _, name in wanted ^ found})


def _fetch(maven: str) -> None:
    """Bring the jars, once for all processes of the tests."""
    deadline = time.monotonic() + FETCH_WITHIN_SECONDS
    JARS.mkdir(parents=True, exist_ok=True)
    with (JARS.parent / "lock").open("w") as lock:
        _take(lock, deadline)
        if not foreign_jars(JARS):
            return
        shutil.rmtree(JARS, ignore_errors=True)
        goal = ("dependency:copy-dependencies", "-DincludeScope=runtime")
        command = (maven, "-B", "-q", "-C", *goal, f"-DoutputDirectory={JARS}")
        _run("fetched", command, deadline - time.monotonic())
        if foreign := foreign_jars(JARS):
            shutil.rmtree(JARS)
            raise ForeignJar(", ".join(foreign))


def _take(lock: IO[str], deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _NotBuilt("centrifuge-java was not fetched in time") from None
            time.sleep(0.1)


def _compile(javac: str) -> Path:
    """Compile the program into a folder that ends with this process."""
    classes = Path(tempfile.mkdtemp(prefix="java-sdk-"))
    atexit.register(shutil.rmtree, classes, ignore_errors=True)
    sources = map(str, sorted(SOURCE.glob("*.java")))
    options = ("-Xlint:all", "-Werror", "-cp", f"{JARS}/*", "-d", str(classes))
    _run("compiled", (javac, *options, *sources), COMPILE_WITHIN_SECONDS)
    return classes


def _run(done: str, command: tuple[str, ...], within_seconds: float) -> None:
    try:
        ended = subprocess.run(
            command,
            cwd=SOURCE,
            capture_output=True,
            text=True,
            check=False,
            timeout=within_seconds,
        )
    except subprocess.TimeoutExpired:
        raise _NotBuilt(f"centrifuge-java was not {done} in time") from None
    if ended.returncode:
        said = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
        raise _NotBuilt(
            f"centrifuge-java cannot be {done}: {said[0] if said else ended.returncode}"
        )
