"""Undoes the faults of a drill that was killed: `python -m loadtest.drilling.undo_daemon`.

It reads undo actions, one JSON object per line, as long as the drill runs. At the end of its input it
carries out the actions that are still open, the last one first, and ends. Ctrl-C does not reach it: it has
a session of its own.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TextIO

from loadtest.drilling.undo import UndoAction, carry_out


def main(source: TextIO = sys.stdin) -> int:
    """Read until the end, then carry out what is open; returns 1 if an action failed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left: dict[int, UndoAction] = {}
    for line in source:
        try:
            document = json.loads(line)
        except ValueError:
            # The drill died while it wrote this line, so the fault was not injected yet.
            break
        if "undo" in document:
            left[document["number"]] = document["undo"]
        else:
            left.pop(document["number"], None)
    code = 0
    for _, action in sorted(left.items(), reverse=True):
        try:
            carry_out(action)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            code = 1
            sys.stderr.write(f"drill: could not be undone: {dict(action)}: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
