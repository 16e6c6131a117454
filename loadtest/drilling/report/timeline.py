"""The timeline of one drill as SVG: the states of the alert, its value, its notifications.

Rules
- The upper row shows the states of the alert as bands, the middle one the value and its threshold, the
  lower one the notifications. Time runs from the start of the drill to its end.
- Colours are the page's variables, so that the picture follows light and dark; nothing is said by
  colour alone.
"""

from __future__ import annotations

from html import escape
from typing import Final

from loadtest.drilling.result import DrillResult, ReceiverState

_WIDTH: Final = 900
_LEFT, _RIGHT = 70, 12
_BANDS_TOP, _BAND_HEIGHT = 8, 22
_VALUES_TOP, _VALUES_HEIGHT = 44, 84
_MARKS_TOP, _ROW = 148, 17
_STATES: Final = (
    ("baseline", "provoked", "quiet"),
    ("provoked", "pending", "cause"),
    ("pending", "firing", "pending"),
    ("firing", "resolved", "firing"),
    ("resolved", "", "resolved"),
)
_LEAST_LABEL: Final = 54
_TICKS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
_MOST_TICKS: Final = 10
_CHARACTER_WIDTH: Final = 6.4


class _Axis:
    def __init__(self, began: float, ended: float) -> None:
        self.began = began
        self.seconds = max(1.0, ended - began)

    def x(self, at: float) -> float:
        """The position of a time."""
        share = min(1.0, max(0.0, (at - self.began) / self.seconds))
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def timeline(result: DrillResult, threshold: float | None = None) -> str:
    """The timeline as an SVG element."""
    ended = result.ended_at or max([result.started_at, *result.step_times.values()])
    axis = _Axis(result.started_at, ended)
    marks, rows = _marks(result, axis)
    bottom = _MARKS_TOP + rows * _ROW
    elements = [*_bands(result, axis), *_values(result, axis, threshold), *marks]
    elements += _ticks(axis, bottom)
    label = escape(f"Timeline of the drill of {result.name}", quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 26}" role="img" aria-label="{label}"'
        f' class="timeline">{"".join(elements)}</svg>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{escape(words)}</text>"
    )


def _bands(result: DrillResult, axis: _Axis) -> list[str]:
    """The states in order; a step that was not reached is omitted."""
    step_times = {"end": axis.began + axis.seconds, **result.step_times}
    present = [one for one in _STATES if one[0] in step_times]
    elements = [_text(_LEFT - 8, _BANDS_TOP + 15, "alert", "end", "lane")]
    for number, (step, _, name) in enumerate(present):
        following = present[number + 1][0] if number + 1 < len(present) else "end"
        begin, end = axis.x(step_times[step]), axis.x(step_times[following])
        width = max(1.0, end - begin)
        title = f"{name}, from {step_times[step] - axis.began:.1f} s"
        elements.append(
            f'<rect x="{begin:.1f}" y="{_BANDS_TOP}" width="{width:.1f}" height="{_BAND_HEIGHT}"'
            f' class="band {name}"><title>{escape(title)}</title></rect>'
        )
        if width >= _LEAST_LABEL:
            elements.append(_text(begin + width / 2, _BANDS_TOP + 15, name, "middle", f"on-{name}"))
    return elements


def _values(result: DrillResult, axis: _Axis, threshold: float | None) -> list[str]:
    """The value that the alert compares; a gap where there was none."""
    found = [value for _, value in result.samples if value is not None]
    elements = [_text(_LEFT - 8, _VALUES_TOP + 46, "value", "end", "lane")]
    if not found:
        elements.append(_text(_LEFT + 6, _VALUES_TOP + 46, "no value was seen", kind="faint"))
        return elements
    numbers = [*found, *([threshold] if threshold is not None else [])]
    low, high = min(numbers), max(numbers)
    if low == high:
        low, high = low - 1, high + 1

    def y(value: float) -> float:
        return _VALUES_TOP + 6 + (high - value) / (high - low) * (_VALUES_HEIGHT - 12)

    if threshold is not None:
        at = y(threshold)
        elements.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="limit"/>'
        )
        elements.append(_text(_WIDTH - _RIGHT, at - 4, f"threshold {threshold:g}", "end", "faint"))
    run: list[str] = []
    for moment, value in [*result.samples, (0.0, None)]:
        if value is not None:
            run.append(f"{axis.x(moment):.1f},{y(value):.1f}")
        elif run:
            elements.append(f'<polyline points="{" ".join(run)}" class="value"/>')
            run = []
    elements.append(_text(_LEFT - 8, _VALUES_TOP + 12, f"{high:.4g}", "end", "faint"))
    elements.append(_text(_LEFT - 8, _VALUES_TOP + _VALUES_HEIGHT, f"{low:.4g}", "end", "faint"))
    return elements


def _marks(result: DrillResult, axis: _Axis) -> tuple[list[str], int]:
    """Notifications, acknowledgement and undo, each in the first row where its label fits."""
    marks = [(receiver.at, _words(receiver, "firing")) for receiver in result.notified]
    marks += [(receiver.at, _words(receiver, "resolved")) for receiver in result.resolve_notified]
    marks += [
        (result.step_times[step], step)
        for step in ("acknowledged", "undone")
        if step in result.step_times
    ]
    elements = [_text(_LEFT - 8, _MARKS_TOP + 12, "notified", "end", "lane")]
    ends: list[float] = []
    for at, words in sorted(marks):
        x, width = axis.x(at), len(words) * _CHARACTER_WIDTH + 12
        begin = x if x + width < _WIDTH else x - width
        row = next((n for n, end in enumerate(ends) if end < begin), len(ends))
        ends[row:row] = [] if row < len(ends) else [0.0]
        ends[row] = begin + width
        y = _MARKS_TOP + row * _ROW
        elements.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_BANDS_TOP}" y2="{y + 8:.1f}" class="mark"/>'
        )
        elements.append(f'<circle cx="{x:.1f}" cy="{y + 8:.1f}" r="3.5" class="mark"/>')
        is_left = begin < x
        elements.append(
            _text(x - 7 if is_left else x + 7, y + 12, words, "end" if is_left else "start")
        )
    return elements, max(1, len(ends))


def _words(receiver: ReceiverState, state: str) -> str:
    if receiver.kind == "pagerduty":
        return f"PagerDuty {receiver.address}"
    return f"Slack {receiver.address} {state}"


def _ticks(axis: _Axis, bottom: float) -> list[str]:
    step = next((t for t in _TICKS if axis.seconds / t <= _MOST_TICKS), 3600)
    elements = []
    for number in range(int(axis.seconds // step) + 1):
        seconds = number * step
        x = axis.x(axis.began + seconds)
        elements.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom + 2}" y2="{bottom + 7}" class="tick"/>'
        )
        words = f"{seconds} s" if step < 60 else f"{seconds / 60:g} min"
        elements.append(_text(x, bottom + 20, words, "middle", "faint"))
    return elements
