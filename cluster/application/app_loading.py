"""Finds the application that `app.target` names.

As a program it tries the import in a process of its own: it ends with 0, or prints why the application
cannot be used as its last line.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from operator import attrgetter
from pathlib import Path

from cluster.application.declaration import Application
from cluster.config.reader import problem
from cluster.errors import ConfigError


def load(target: str) -> Application:
    """Import an application; modules are also looked for in the current directory.

    Args:
        target: `package.module:object`.

    Raises:
        ConfigError: if it cannot be imported, or is no application.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise _refused(target, f"its module cannot be imported: {_told(error)}") from error
    try:
        found = attrgetter(name)(module)
    except AttributeError:
        raise _refused(target, f"the module {module_name} has no {name}") from None
    if not isinstance(found, Application):
        kind = type(found).__name__
        raise _refused(
            target, f"give an object of cluster.Application; this one is of the type {kind}"
        )
    return found


def _refused(target: str, reason: str) -> ConfigError:
    return ConfigError([problem("app.target", target, reason)])


def _told(error: BaseException) -> str:
    """An exception in one line, with the place in the application's code that it comes from."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError):
        return text
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]  # fmt: skip
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


if __name__ == "__main__":
    try:
        load(sys.argv[1])
    except ConfigError as refusal:
        sys.stdout.write(f"\n{refusal.problems[0].allowed}\n")
        sys.exit(refusal.exit_code)
