"""Which series a multiprocess file holds, and where: found once for all files with the same series.

The files of all lanes hold the same keys at the same places, and only values change between two
scrapes. So a file is parsed and checked in full if its keys are new. Afterwards its keys are compared,
byte by byte, with those that were checked, and its values are unpacked in one call.

Guarantees
- A layout stands only for series that can be merged with all others, and written as text.
- A bounded number of layouts is kept, whatever is in the files.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cluster.metrics.catalogue import WORKER_FAMILIES, base_name
from cluster.metrics.value_file import HEADER_BYTES, is_well_formed, key_lengths, read_used

_MOST_LAYOUTS: Final = 64
_LENGTH: Final = struct.Struct("i")
_FILE_NAME: Final = re.compile(r"(?P<kind>counter|histogram|summary|gauge(?=_[a-z]+_))_.+\.db")
_WORD: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_KINDS: Final = {base_name(family): family.kind for family in WORKER_FAMILIES}


class Series(NamedTuple):
    """The key of a series; `sorted_labels` holds its labels in the order in which they are merged."""

    family: str
    name: str
    labels: Mapping[str, str]
    help: str
    sorted_labels: tuple[tuple[str, str], ...]


class FileValues(NamedTuple):
    """What one file holds: a value and a timestamp of each series."""

    name: str
    kind: str
    series: tuple[Series, ...]
    values: tuple[float, ...]
    timestamps: tuple[float, ...]


class LayoutCache:
    """Reads files, and remembers the layouts that it found. Several threads may use it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[_Layout, ...]] = {}

    def read(self, path: Path) -> FileValues | None:
        """Return what is in a file; None if nothing has been written to it yet.

        Raises:
            OSError: if it cannot be read.
            ValueError: if a worker cannot have written it.
        """
        data = read_used(path)
        if not data:
            return None
        name = _FILE_NAME.fullmatch(path.name)
        if name is None:
            raise ValueError(f"{path} has no name of a multiprocess file")
        kind = name["kind"]
        series, fields = self._fields(kind, data)
        found = FileValues(path.name, kind, series, fields[1::3], fields[2::3])
        if not all(map(math.isfinite, found.values)):
            raise ValueError(f"{path} has a value that is not finite")
        if kind != "gauge" and min(found.values, default=0) < 0:
            raise ValueError(f"{path} has a negative value")
        return found

    def _fields(self, kind: str, data: bytes) -> tuple[tuple[Series, ...], tuple[Any, ...]]:
        key = (kind, len(data))
        known = self._known.get(key, ())
        for layout in known:
            fields = layout.unpack(data)
            if fields[0::3] == layout.keys:
                return layout.series, fields
        if sum(map(len, self._known.values())) >= _MOST_LAYOUTS:
            self._known.clear()
            known = ()
        layout = _Layout(kind, data)
        self._known[key] = (*known, layout)
        return layout.series, layout.unpack(data)


class _Layout:
    """The series of a file, in their order.

    Args:
        kind: the kind of its metrics.
        data: the used part of the file.

    Raises:
        ValueError: if a worker cannot have written it.
    """

    def __init__(self, kind: str, data: bytes) -> None:
        if not is_well_formed(data, len(data)):
            raise ValueError("the file is damaged")
        fields = "".join(f"{_LENGTH.size + length}sdd" for length in key_lengths(data))
        self.unpack = struct.Struct(f"={HEADER_BYTES}x{fields}").unpack
        #: With the length before each key, and the padding behind it.
        self.keys = self.unpack(data)[0::3]
        self.series = tuple(_series(key, kind) for key in self.keys)


def _series(entry: bytes, kind: str) -> Series:
    """Read the key of a series.

    Raises:
        ValueError: if it is none, or that of a family of another kind.
    """
    length = _LENGTH.unpack_from(entry)[0]
    text = entry[_LENGTH.size : _LENGTH.size + length].decode("utf-8")
    match json.loads(text):
        case [str(family), str(name), dict(labels), str(text_of_help)] if all(
            isinstance(value, str) for value in labels.values()
        ):
            is_well_named = all(_WORD.fullmatch(word) for word in (family, name, *labels))
            if is_well_named and name.startswith(family) and _KINDS.get(family, kind) == kind:
                # An escape in JSON can stand for what is not text.
                "".join((text_of_help, *labels.values())).encode("utf-8")
                # Whatever the kind, all series of one family are merged together.
                float(labels.get("le", "0"))
                return Series(family, name, labels, text_of_help, tuple(sorted(labels.items())))
    raise ValueError(f"{text} is no key of a {kind}")
