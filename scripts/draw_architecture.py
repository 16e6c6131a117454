"""Draw docs/img/architecture.svg: what runs, and what goes between.

Rules
- One picture, readable on a light and on a dark page: it brings its own background.
- Drawn by code, so that a change of the house is a change of a line here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

TARGET: Final = Path(__file__).resolve().parents[1] / "docs" / "img" / "architecture.svg"
WIDTH: Final = 980
HEIGHT: Final = 520
INK: Final = "#1f2933"
QUIET: Final = "#52606d"
STYLE: Final = (
    "text{font-family:ui-sans-serif,system-ui,'DejaVu Sans',sans-serif;fill:#1f2933}"
    ".name{font-size:15px;font-weight:600}.note{font-size:12px;fill:#52606d}"
    # The halo keeps a label readable where it crosses a line.
    ".flow{font-size:12px;fill:#334e68;paint-order:stroke;stroke:#fbfcfd;stroke-width:5px}"
    ".port{font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:12px;fill:#334e68}"
)


def text(x: float, y: float, words: str, kind: str, anchor: str = "middle") -> str:
    """One line of text."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, *lines: str) -> str:
    """A rounded box: its first line is a name, those that begin with a colon are ports."""
    shape = (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" '
        f'fill="{fill}" stroke="{QUIET}" stroke-width="1.2"/>'
    )
    top = y + height / 2 - (len(lines) - 1) * 9 + 5
    written = []
    for number, line in enumerate(lines):
        kind = "name" if number == 0 else "port" if line.startswith(":") else "note"
        written.append(text(x + width / 2, top + number * 18, line, kind))
    return shape + "".join(written)


def arrow(points: list[tuple[float, float]], *, dashed: bool = False, both: bool = False) -> str:
    """A line through these points with a head at its end, or at both ends."""
    path = " ".join(f"{x},{y}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    start = ' marker-start="url(#head)"' if both else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.4"{dash}'
        f'{start} marker-end="url(#head)"/>'
    )


def frame() -> list[str]:
    """The machine that everything but clients and Prometheus runs on."""
    return [
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#f7f9fb"/>',
        (
            '<rect x="190" y="24" width="770" height="472" rx="12" fill="#ffffff" '
            'stroke="#9fb3c8" stroke-dasharray="6 4"/>'
        ),
        text(206, 48, "one machine or container: ws-cluster up", "note", "start"),
    ]


def processes() -> list[str]:
    """Every process."""
    workers = [
        box(480, 190, 190, 66, "#d9f2e6", "worker slot 0", ":8101", "lanes w0a, w0b"),
        box(480, 276, 190, 66, "#d9f2e6", "worker slot 1", ":8102", "lanes w1a, w1b"),
        box(480, 376, 190, 66, "#d9f2e6", "worker slot N-1", ":8100+N", "one per CPU core"),
        text(575, 364, "⋮", "name"),
    ]
    return [
        box(24, 276, 130, 66, "#e6eaf0", "clients", "SDKs, browsers"),
        box(24, 84, 130, 58, "#e6eaf0", "Prometheus", "operator"),
        box(220, 66, 710, 94, "#fdeecb", "supervisor", "owns every listening socket;"
            " starts, rolls, replaces, stops the others", ":8001  /metrics  /health  /ready"),
        box(230, 276, 130, 66, "#dbe9fb", "nginx", ":8000", "least_conn"),
        box(780, 276, 150, 66, "#f6dede", "Valkey", "or your Redis", "streams, sessions"),
        *workers,
    ]  # fmt: skip


def flows() -> list[str]:
    """What goes between them."""
    to_workers = [arrow([(360, 309), (420, 309), (420, y), (478, y)]) for y in (223, 309, 409)]
    to_store = [
        arrow([(778, 309), (726, 309), (726, y), (672, y)], both=True) for y in (223, 309, 409)
    ]
    return [
        arrow([(154, 309), (228, 309)], both=True),
        text(191, 301, "WebSocket", "flow"),
        arrow([(154, 113), (218, 113)]),
        text(187, 105, "scrape", "flow"),
        *to_workers,
        *to_store,
        text(780, 362, "publish: one script appends", "flow", "start"),
        text(780, 378, "to the stream and sends", "flow", "start"),
        arrow([(295, 160), (295, 274)], dashed=True),
        arrow([(575, 160), (575, 188)], dashed=True),
        arrow([(855, 160), (855, 274)], dashed=True),
        text(303, 222, "signals", "flow", "start"),
        text(585, 179, "listening socket, configuration; status back", "flow", "start"),
        text(206, 474, "A slot without a ready worker is answered by the supervisor: 503, and nginx"
             " takes the next worker.", "note", "start"),
    ]  # fmt: skip


def drawing() -> str:
    """The whole picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" '
        'aria-label="Clients reach nginx, nginx the workers, the workers share Valkey; the '
        'supervisor owns the sockets and serves metrics.">'
        f"<style>{STYLE}</style><defs>"
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse"><path d="M0,0 L10,5 L0,10 z" '
        f'fill="{INK}"/></marker></defs>'
    )
    return "\n".join([head, *frame(), *processes(), *flows(), "</svg>"]) + "\n"


def main() -> int:
    """Write the picture."""
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(drawing(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
