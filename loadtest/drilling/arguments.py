"""What the command lines of drills and soak have in common."""

from __future__ import annotations

import argparse
import sys
from typing import Final, NoReturn

_BAD_INPUT_EXIT: Final = 78


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are bad input: 78."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(_BAD_INPUT_EXIT, f"{self.prog}: {message}\n")


def factor(text: str) -> float:
    """How much faster time may pass."""
    number = float(text)
    if not 1 <= number <= 30:
        raise argparse.ArgumentTypeError("give a number from 1 to 30")
    return number


def count(text: str) -> int:
    """A small number of things."""
    number = int(text)
    if not 1 <= number <= 32:
        raise argparse.ArgumentTypeError("give a number from 1 to 32")
    return number
