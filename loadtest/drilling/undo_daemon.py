"""Mends what a drill broke when the drill itself can no longer: `python -m loadtest.drilling.undo_daemon`.

It reads what is broken, one JSON object a line, for as long as the drill lives. At the end of its
input it carries out what is still open, the last broken first, and ends. It hears no Ctrl-C: it has
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
    """Read until the end, then mend; returns 1 if something could not be."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left: dict[int, UndoAction] = {}
    for line in source:
        try:
            document = json.loads(line)
        except ValueError:
            # The drill died while it wrote: what it was writing down it had not broken yet.
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
