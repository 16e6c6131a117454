"""A running cluster as an environment: its URLs, and the commands that inject and undo faults.

The file (TOML):

    name = "staging"
    drillable = true                     # without it no fault is injected
    profile = "production"               # the pace of its rules
    token_file = "…"                     # with a connection token, if it lets nobody in without
    namespace = "load"                   # of the channels of the load, which its users may use
    [urls]
    websocket = "ws://…/connection/websocket"
    admin = "http://…:8001"
    prometheus = "http://…:9090"
    alertmanager = "http://…:9093"
    receiver = "http://…:9099"           # the stand-in, which its Alertmanager must notify
    [drills.no_active_connections]
    provoke = "docker compose stop nginx"
    mend = "docker compose start nginx"

Rules
- A drill that load alone causes needs no commands; every other drill needs both.
- `mend` undoes the fault. It is logged before `provoke` runs, and runs in any case, also if this process is
  killed.
- All mistakes in the file are reported at once, with what is allowed.
"""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cluster.errors import ConfigError, Problem
from loadtest.drilling import undo
from loadtest.drilling.drill import Drill
from loadtest.drilling.environment.cluster import Addresses, MonitoredCluster
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector
from loadtest.drilling.undo import UndoLog

_URLS: Final = ("websocket", "admin", "prometheus", "alertmanager", "receiver")
_TEXTS: Final = ("data_dir", "token_file", "namespace")
_KEYS: Final = ("name", "drillable", "profile", "compress", *_TEXTS, "urls", "drills")
_COMMAND_SECONDS: Final = 300.0
_LAST_WORDS: Final = 200


@dataclass(frozen=True, slots=True)
class DrillCommands:
    """The commands that inject and undo the fault of one drill."""

    provoke: str
    mend: str


@dataclass(frozen=True, slots=True)
class DrillTarget:
    """The content of the file.

    Attributes:
        compress: how much faster the time of its rules passes; 1 is production.
        data_dir: of its `monitoring up`, for the acknowledgement; empty if it is elsewhere.
        token_file: a file with the token of the load's clients; empty for none.
        namespace: of the load's channels; empty for none.
    """

    name: str
    is_production: bool
    compress: float
    data_dir: str
    token_file: str
    namespace: str
    urls: Mapping[str, str]
    drills: Mapping[str, DrillCommands]


def read(path: Path) -> DrillTarget:
    """Read a target file.

    Raises:
        ConfigError: if it cannot be read, has mistakes, or is not marked as drillable.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Problem("--target", str(path), str(error.strerror))]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("--target", str(path), f"write TOML: {error}")]) from None
    problems = list(_problems(document))
    if problems:
        raise ConfigError(problems)
    drills = {
        name: DrillCommands(str(entry["provoke"]), str(entry["mend"]))
        for name, entry in document.get("drills", {}).items()
    }
    return DrillTarget(
        name=str(document["name"]),
        is_production=document.get("profile", "production") == "production",
        compress=float(document.get("compress", 1)),
        **{name: str(document.get(name, "")) for name in _TEXTS},
        urls=document["urls"],
        drills=drills,
    )


def _problems(document: Mapping[str, Any]) -> Sequence[Problem]:
    found = [
        Problem(key, "unknown", f"use {', '.join(_KEYS)}") for key in document if key not in _KEYS
    ]
    if not document.get("name"):
        found.append(Problem("name", "missing", "give the target a name"))
    if document.get("drillable") is not True:
        reason = "write drillable = true if faults may be injected into this cluster"
        found.append(Problem("drillable", str(document.get("drillable", "missing")), reason))
    if document.get("profile", "production") not in ("production", "compressed"):
        found.append(Problem("profile", str(document["profile"]), "production or compressed"))
    found += [
        Problem(name, str(document[name]), "give a text")
        for name in _TEXTS
        if not isinstance(document.get(name, ""), str)
    ]
    token_file = document.get("token_file")
    if isinstance(token_file, str) and token_file and not Path(token_file).is_file():
        found.append(Problem("token_file", token_file, "give a file with a connection token"))
    compress = document.get("compress", 1)
    if isinstance(compress, bool) or not isinstance(compress, int | float) or compress < 1:
        found.append(Problem("compress", str(compress), "give a number of 1 or more"))
    urls = document.get("urls", {})
    found += [
        Problem(f"urls.{name}", str(urls.get(name, "missing")), "give its address")
        for name in _URLS
        if not _is_url(urls.get(name), ("ws", "wss") if name == "websocket" else ("http", "https"))
    ]
    for name, entry in document.get("drills", {}).items():
        if not isinstance(entry, dict) or set(entry) != {"provoke", "mend"}:
            found.append(
                Problem(f"drills.{name}", str(entry), "give provoke and mend, two commands")
            )
    return found


def _is_url(text: object, schemes: Sequence[str]) -> bool:
    parts = urlsplit(text) if isinstance(text, str) else None
    return parts is not None and parts.scheme in schemes and bool(parts.hostname)


class TargetEnvironment(MonitoredCluster):
    """A running cluster; nothing of it is started or ended by us.

    Args:
        folder: for the load's logs and ledgers.
    """

    def __init__(self, target: DrillTarget, *, folder: Path, undo_log: UndoLog) -> None:
        super().__init__(target.name, folder=folder, compress=target.compress, undo_log=undo_log)
        self.target = target
        self.monitoring_dir = Path(target.data_dir or folder / "nowhere")
        if target.token_file:
            self.load_options += ("--token-file", str(Path(target.token_file).absolute()))
        if target.namespace:
            self.load_options += ("--namespace", target.namespace)

    def start(self) -> None:
        """Check that its services answer.

        Raises:
            NotAnswering: if Prometheus, Alertmanager or the receiver does not answer.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prometheus.rules()
        self.alertmanager.alerts()
        self.receiver.get("/received")

    def close(self) -> None:
        """Do nothing: the drill did not start it."""

    @property
    def addresses(self) -> Addresses:
        """Its URLs."""
        urls = self.target.urls
        return Addresses(**{name: urls[name] for name in _URLS}, node_exporter="")


def for_target(
    drills: Sequence[Drill], target: DrillTarget, names: Mapping[str, str]
) -> list[Drill]:
    """The drills with the commands of the target.

    Args:
        names: of the drills' files, by the names of the drills.

    Raises:
        ConfigError: a drill needs commands and the file has none.
    """
    found = []
    problems = [
        Problem(f"drills.{name}", "unknown", "`ws-cluster drill --list` shows all: as file names")
        for name in target.drills
        if name not in names.values()
    ]
    for drill in drills:
        name = names[drill.name]
        commands = target.drills.get(name)
        if drill.compress_at_most < target.compress:
            reason = f"{drill.name} needs a compress of at most {drill.compress_at_most:g}"
            problems.append(Problem("compress", f"{target.compress:g}", reason))
        elif commands is not None:
            found.append(_with_commands(drill, commands))
        elif drill.is_by_load:
            found.append(drill)
        else:
            reason = f"{drill.name} needs commands that inject and undo this fault: {drill.breaks}"
            problems.append(Problem(f"drills.{name}", "missing", reason))
    if problems:
        raise ConfigError(problems)
    if not target.data_dir:
        # The incident store, which shows the acknowledgement, cannot be read.
        return [dataclasses.replace(drill, is_acknowledged=False) for drill in found]
    return found


def _with_commands(drill: Drill, commands: DrillCommands) -> Drill:
    def provoke(injector: FaultInjector) -> None:
        injector.note(undo.run(["/bin/sh", "-c", commands.mend]))
        done = subprocess.run(
            ["/bin/sh", "-c", commands.provoke],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
            start_new_session=True,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-_LAST_WORDS:]
            shown = shlex.quote(commands.provoke)
            raise CannotProvoke(f"{shown} ended with {done.returncode}: {said}")

    return dataclasses.replace(
        drill,
        breaks=f"{drill.breaks}, by: {commands.provoke}",
        undo=f"by: {commands.mend}",
        provoke=provoke,
        prepare=None,
        below=None,
    )
