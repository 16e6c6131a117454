"""What must be told, until it has been told: the letters of the journal on their way.

Rules
- A letter of a name is posted once, whatever happens; delivery is at least once.
- One that is not taken is tried again, after twice as long each time, up to five minutes; one that
  is refused for good is given up and logged as an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cluster import log
from cluster.monitor.journal import Journal, Letter
from cluster.monitor.notices import Mailbox, Undeliverable

_LONGEST_RETRY_SECONDS: Final = 300.0


class Outbox:
    """Posts letters in a journal and delivers them.

    Args:
        first_retry_seconds: until the second attempt.
        clock: Unix time.
    """

    def __init__(
        self,
        journal: Journal,
        mailbox: Mailbox,
        first_retry_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._mailbox = mailbox
        self._first_retry_seconds = first_retry_seconds
        self._clock = clock
        self._log = log.get_logger()

    def knows(self, target: str) -> bool:
        """Whether there is anybody to tell."""
        return self._mailbox.knows(target)

    def post(self, name: str, target: str, document: Mapping[str, Any]) -> None:
        """Have something told; part of the caller's transaction."""
        if self.knows(target):
            self._journal.post(name, target, document, self._clock())

    def deliver(self) -> None:
        """Try every letter that is due."""
        for letter in self._journal.letters(self._clock()):
            try:
                self._mailbox.deliver(letter.target, letter.document)
            except Undeliverable as error:
                self._put_off(letter, error)
                continue
            with self._journal.change():
                self._journal.sent(letter.name, self._clock())
            self._log.info("letter_sent", letter=letter.name, target=letter.target)

    def _put_off(self, letter: Letter, error: Undeliverable) -> None:
        wait = self._first_retry_seconds * 2.0 ** min(letter.attempts, 16)
        next_try_at = self._clock() + min(_LONGEST_RETRY_SECONDS, wait)
        with self._journal.change():
            self._journal.failed(
                letter.name,
                next_try_at=next_try_at,
                given_up=str(error) if error.is_final else "",
            )
        tell = self._log.error if error.is_final else self._log.warning
        tell("letter_not_taken", letter=letter.name, target=letter.target, reason=str(error))
