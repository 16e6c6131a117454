"""What must be told, until it has been told: the notifications of the store on their way.

Rules
- A notification of a name is posted once, whatever happens; delivery is at least once.
- One that is not taken is tried again, after twice as long each time, up to five minutes; one that
  is refused for good is given up and logged as an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cluster import log
from cluster.monitor.incidents.notifications import NotificationSender, Undeliverable
from cluster.monitor.incidents.store import IncidentStore, Notification

_LONGEST_RETRY_SECONDS: Final = 300.0


class Outbox:
    """Posts notifications in a store and delivers them.

    Args:
        first_retry_seconds: until the second attempt.
        clock: Unix time.
    """

    def __init__(
        self,
        store: IncidentStore,
        sender: NotificationSender,
        first_retry_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._sender = sender
        self._first_retry_seconds = first_retry_seconds
        self._clock = clock
        self._log = log.get_logger()

    def knows(self, target: str) -> bool:
        """Whether there is anybody to tell."""
        return self._sender.knows(target)

    def post(self, name: str, target: str, document: Mapping[str, Any]) -> None:
        """Have something told; part of the caller's transaction."""
        if self.knows(target):
            self._store.post(name, target, document, self._clock())

    def deliver(self) -> None:
        """Try every notification that is due."""
        for notification in self._store.notifications(self._clock()):
            try:
                self._sender.deliver(notification.target, notification.document)
            except Undeliverable as error:
                self._put_off(notification, error)
                continue
            with self._store.change():
                self._store.sent(notification.name, self._clock())
            self._log.info(
                "notification_sent", notification=notification.name, target=notification.target
            )

    def _put_off(self, notification: Notification, error: Undeliverable) -> None:
        wait = self._first_retry_seconds * 2.0 ** min(notification.attempts, 16)
        next_try_at = self._clock() + min(_LONGEST_RETRY_SECONDS, wait)
        with self._store.change():
            self._store.failed(
                notification.name,
                next_try_at=next_try_at,
                given_up=str(error) if error.is_final else "",
            )
        tell = self._log.error if error.is_final else self._log.warning
        tell(
            "notification_not_taken",
            notification=notification.name,
            target=notification.target,
            reason=str(error),
        )
