"""The ledger of a load test: publications acknowledged, got, lost, delivered twice, out of order.

Rules
- A positioned channel numbers its publications without a gap. A subscriber that got offset 7 and
  then 9 has lost one; one that is behind the channel's top in the end has lost the rest; and a
  channel that has fewer numbers than were acknowledged has lost them before any subscriber could get them.
- A publisher numbers its publications, too: the same number under two offsets was published twice, and a
  number that was acknowledged and is not in the range that a subscriber received is lost.
- Without a reply the publication is unknown: it may be in the stream or not.
- Pure and mergeable: the accounts of several processes add up, also if one published and another
  subscribed. Times are seconds, passed in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_GROWTH: Final = 1.1
_SMALLEST_SECONDS: Final = 0.0001
# What a subscriber remembers of a publisher is bounded by the publishers of one channel.
_NOTHING: Final = -1


class Latencies:
    """Durations in buckets that grow by a tenth: small, mergeable, exact to five per cent."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: Counter[int] = Counter(counts or {})

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self.counts[
            max(0, int(math.log(max(seconds, _SMALLEST_SECONDS) / _SMALLEST_SECONDS, _GROWTH)))
        ] += 1

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    @property
    def total_seconds(self) -> float:
        """Their sum, as exact as the buckets."""
        return float(
            sum(
                count * _SMALLEST_SECONDS * _GROWTH ** (bucket + 0.5)
                for bucket, count in self.counts.items()
            )
        )

    def count_up_to(self, seconds: float) -> int:
        """How many lie in buckets whose middle is at most this."""
        return sum(
            count
            for bucket, count in self.counts.items()
            if _SMALLEST_SECONDS * _GROWTH ** (bucket + 0.5) <= seconds
        )

    def quantile(self, share: float) -> float | None:
        """The duration that this share does not exceed, in seconds; None if there is none."""
        wanted = share * self.count
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return float(_SMALLEST_SECONDS * _GROWTH ** (bucket + 0.5))
        return None


@dataclass(slots=True)
class ReceivedRange:
    """The numbers of one publisher that were received: from first to last, without the gaps."""

    first: int
    last: int
    gaps: set[int]

    def has(self, number: int) -> bool:
        """Whether this number was received."""
        return self.first <= number <= self.last and number not in self.gaps

    def joined(self, other: ReceivedRange) -> ReceivedRange:
        """The union of both, starting at the lower first number.

        What lies between two ranges that do not meet is no gap: nobody was there to receive it.
        """
        one, two = sorted((self, other), key=lambda received: received.first)
        gaps = {number for number in one.gaps if not two.has(number)}
        if two.last > one.last:
            gaps |= {number for number in two.gaps if number > one.last}
        return ReceivedRange(one.first, max(one.last, two.last), gaps)


class SubscriberAccount:
    """What one subscriber of one channel got, across its reconnects."""

    __slots__ = ("_missing", "got", "last", "out_of_order", "received", "twice", "unrecoverable")

    def __init__(self) -> None:
        self.last = _NOTHING
        self.got = 0
        self.twice = 0
        self.out_of_order = 0
        self.unrecoverable = 0
        self.received: dict[str, ReceivedRange] = {}
        self._missing: set[int] = set()

    @property
    def lost(self) -> int:
        """The number of publications that were skipped."""
        return len(self._missing)

    @property
    def is_whole(self) -> bool:
        """Whether it received everything from its first publication to its last."""
        return not self._missing and not self.unrecoverable

    def subscribed(self, offset: int | None, *, is_recovered: bool, was_recovering: bool) -> None:
        """Start at a position, or continue from it.

        Args:
            offset: the position the reply gives; None in a channel without positions.
            is_recovered: whether everything since the last position comes, or has come.
            was_recovering: whether that was asked for.
        """
        if was_recovering and is_recovered:
            return
        if was_recovering:
            self.unrecoverable += 1
        if offset is not None:
            self.last = offset

    def take(self, offset: int, publisher: str, number: int) -> None:
        """Add one publication; `offset` 0 is a channel without positions."""
        self.got += 1
        if offset and not self._is_new(offset):
            return
        received = self.received.get(publisher)
        if received is None:
            self.received[publisher] = ReceivedRange(number, number, set())
        elif number == received.last:
            self.twice += 1
        elif number < received.last:
            self.out_of_order += 1
            received.gaps.discard(number)
        else:
            received.gaps.update(range(received.last + 1, number))
            received.last = number

    def _is_new(self, offset: int) -> bool:
        if self.last == _NOTHING:
            self.last = offset - 1
        if offset == self.last + 1:
            self.last = offset
            return True
        if offset > self.last:
            self._missing.update(range(self.last + 1, offset))
            self.last = offset
            return True
        if offset in self._missing:
            self._missing.remove(offset)
            self.out_of_order += 1
        else:
            self.twice += 1
        return False


@dataclass(slots=True)
class Account:
    """One channel, in one process or in all of them.

    Attributes:
        base: the lowest position at which a subscriber started.
        top: the highest offset that anybody saw.
        ends: how many of the present subscribers stand at which offset.
        spoken: the last number of each publisher.
        failed: the numbers of each publisher that were refused or are unknown.
        received: what those subscribers who missed nothing received of each publisher.
        present: the last number of each publisher that a present one of them received.
    """

    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    base: int = _NOTHING
    top: int = _NOTHING
    got: int = 0
    lost: int = 0
    twice: int = 0
    out_of_order: int = 0
    unrecoverable: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    spoken: dict[str, int] = field(default_factory=dict)
    failed: dict[str, set[int]] = field(default_factory=dict)
    received: dict[str, ReceivedRange] = field(default_factory=dict)
    present: dict[str, int] = field(default_factory=dict)

    def add(self, other: Account) -> None:
        """Add the account of another process for the same channel."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        bases = [base for base in (self.base, other.base) if base != _NOTHING]
        self.base = min(bases, default=_NOTHING)
        self.top = max(self.top, other.top)
        self.ends += other.ends
        self.spoken |= other.spoken
        self.failed |= other.failed
        self.listen(other.received)
        self.reach(other.present)

    def listen(self, received: Mapping[str, ReceivedRange]) -> None:
        """Add the ranges that a subscriber received."""
        for publisher, one in received.items():
            mine = self.received.get(publisher)
            self.received[publisher] = one if mine is None else mine.joined(one)

    def reach(self, last: Mapping[str, int]) -> None:
        """Add how far a present subscriber has come."""
        for publisher, number in last.items():
            self.present[publisher] = max(number, self.present.get(publisher, number))

    @property
    def behind(self) -> int:
        """Publications that a present subscriber has not got yet."""
        return sum((self.top - end) * count for end, count in self.ends.items() if end >= 0)

    @property
    def vanished(self) -> int:
        """Acknowledged publications that are not in the stream.

        By the stream's own count, which one that is unknown and arrived can hide; and by the
        publishers' numbers, which do not cover what was published before the first subscriber.
        """
        by_count = 0
        if self.base != _NOTHING and self.ends:
            by_count = self.acknowledged - (max(self.top, self.base) - self.base)
        return max(0, by_count, sum(map(self._vanished_of, self.received)))

    def _vanished_of(self, publisher: str) -> int:
        received, failed = self.received[publisher], self.failed.get(publisher, set())
        count = len(received.gaps - failed)
        if publisher in self.present:
            # A present subscriber will still get the rest. One that came later has it before its position.
            rest = range(received.last + 1, self.spoken.get(publisher, received.last) + 1)
            count += sum(number not in failed for number in rest)
        return count if publisher in self.spoken else 0


_SUMS: Final = (
    "acknowledged",
    "unknown",
    "refused",
    "got",
    "lost",
    "twice",
    "out_of_order",
    "unrecoverable",
)


class Ledger:
    """All accounts of this process, and those that other processes have reported."""

    def __init__(self) -> None:
        self.results: dict[str, Counter[str]] = {}
        self.latencies = Latencies()
        self._subscribers: dict[str, list[SubscriberAccount]] = {}
        self._left: dict[str, Account] = {}
        self._bases: dict[str, int] = {}
        self._spoken: dict[str, dict[str, int]] = {}
        self._failed: dict[str, dict[str, set[int]]] = {}
        self._reports: dict[str, Mapping[str, Any]] = {}

    # --- writing ---------------------------------------------------------------------------

    def published(self, channel: str, result: str, publisher: str, number: int) -> None:
        """A publication was `acknowledged`, `refused`, or is `unknown`."""
        self.results.setdefault(channel, Counter())[result] += 1
        self._spoken.setdefault(channel, {})[publisher] = number
        if result != "acknowledged":
            failed = self._failed.setdefault(channel, {})
            failed.setdefault(publisher, set()).add(number)

    def subscriber(self, channel: str) -> SubscriberAccount:
        """A new subscriber, present until it leaves."""
        one = SubscriberAccount()
        self._subscribers.setdefault(channel, []).append(one)
        return one

    def began(self, channel: str, offset: int) -> None:
        """A subscriber subscribed for the first time, at this position."""
        self._bases[channel] = min(offset, self._bases.get(channel, offset))

    def left(self, channel: str, one: SubscriberAccount) -> None:
        """A subscriber unsubscribed: later publications do not count for it."""
        self._subscribers[channel].remove(one)
        account = self._left.setdefault(channel, Account())
        _add_subscriber(account, one)

    # --- reading ---------------------------------------------------------------------------

    def accounts(self) -> dict[str, Account]:
        """This process's accounts by channel."""
        found: dict[str, Account] = {}
        for channel in {*self._subscribers, *self.results, *self._left}:
            account = found[channel] = Account(base=self._bases.get(channel, _NOTHING))
            account.spoken = dict(self._spoken.get(channel, {}))
            account.failed = dict(self._failed.get(channel, {}))
            for name, count in self.results.get(channel, {}).items():
                setattr(account, name, count)
            if channel in self._left:
                account.add(self._left[channel])
            for one in self._subscribers.get(channel, ()):
                _add_subscriber(account, one)
                account.ends[one.last] += 1
                if one.is_whole:
                    account.reach({name: its.last for name, its in one.received.items()})
        return found

    def report(self) -> dict[str, Any]:
        """The accounts of this process as JSON, for another process."""
        return {
            "latencies": {str(k): v for k, v in self.latencies.counts.items()},
            "channels": {
                channel: {
                    **{name: getattr(account, name) for name in (*_SUMS, "base", "top")},
                    "ends": {str(k): v for k, v in account.ends.items()},
                    "spoken": account.spoken,
                    "present": account.present,
                    "failed": {name: sorted(numbers) for name, numbers in account.failed.items()},
                    "received": {
                        name: [one.first, one.last, sorted(one.gaps)]
                        for name, one in account.received.items()
                    },
                }
                for channel, account in self.accounts().items()
            },
        }

    def take_report(self, process: str, report: Mapping[str, Any]) -> None:
        """Add the report of another process; it replaces an earlier one."""
        self._reports[process] = report

    def merged(self) -> tuple[dict[str, Account], Latencies]:
        """All accounts of all processes, and all latencies."""
        found = self.accounts()
        latencies = Latencies(self.latencies.counts)
        for report in self._reports.values():
            latencies.counts.update({int(k): v for k, v in report["latencies"].items()})
            for channel, values in report["channels"].items():
                found.setdefault(channel, Account()).add(_account(values))
        return found, latencies

    def is_settled(self) -> bool:
        """Whether every present subscriber has got everything, and every acknowledged publication is in its channel."""
        return all(a.behind == 0 and a.vanished == 0 for a in self.merged()[0].values())

    def summary(self, *, is_final: bool) -> dict[str, Any]:
        """The summary of all accounts.

        Args:
            is_final: whether what is still on its way counts as lost.
        """
        accounts, latencies = self.merged()
        total = {name: _total(accounts.values(), name) for name in _SUMS}
        late = _total(accounts.values(), "behind") + _total(accounts.values(), "vanished")
        if is_final:
            total["lost"] += late
        quantiles = {
            f"p{share * 100:g}_ms": latencies.quantile(share) for share in (0.5, 0.95, 0.99)
        }
        return {
            "sent": total["acknowledged"] + total["unknown"] + total["refused"],
            **total,
            "outstanding": 0 if is_final else late,
            "losses": _losses(accounts) if is_final else [],
            "channels": len(accounts),
            "is_final": is_final,
            **{name: None if s is None else round(s * 1000, 2) for name, s in quantiles.items()},
        }


def _account(values: Mapping[str, Any]) -> Account:
    """The account that another process reported."""
    counters = {
        "ends": Counter({int(k): v for k, v in values["ends"].items()}),
        "failed": {name: set(numbers) for name, numbers in values["failed"].items()},
        "received": {
            name: ReceivedRange(first, last, set(gaps))
            for name, (first, last, gaps) in values["received"].items()
        },
    }
    return Account(**{**values, **counters})


def _add_subscriber(account: Account, one: SubscriberAccount) -> None:
    if one.is_whole:
        account.listen(one.received)
    for name in ("got", "lost", "twice", "out_of_order", "unrecoverable"):
        setattr(account, name, getattr(account, name) + getattr(one, name))
    account.top = max(account.top, one.last)


def _losses(accounts: Mapping[str, Account]) -> list[str]:
    """One line for each channel that lost publications: how many, and how."""
    ways = {
        "lost": "passed over by subscribers",
        "behind": "not delivered to the end",
        "vanished": "acknowledged and not in the stream",
        "unrecoverable": "recoveries that the server could not make",
    }
    return [
        f"{channel}: {count} {way}"
        for channel, account in sorted(accounts.items())
        for name, way in ways.items()
        if (count := getattr(account, name))
    ]


def _total(accounts: Iterable[Account], name: str) -> int:
    return sum(getattr(account, name) for account in accounts)
