"""What a subscriber recovers from a read of a stream: all that it has missed, or the newest publication.

Protocol: centrifuge-protocol §6.2 (stream) and §6.5 (cache).
"""

from __future__ import annotations

from cluster.broker import StreamRead
from cluster.protocol import Position, Publication
from cluster.subscriber_groups import Delivery


def from_stream(
    read: StreamRead, position: Position, delivery: Delivery | None
) -> list[Publication] | None:
    """All publications after a client's position, as far as its filter lets them pass.

    Returns:
        None if the stream does not have all of them, or has another epoch.
    """
    top, publications, _ = read
    if position.epoch and position.epoch != top.epoch:
        return None
    if publications:
        is_whole = (
            publications[0].offset == position.offset + 1 and publications[-1].offset == top.offset
        )
    else:
        is_whole = top.offset == position.offset
    if not is_whole:
        return None
    return publications if delivery is None else delivery.selected(publications)


def from_cache(
    read: StreamRead, position: Position, delivery: Delivery | None
) -> list[Publication] | None:
    """The newest publication, unless the client has it: in a channel whose publications are whole states.

    With a filter it is the newest one that passes.

    Args:
        read: the newest publications, newest first.

    Returns:
        None if the newest publication is no longer there, and the client does not have it.
    """
    top, newest, _ = read
    has_top = position.offset > 0 and position == top
    if not newest:
        return [] if has_top else None
    if newest[0].offset != top.offset:
        return None
    if has_top:
        return []
    return (newest if delivery is None else delivery.selected(newest))[:1]
