"""Paths as users give them, made absolute."""

from __future__ import annotations

from pathlib import Path

from cluster.errors import ConfigError, Problem


def absolute_path(given: str, option: str) -> Path:
    """A path that a user has given, which may begin with `~`.

    Args:
        given: the path.
        option: what has named it, for the message.

    Raises:
        ConfigError: if it names no path on this machine.
    """
    try:
        if "\0" not in given:
            return Path(given).expanduser().absolute()
        advice = "give a path without a null character"
    except RuntimeError:
        # A container may run as a user without an entry in /etc/passwd, and without HOME.
        advice = "there is no home directory to put for the ~: give an absolute path, or set HOME"
    except OSError as error:
        advice = f"give an absolute path: the current directory cannot be used ({error.strerror})"
    raise ConfigError([Problem(option, given, advice)])
