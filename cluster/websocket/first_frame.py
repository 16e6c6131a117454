"""Whether a client masks its frames, as its first frame tells.

aiohttp's reader takes unmasked frames too; RFC 6455 §5.1 says 1002. A client masks always or never, so
the second byte of its first frame decides, whichever piece of the stream that byte comes in.
"""

from __future__ import annotations


class FirstFrame:
    """Waits for the second byte."""

    __slots__ = ("_to_come", "is_masked")

    def __init__(self) -> None:
        self._to_come = 1
        self.is_masked = False

    def tells(self, data: bytes) -> bool:
        """Look at what came next; whether `is_masked` is known now."""
        if len(data) <= self._to_come:
            self._to_come -= len(data)
            return False
        self.is_masked = bool(data[self._to_come] & 0x80)
        return True
