"""Write docs/reference/ from the code; with --check, report the pages that differ.

Rules
- A page lists what the code declares, in the code's order; no page is edited by hand.
- The pages are the same under every Python and terminal that the project supports.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from cluster import config, errors
from cluster.metrics import catalogue
from loadtest import families
from loadtest.families import DRILL_FAMILIES, LOAD_FAMILIES

ROOT: Final = Path(__file__).resolve().parents[1]
REFERENCE: Final = ROOT / "docs" / "reference"
WRITTEN: Final = (
    "<!-- Written by scripts/reference.py: change the code and run `make reference`. -->"
)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; bars inside a cell are escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def code(text: object) -> str:
    """The text as inline code; nothing for nothing."""
    return f"`{text}`" if text != "" else ""


def page(title: str, *parts: str) -> str:
    """A whole page from its parts."""
    return "\n\n".join((f"# {title}", WRITTEN, *parts)) + "\n"


_Family = catalogue.Family | families.MetricFamily


# --- metrics -----------------------------------------------------------------------------


def _labels(family: _Family) -> str:
    shown = []
    for name, values in family.labels.items():
        known = ", ".join(values) if values else "as seen"
        shown.append(f"`{name}`: {known}")
    return "; ".join(shown)


def _families(families: Sequence[_Family]) -> str:
    rows = [(code(f.name), f.kind, _labels(f), f.help, code(f.mode)) for f in families]
    if not any(f.mode for f in families):
        return table(("name", "kind", "labels", "meaning"), [row[:4] for row in rows])
    return table(("name", "kind", "labels", "meaning", "over workers"), rows)


def _buckets() -> str:
    rows = [
        (code(f.name), ", ".join(f"{edge:g}" for edge in f.buckets))
        for f in (*catalogue.WORKER_FAMILIES, *catalogue.SUPERVISOR_FAMILIES, *LOAD_FAMILIES)
        if f.buckets
    ]
    return table(("histogram", "upper edges"), rows)


def metrics() -> str:
    """Every metric family, from `cluster.metrics.catalogue`."""
    return page(
        "Metrics",
        "Served by the admin port at `/metrics`; through nginx to private addresses only.\n"
        "Every series exists at 0 from the first scrape, unless its label values are “as seen”.",
        "## Kept by the workers\n\nSummed over workers at scrape; a gauge declares how its workers are"
        " combined. A replaced worker\ncontinues its counters.",
        _families(catalogue.WORKER_FAMILIES),
        "## Kept by the supervisor",
        _families(catalogue.SUPERVISOR_FAMILIES),
        "Beside these: the standard `process_*` families of the supervisor itself.",
        "## Kept by the incident tracker\n\nServed by `ws-cluster monitor keep --metrics-port`, which `monitoring up` and the"
        " containers give\nit. What has happened is counted over the last seven days. Give Prometheus its address,"
        " its host name, what\n`--metrics-host` says, or a name that cannot be registered (without a dot, or below `.internal`,"
        " `.local`,\n`.home.arpa` or `.localhost`): under others it answers 403, as load tests and drills do.",
        _families(catalogue.TRACKER_FAMILIES),
        "## Kept by a load test\n\nServed with `--metrics-listen` while it runs, over all of its processes.",
        _families(LOAD_FAMILIES),
        "## Kept by drills\n\nServed by `ws-cluster drill --metrics-listen` while they run.",
        _families(DRILL_FAMILIES),
        "## Buckets",
        _buckets(),
    )


# --- configuration -----------------------------------------------------------------------

KINDS: Final = {
    "seconds": "duration",
    "integer": "number",
    "bytes": "bytes",
    "port": "port",
    "boolean": "true or false",
    "secret": "secret",
    "strings": "list of strings",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option with its dotted key."""

    key: str
    default: Any
    metadata: Mapping[str, Any]


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def options(section: Any, prefix: str = "") -> Iterator[Option]:
    """Every option below a section, depth first; the options of a namespace once."""
    for field in fields(section):
        value = _default(field)
        if is_dataclass(value):
            yield from options(value, f"{prefix}{field.name}.")
        elif field.metadata.get("kind") == "namespaces":
            yield Option(f"{prefix}{field.name}[].name", "", {"text": "the part before the colon"})
            yield from options(config.ChannelOptions(), f"{prefix}{field.name}[].")
        elif field.metadata.get("kind") == "tables":
            yield from options(field.metadata["of"](), f"{prefix}{field.name}[].")
        else:
            yield Option(prefix + field.name, value, field.metadata)


def _shown(option: Option) -> str:
    value = option.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[]" if not value else str(list(value))
    if option.metadata.get("kind") == "seconds":
        return f"{value / 3600:g}h" if value and value % 3600 == 0 else f"{value:g}s"
    return str(value) if value != "" else '""'


def _allowed(option: Option) -> str:
    about = option.metadata
    if about.get("choices"):
        return ", ".join(one or '""' for one in about["choices"])
    limits = []
    if about.get("minimum"):
        limits.append(f"≥ {about['minimum']:g}")
    if about.get("maximum"):
        limits.append(f"≤ {about['maximum']:g}")
    return ", ".join(limits)


def _environment(key: str) -> str:
    return "" if "[]" in key else "WS_CLUSTER_" + key.upper().replace(".", "__")


def configuration() -> str:
    """Every option, from the dataclasses of `cluster.config`."""
    rows = [
        (
            code(option.key),
            KINDS.get(option.metadata.get("kind", ""), "string"),
            code(_shown(option)),
            _allowed(option),
            option.metadata.get("text", ""),
        )
        for option in options(config.Config())
    ]
    names = [(code(o.key), code(_environment(o.key))) for o in options(config.Config())]
    return page(
        "Configuration",
        "One file, TOML or JSON, given with `--config`. The environment overrides it, flags override\n"
        "the environment. A duration is a number of seconds or a text such as `25s`, `500ms` or"
        " `720h`.\nA secret may be given as `<name>_file`, the path of a file that holds it, and is"
        " printed as `***`.\nAll mistakes are reported at once; an unknown key is a mistake.",
        table(("option", "type", "default", "allowed", "meaning"), rows),
        "## In the environment",
        table(("option", "variable"), [row for row in names if row[1]]),
    )


# --- errors ------------------------------------------------------------------------------


def _caption(thing: type) -> str:
    return (thing.__doc__ or "").partition("\n")[0]


def _exits() -> list[tuple[str, ...]]:
    kinds = sorted(errors.ExitError.__subclasses__(), key=lambda kind: kind.exit_code)
    return [(str(kind.exit_code), kind.__name__, _caption(kind)) for kind in kinds]


def catalogue_of_errors() -> str:
    """Every code a client or a shell can see, from `cluster.errors`."""
    replies = [
        (str(e.code), e.message, "yes" if e.temporary else "no") for e in errors.CLIENT_ERRORS
    ]
    closes = [
        (str(d.code), d.reason, "yes" if d.is_client_fault else "no", _reaction(d.code))
        for d in errors.DISCONNECTS
    ]
    unsubscribes = [
        (str(u.code), u.reason, "resubscribes" if u.code >= 2500 else "stays unsubscribed")
        for u in errors.UNSUBSCRIBES
    ]
    return page(
        "Errors",
        "## Exit codes of `ws-cluster`\n\n0 is a clean end.",
        table(("code", "name", "meaning"), _exits()),
        "## Errors in a reply\n\nThe command failed; the connection lives on.",
        table(("code", "message", "temporary"), replies),
        "## Close codes",
        table(("code", "reason", "the client's fault", "what an SDK does"), closes),
        "## Unsubscribe pushes",
        table(("code", "reason", "what an SDK does"), unsubscribes),
    )


def _reaction(code_: int) -> str:
    if code_ == errors.NORMAL.code:
        return "it closed"
    return "stops" if code_ == errors.TOO_BIG.code or code_ >= 3500 else "reconnects"


# --- command line ------------------------------------------------------------------------

# The column widths of --help differ between versions of Python: only the words are used.
ENTRY: Final = re.compile(r"^ {2,4}(\S+(?: \S+)*?)(?: {2,}(\S.*))?$")


def _help(*command: str) -> list[str]:
    """The paragraphs of a command's --help."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *command, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().split("\n\n")


def _entries(lines: list[str]) -> list[tuple[str, str]]:
    """Options or commands with what they do; a text may continue on the next lines."""
    found: list[tuple[str, str]] = []
    for line in lines:
        if match := ENTRY.match(line):
            found.append((match[1], match[2] or ""))
        elif found:
            name, meaning = found[-1]
            found[-1] = (name, f"{meaning} {line.strip()}".strip())
    return [(name, meaning) for name, meaning in found if meaning]


def _section(paragraph: str) -> str:
    title, *lines = paragraph.splitlines()
    if title in ("options:", "commands:", "positional arguments:"):
        rows = [(code(name), meaning) for name, meaning in _entries(lines)]
        return table((title.rstrip(":").removesuffix("s"), "meaning"), rows)
    words = " ".join(paragraph.split())
    return f"```text\n{words}\n```" if words.startswith("usage:") else words


def _command(*command: str) -> str:
    return "\n\n".join(_section(paragraph) for paragraph in _help(*command))


def command_line() -> str:
    """What `--help` says, of the program and of each of its commands."""
    listing = next(p for p in _help() if p.startswith("commands:"))
    commands = [name for name, _ in _entries(listing.splitlines()[1:])]
    parts = [_command()]
    parts += [f"## `ws-cluster {name}`\n\n{_command(name)}" for name in commands]
    return page("Command line", *parts)


# --- log events --------------------------------------------------------------------------

LEVELS: Final = ("debug", "info", "warning", "error", "exception", "critical")
EVENT: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")


@dataclass(slots=True)
class _Writers:
    """What writes events in one module.

    Attributes:
        names: local names bound to a method of a logger, with the levels it may be.
        forwarders: functions that log an event passed to them, with its argument's index and the levels.
    """

    names: dict[str, list[str]]
    forwarders: dict[str, tuple[int, list[str]]]


def _levels_in(node: ast.AST) -> list[str]:
    return [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr in LEVELS]


def _writers(tree: ast.Module) -> _Writers:
    found = _Writers({}, {})
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if not isinstance(
                value, ast.Call
            ) and (levels := _levels_in(value)):
                found.names[name] = levels
            case (
                ast.FunctionDef(name=name, args=arguments)
                | ast.AsyncFunctionDef(name=name, args=arguments)
            ):
                parameters = [a.arg for a in arguments.args if a.arg != "self"]
                for call in ast.walk(node):
                    match call:
                        case ast.Call(
                            func=ast.Attribute(attr=level), args=[ast.Name(id=event), *_]
                        ) if level in LEVELS and event in parameters:
                            found.forwarders[name] = (parameters.index(event), [level])
    return found


def _written(call: ast.Call, writers: _Writers) -> tuple[ast.expr | None, list[str]]:
    """The expression with the event that a call writes, and the levels."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if isinstance(call.func, ast.Name):
        name = call.func.id
        if name in writers.names:
            return (call.args[0] if call.args else None), writers.names[name]
    if name in writers.forwarders:
        index, levels = writers.forwarders[name]
        return (call.args[index] if len(call.args) > index else None), levels
    if isinstance(call.func, ast.Attribute) and name == "log" and len(call.args) > 1:
        return call.args[1], ["as received"]
    if isinstance(call.func, ast.Attribute) and name in LEVELS:
        return (call.args[0] if call.args else None), [name]
    return None, []


def _events_of(path: Path) -> Iterator[tuple[str, str, str, str]]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    writers = _writers(tree)
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        event, levels = _written(call, writers)
        fields_ = ", ".join(f"`{k.arg}`" for k in call.keywords if k.arg)
        level = " or ".join(sorted({one.replace("exception", "error") for one in levels}))
        for node in ast.walk(event) if event is not None else ():
            if isinstance(node, ast.Constant) and EVENT.fullmatch(str(node.value)):
                yield str(node.value), level, module, fields_


def events() -> str:
    """Every log event, found in the source of `cluster`."""
    found = {row for path in (ROOT / "cluster").rglob("*.py") for row in _events_of(path)}
    rows = [(code(event), level, code(module), names) for event, level, module, names in found]
    return page(
        "Log events",
        "One line per event, JSON when not on a terminal; `instance` and `worker` are bound where"
        " they apply.\nerror: a person must act; warning: the program recovered; info: life cycle.",
        table(("event", "level", "from", "fields"), sorted(rows)),
    )


PAGES: Final[dict[str, Callable[[], str]]] = {
    "metrics.md": metrics,
    "config.md": configuration,
    "errors.md": catalogue_of_errors,
    "cli.md": command_line,
    "events.md": events,
}


def stale_pages() -> list[str]:
    """The pages that are not what the code says."""
    return [
        name
        for name, render in PAGES.items()
        if not (REFERENCE / name).is_file()
        or (REFERENCE / name).read_text(encoding="utf-8") != render()
    ]


def main() -> int:
    """Write the pages, or compare them; 1 when one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail on a difference")
    if parser.parse_args().check:
        stale = stale_pages()
        if stale:
            print(f"docs/reference: {', '.join(stale)} differ from the code: run make reference")
        return 1 if stale else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, render in PAGES.items():
        (REFERENCE / name).write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
