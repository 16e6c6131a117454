"""Draw docs/img/architecture.svg and drill-environment.svg: which processes run, and how they communicate.

Rules
- Pictures have a background of their own, so that they are readable on a light and on a dark page.
- They are drawn by code: a change of the architecture is a change of a line here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "img"
WIDTH: Final = 980
HEIGHT: Final = 520
ENVIRONMENT_HEIGHT: Final = 396
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
        box(480, 190, 190, 66, "#d9f2e6", "worker slot 0", ":8101, unix socket", "lanes w0a, w0b"),
        box(480, 276, 190, 66, "#d9f2e6", "worker slot 1", ":8102, unix socket", "lanes w1a, w1b"),
        box(
            480,
            376,
            190,
            66,
            "#d9f2e6",
            "worker slot N-1",
            ":8100+N, unix socket",
            "one per CPU core",
        ),
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
    """How they communicate."""
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
        # The ports are for an nginx of one's own, for health checks and for load tests.
        text(420, 214, "unix sockets", "flow"),
        *to_store,
        text(780, 362, "publish: one script appends", "flow", "start"),
        text(780, 378, "to the stream and sends", "flow", "start"),
        arrow([(295, 160), (295, 274)], dashed=True),
        arrow([(575, 160), (575, 188)], dashed=True),
        arrow([(855, 160), (855, 274)], dashed=True),
        text(303, 222, "signals", "flow", "start"),
        text(585, 179, "listening sockets, configuration; status back", "flow", "start"),
        text(206, 474, "A slot without a ready worker is answered by the supervisor: 503, and nginx"
             " takes the next worker.", "note", "start"),
    ]  # fmt: skip


def environment() -> list[str]:
    """What a drill starts, where it injects the fault, and the path of the alert."""
    return [
        f'<rect width="{WIDTH}" height="{ENVIRONMENT_HEIGHT}" rx="12" fill="#f7f9fb"/>',
        (
            '<rect x="190" y="24" width="770" height="312" rx="12" fill="#ffffff" '
            'stroke="#9fb3c8" stroke-dasharray="6 4"/>'
        ),
        text(206, 48, "one environment of a drill", "note", "start"),
        box(24, 76, 130, 66, "#e6eaf0", "Locust", "steady load", "and its ledger"),
        box(24, 196, 130, 66, "#fdeecb", "the drill", "injects, watches", "undoes"),
        box(24, 306, 130, 66, "#e6eaf0", "undo daemon", "undoes the fault if", "the drill is killed"),
        box(230, 76, 170, 66, "#d9f2e6", "the cluster", "nginx, 2 workers", "store, supervisor"),
        box(480, 76, 170, 66, "#dbe9fb", "Prometheus", "rules of docker/", "time compressed"),
        box(750, 76, 180, 66, "#dbe9fb", "Alertmanager", "routes, silences"),
        box(750, 246, 180, 66, "#f6dede", "stand-ins", "Slack, PagerDuty", "dead man's switch"),
        box(480, 246, 170, 66, "#dbe9fb", "incident tracker", "monitor ack and", "its resolve"),
        arrow([(154, 109), (228, 109)], both=True),
        arrow([(478, 109), (402, 109)]),
        text(440, 101, "scrape", "flow"),
        arrow([(650, 109), (748, 109)]),
        text(699, 101, "alerts", "flow"),
        arrow([(840, 142), (840, 244)]),
        text(848, 196, "notifies", "flow", "start"),
        arrow([(650, 279), (748, 279)]),
        arrow([(154, 214), (270, 214), (270, 144)]),
        text(280, 190, "injects and undoes", "flow", "start"),
        arrow([(154, 229), (565, 229), (565, 144)], dashed=True),
        arrow([(565, 229), (800, 229), (800, 144)], dashed=True),
        arrow([(154, 244), (440, 244), (440, 326), (840, 326), (840, 314)], dashed=True),
        text(430, 222, "asks", "flow"),
        arrow([(89, 262), (89, 304)], dashed=True),
        text(97, 288, "undo log", "flow", "start"),
    ]  # fmt: skip


def svg(height: int, label: str, parts: list[str]) -> str:
    """A whole picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(label)}">'
        f"<style>{STYLE}</style><defs>"
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse"><path d="M0,0 L10,5 L0,10 z" '
        f'fill="{INK}"/></marker></defs>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


PICTURES: Final = {
    "architecture.svg": svg(
        HEIGHT,
        "Clients reach nginx, nginx the workers, the workers share Valkey; the supervisor owns the"
        " sockets and serves metrics.",
        [*frame(), *processes(), *flows()],
    ),
    "drill-environment.svg": svg(
        ENVIRONMENT_HEIGHT,
        "The drill injects a fault into the cluster; the alert goes through Prometheus and"
        " Alertmanager to the stand-ins; the undo daemon undoes the fault if the drill is killed.",
        environment(),
    ),
}


def main() -> int:
    """Write the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, drawn in PICTURES.items():
        (FOLDER / name).write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
