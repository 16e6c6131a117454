"""An account of every publication: sent, acknowledged, unknown, got, twice, lost, out of order.

Rules. A publication is known by its channel and its number, which its publisher counts up from 1; at
most one publisher writes to a channel and it awaits each answer, so numbers also tell the order.
*Acknowledged* means the publish reply came; *unknown* means no reply came or a temporary error did:
such a one may arrive or not. *Refused* means a final error: it must not arrive.
A subscription owes the acknowledged publications sent between its joining and its leaving; the ones on
their way at either moment may arrive or not. *Lost* is what is owed and did not come. *Twice* is what
came again. *Out of order* is an offset that does not climb, or an acknowledged number that comes after a
later one. *Foreign* is what was never sent or was refused, or one offset with two contents.
A recovery that the server itself reports as impossible is *unrecovered*, which is a fault here too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

_EXAMPLES = 5
SENT, ACKNOWLEDGED, UNKNOWN, REFUSED = "sent", "acknowledged", "unknown", "refused"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that went wrong, where, with which publication."""

    kind: str
    channel: str
    subscriber: str
    number: int
    detail: str = ""

    def __str__(self) -> str:
        tail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind}: {self.channel} #{self.number} at {self.subscriber}{tail}"


@dataclass(slots=True)
class _Stay:
    """One subscription's time in a channel."""

    after: int
    offset: int = 0
    until: int | None = None
    got: list[tuple[int, int]] = field(default_factory=list)
    unrecovered: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The balance at one moment."""

    sent: int
    acknowledged: int
    unknown: int
    refused: int
    got: int
    owed: int
    faults: tuple[Fault, ...]

    def count(self, kind: str) -> int:
        """How many faults of one kind there are."""
        return sum(fault.kind == kind for fault in self.faults)

    @property
    def is_clean(self) -> bool:
        """True when nothing is lost, twice, out of order, foreign or unrecovered."""
        return not self.faults

    def __str__(self) -> str:
        kinds = Counter(fault.kind for fault in self.faults)
        head = (
            f"sent {self.sent}, acknowledged {self.acknowledged}, unknown {self.unknown}, "
            f"refused {self.refused}, owed {self.owed}, got {self.got}"
        )
        if not kinds:
            return head + ", no fault"
        shown: list[str] = []
        for kind, number in sorted(kinds.items()):
            shown.append(f"{kind} {number}")
            same = [fault for fault in self.faults if fault.kind == kind]
            shown.extend(f"  {fault}" for fault in same[:_EXAMPLES])
        return "\n".join([head, *shown])


class Ledger:
    """Records what publishers and subscribers see, and finds the faults when asked for a report."""

    def __init__(self) -> None:
        self._fate: dict[str, dict[int, str]] = defaultdict(dict)
        self._stays: dict[tuple[str, str], _Stay] = {}

    def next_number(self, channel: str) -> int:
        """Record a publication as sent and return its number."""
        fates = self._fate[channel]
        number = len(fates) + 1
        fates[number] = SENT
        return number

    def acknowledged(self, channel: str, number: int) -> None:
        """Record that the publish reply came."""
        self._fate[channel][number] = ACKNOWLEDGED

    def unknown(self, channel: str, number: int) -> None:
        """Record that no reply came, or a temporary error."""
        self._fate[channel][number] = UNKNOWN

    def refused(self, channel: str, number: int) -> None:
        """Record a final error."""
        self._fate[channel][number] = REFUSED

    def joined(self, subscriber: str, channel: str, offset: int = 0) -> None:
        """Record a first subscription: everything sent from now on is owed.

        Args:
            offset: the stream's top in the subscribe reply; live publications must climb from there.
        """
        self._stays[subscriber, channel] = _Stay(after=len(self._fate[channel]), offset=offset)

    def left(self, subscriber: str, channel: str) -> None:
        """Record that the subscriber unsubscribes on purpose; nothing sent later is owed."""
        fates = self._fate[channel]
        settled = [number for number, fate in fates.items() if fate != SENT]
        stay = self._stays[subscriber, channel]
        # What is not settled now may be on its way and is not owed.
        stay.until = max(settled, default=0)

    def excused(self, subscriber: str, channel: str) -> None:
        """Record that this subscriber may miss anything: it stopped reading on purpose."""
        self._stays[subscriber, channel].until = self._stays[subscriber, channel].after

    def got(self, subscriber: str, channel: str, number: int, offset: int) -> None:
        """Record one delivery. Called very often: it only appends."""
        self._stays[subscriber, channel].got.append((number, offset))

    def unrecovered(self, subscriber: str, channel: str) -> None:
        """Record that the server reported a gap it cannot fill; a fault only where something is owed."""
        stay = self._stays[subscriber, channel]
        stay.unrecovered += stay.until is None

    def delivered(self, subscriber: str, channel: str) -> int:
        """How many deliveries a subscription has had."""
        return len(self._stays[subscriber, channel].got)

    def missing(self) -> int:
        """How many owed deliveries have not come yet."""
        return sum(len(self._owed(key) - _numbers(stay)) for key, stay in self._stays.items())

    def _owed(self, key: tuple[str, str]) -> set[int]:
        stay = self._stays[key]
        until = len(self._fate[key[1]]) if stay.until is None else stay.until
        fates = self._fate[key[1]]
        return {n for n in range(stay.after + 1, until + 1) if fates[n] == ACKNOWLEDGED}

    def report(self) -> Report:
        """The balance; to be called when no more deliveries are expected."""
        fates = [fate for channel in self._fate.values() for fate in channel.values()]
        faults: list[Fault] = []
        owed = 0
        for key, stay in self._stays.items():
            due = self._owed(key)
            owed += len(due)
            faults.extend(self._lost(key, due - _numbers(stay)))
            faults.extend(self._judge(key, stay))
        faults.extend(self._contradictions())
        return Report(
            sent=len(fates),
            acknowledged=fates.count(ACKNOWLEDGED),
            unknown=fates.count(UNKNOWN) + fates.count(SENT),
            refused=fates.count(REFUSED),
            got=sum(len(stay.got) for stay in self._stays.values()),
            owed=owed,
            faults=tuple(faults),
        )

    @staticmethod
    def _lost(key: tuple[str, str], numbers: Iterable[int]) -> list[Fault]:
        subscriber, channel = key
        return [Fault("lost", channel, subscriber, number) for number in sorted(numbers)]

    def _judge(self, key: tuple[str, str], stay: _Stay) -> list[Fault]:
        subscriber, channel = key
        fates = self._fate[channel]
        faults: list[Fault] = []
        seen: set[int] = set()
        last_offset, highest = stay.offset, 0
        for number, offset in stay.got:
            if fates.get(number) in (None, REFUSED):
                faults.append(Fault("foreign", channel, subscriber, number, "never accepted"))
            elif number in seen:
                faults.append(Fault("twice", channel, subscriber, number, f"offset {offset}"))
            elif offset and offset <= last_offset:
                detail = f"offset {offset} after {last_offset}"
                faults.append(Fault("out of order", channel, subscriber, number, detail))
            elif number < highest and fates[number] == ACKNOWLEDGED:
                detail = f"came after #{highest}"
                faults.append(Fault("out of order", channel, subscriber, number, detail))
            seen.add(number)
            highest, last_offset = max(highest, number), max(last_offset, offset)
        if stay.unrecovered:
            faults.append(Fault("unrecovered", channel, subscriber, stay.unrecovered, "times"))
        return faults

    def _contradictions(self) -> list[Fault]:
        """A number has the same offset at every subscriber; otherwise it was executed twice."""
        places: dict[tuple[str, int], int] = {}
        faults: list[Fault] = []
        for (subscriber, channel), stay in self._stays.items():
            for number, offset in stay.got:
                known = places.setdefault((channel, number), offset)
                if known != offset:
                    detail = f"at offset {offset} and {known}"
                    faults.append(Fault("executed twice", channel, subscriber, number, detail))
        return faults


def _numbers(stay: _Stay) -> set[int]:
    return {number for number, _ in stay.got}
