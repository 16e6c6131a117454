"""Renders variants of docker/: for one machine, for compressed time, with other addresses.

Rules
- docker/ is the only copy that is written by hand; a variant is rendered again and never edited.
- Compressed time divides every duration: ranges, subqueries, offsets, `for`, waits, repeats and every
  number before the comment `# seconds`. Thresholds stay as they are. Prometheus scrapes and evaluates
  faster by the same factor, but at most once a second.
- What a profile does not set stays as it is in docker/.
- A malformed file, or a compression under which a range would hold too few samples to have a rate,
  is a `ConfigError`: one sentence, exit code 78.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cluster import durations
from cluster.durations import PROMETHEUS_DURATION
from cluster.errors import ConfigError, Problem

RUNBOOKS: Final = "docs/runbooks"
PROMETHEUS_FILE: Final = "prometheus.yml"
RULES_FILE: Final = "alert_rules.yml"
ALERTMANAGER_FILE: Final = "alertmanager.yml"
TARGETS_FILE: Final = "targets/websocket-app.json"
TEMPLATES: Final = "templates"
APP_JOB: Final = "websocket-app"
# Exporters that only the containers have; a cluster that is not in containers is scraped without them.
_CONTAINER_JOBS: Final = frozenset({"nginx", "redis"})
_LOAD_JOB: Final = "load"

_LEAST_SAMPLES: Final = 4
_LEAST_INTERVAL_SECONDS: Final = 1.0
_SCRAPE_TIMEOUT_SECONDS: Final = 10.0
_NOTE: Final = "# Rendered from docker/{name}: change that and render again.\n"

_DURATION: Final = re.compile(rf"{PROMETHEUS_DURATION}|0")
_EXPRESSION: Final = re.compile(
    rf"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
      | (?P<seconds>\b\d+(?:\.\d+)?)(?P<mark>[ \t]*\#[ \t]*seconds\b[^\n]*)
      | (?P<comment>\#[^\n]*)
      | (?P<duration>\b{PROMETHEUS_DURATION}\b)""",
    re.VERBOSE,
)
_RANGE: Final = re.compile(rf"\[\s*({PROMETHEUS_DURATION})\s*\]")
_RULE_TIMES: Final = ("for", "keep_firing_for")
_WAITS: Final = ("group_wait", "group_interval", "repeat_interval", "resolve_timeout")


@dataclass(frozen=True, slots=True)
class Profile:
    """The differences between a variant and docker/; an empty value means no difference.

    Attributes:
        compress: how many times faster time passes.
        runbook_base_url: replaces docs/runbooks in every runbook_url.
        websocket_apps: `host:port` of the admin ports, discovered by a file instead of DNS; the jobs
            of exporters that only containers have are left out.
        prometheus: `host:port` at which Prometheus scrapes itself.
        alertmanager: `host:port` to which alerts are sent, and which is scraped.
        node_exporter: `host:port`.
        tracker: `host:port` of the metrics of the incident tracker.
        load_tests: `host:port` of load tests and drills; with `websocket_apps` and without these, the job
            is left out.
        secrets_dir: the folder of the secret files; their names stay.
        pagerduty_url: the address of the Events API.
        dead_mans_switch_url: the address to which the Watchdog is sent.
        swarm: the replicas and the machines are found as tasks of Swarm's services.
    """

    compress: float = 1.0
    runbook_base_url: str = RUNBOOKS
    websocket_apps: tuple[str, ...] = ()
    prometheus: str = ""
    alertmanager: str = ""
    node_exporter: str = ""
    tracker: str = ""
    load_tests: tuple[str, ...] = ()
    secrets_dir: Path | None = None
    pagerduty_url: str = ""
    dead_mans_switch_url: str = ""
    swarm: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """The files written, and the flags with which to start Prometheus.

    Attributes:
        targets: the file in which Prometheus finds the admin ports; None if it uses DNS.
        prometheus_flags: flags that are durations, in compressed time.
    """

    directory: Path
    prometheus: Path
    alert_rules: Path
    alertmanager: Path
    targets: Path | None
    secret_files: tuple[Path, ...]
    prometheus_flags: tuple[str, ...]


def render(source_dir: Path, target_dir: Path, *, profile: Profile) -> Rendered:
    """Write a variant of the files of `source_dir` into `target_dir`.

    Raises:
        ConfigError: a file is missing or malformed, or the profile is not possible.
    """
    if profile.compress < 1:
        raise _wrong("compress", str(profile.compress), "give 1 or more")
    documents = {
        name: _read(source_dir / name) for name in (PROMETHEUS_FILE, RULES_FILE, ALERTMANAGER_FILE)
    }
    prometheus = _prometheus(documents[PROMETHEUS_FILE], profile)
    further = _further_rules(prometheus, source_dir)
    rules = _rules(documents[RULES_FILE], profile)
    _check_ranges(rules, seconds(prometheus["global"]["scrape_interval"]), profile)
    alertmanager = _alertmanager(documents[ALERTMANAGER_FILE], profile)
    target_dir.mkdir(parents=True, exist_ok=True)
    _write(target_dir / PROMETHEUS_FILE, prometheus)
    _write(target_dir / RULES_FILE, rules)
    _write(target_dir / ALERTMANAGER_FILE, alertmanager)
    for name in further:
        # They hold constants and no duration.
        (target_dir / name).write_bytes((source_dir / name).read_bytes())
    (target_dir / TEMPLATES).mkdir(exist_ok=True)
    for template in sorted((source_dir / TEMPLATES).glob("*.tmpl")):
        (target_dir / TEMPLATES / template.name).write_bytes(template.read_bytes())
    return Rendered(
        directory=target_dir,
        prometheus=target_dir / PROMETHEUS_FILE,
        alert_rules=target_dir / RULES_FILE,
        alertmanager=target_dir / ALERTMANAGER_FILE,
        targets=_write_targets(target_dir / TARGETS_FILE, profile.websocket_apps),
        secret_files=tuple(path for _, path in _secrets(alertmanager, target_dir)),
        prometheus_flags=_flags(profile.compress),
    )


def _further_rules(prometheus: dict[str, Any], source_dir: Path) -> list[str]:
    """The other rule files that exist; those that do not are left out of the variant."""
    named = prometheus.get("rule_files") or []
    found = [one for one in named if one != RULES_FILE and (source_dir / one).is_file()]
    prometheus["rule_files"] = [one for one in named if one == RULES_FILE or one in found]
    return found


def preflight(directory: Path) -> list[str]:
    """What is wrong with the secret files that alertmanager.yml in `directory` names.

    Returns:
        One sentence per file with a mistake. `amtool check-config` does not read these files.

    Raises:
        ConfigError: alertmanager.yml is missing or malformed.
    """
    found: dict[Path, str] = {}
    for key, path in _secrets(_read(directory / ALERTMANAGER_FILE), directory):
        found.setdefault(path, key)
    return [
        f"{key} names {path}, which {why}: write the secret into it, one line, nothing else"
        for path, key in found.items()
        if (why := _fault_of_secret(path, is_url=key.endswith("url_file")))
    ]


# --- durations ---------------------------------------------------------------------------


def seconds(duration: str) -> float:
    """The seconds of a duration as it is in Prometheus's files, such as `1m30s`.

    Raises:
        ConfigError: if it is not one; fractions and numbers without a unit are none there.
    """
    if not _DURATION.fullmatch(duration):
        raise _wrong("duration", repr(duration), "write it like 30s, 5m or 1h30m")
    return durations.seconds_of(duration)


def duration_text(length_seconds: float) -> str:
    """Seconds as a duration in whole milliseconds, at least one unless it is 0."""
    milliseconds = round(length_seconds * 1000)
    if length_seconds > 0 and milliseconds == 0:
        milliseconds = 1
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def compressed(expression: str, compress: float) -> str:
    """A PromQL expression in which every duration is divided by `compress`."""

    def scaled(found: re.Match[str]) -> str:
        if found["duration"]:
            return _scaled(found["duration"], compress)
        if found["seconds"]:
            return f"{float(found['seconds']) / compress:.10g}{found['mark']}"
        return found[0]

    return expression if compress == 1 else _EXPRESSION.sub(scaled, expression)


def _scaled(duration: str, compress: float) -> str:
    return duration if compress == 1 else duration_text(seconds(duration) / compress)


def _interval(duration: str, compress: float) -> str:
    """A compressed interval, not shorter than a second unless the original is."""
    least = min(_LEAST_INTERVAL_SECONDS, seconds(duration))
    return duration_text(max(least, seconds(duration) / compress))


def _flags(compress: float) -> tuple[str, ...]:
    if compress == 1:
        return ()
    defaults = {"query.lookback-delta": 300.0, "rules.alert.resend-delay": 60.0}
    return tuple(
        f"--{name}={duration_text(max(2.0, value / compress))}" for name, value in defaults.items()
    )


# --- the three files ---------------------------------------------------------------------


def _rules(document: dict[str, Any], profile: Profile) -> dict[str, Any]:
    for rule in _rules_of(document):
        rule["expr"] = compressed(str(rule["expr"]), profile.compress)
        for key in _RULE_TIMES:
            if key in rule:
                rule[key] = _scaled(str(rule[key]), profile.compress)
        notes = rule.get("annotations", {})
        if "runbook_url" in notes:
            notes["runbook_url"] = _runbook(notes["runbook_url"], profile.runbook_base_url)
    for group in document["groups"]:
        if "interval" in group:
            group["interval"] = _interval(group["interval"], profile.compress)
    return document


def _rules_of(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    with _WellFormed(RULES_FILE, "promtool check rules"):
        for group in document["groups"]:
            for rule in group["rules"]:
                _ = rule["expr"]
                yield rule


def _runbook(url: str, base: str) -> str:
    return base.rstrip("/") + url.removeprefix(RUNBOOKS) if url.startswith(RUNBOOKS) else url


def _check_ranges(rules: Mapping[str, Any], scrape_seconds: float, profile: Profile) -> None:
    ranges = {
        seconds(text)
        for rule in _rules_of(rules)
        for text in _RANGE.findall(_EXPRESSION.sub(_without_text, rule["expr"]))
    }
    shortest = min(ranges, default=float("inf"))
    if shortest < _LEAST_SAMPLES * scrape_seconds:
        most = profile.compress * shortest / (_LEAST_SAMPLES * scrape_seconds)
        raise _wrong(
            "compress",
            f"{profile.compress:g}",
            f"the shortest range would hold fewer than {_LEAST_SAMPLES} samples; give at most"
            f" {most:g}",
        )


def _without_text(found: re.Match[str]) -> str:
    return found[0] if found["duration"] else ""


def _prometheus(document: dict[str, Any], profile: Profile) -> dict[str, Any]:
    with _WellFormed(PROMETHEUS_FILE, "promtool check config"):
        pace = document["global"]
        for key in ("scrape_interval", "evaluation_interval"):
            pace[key] = _interval(pace[key], profile.compress)
        pace["scrape_timeout"] = duration_text(
            min(_SCRAPE_TIMEOUT_SECONDS, seconds(pace["scrape_interval"]))
        )
        jobs = {job["job_name"]: job for job in document["scrape_configs"]}
        for job in jobs.values():
            for discovery in job.get("dns_sd_configs", ()):
                discovery["refresh_interval"] = _interval(
                    discovery["refresh_interval"], profile.compress
                )
        _aim(jobs["prometheus"], profile.prometheus)
        _aim(jobs["alertmanager"], profile.alertmanager)
        _aim(jobs["node"], profile.node_exporter)
        _aim(jobs["tracker"], profile.tracker)
        _aim(document["alerting"]["alertmanagers"][0], profile.alertmanager)
        if profile.swarm:
            _find_tasks(jobs)
        if profile.websocket_apps:
            app = jobs[APP_JOB]
            del app["dns_sd_configs"]
            app["file_sd_configs"] = [{"files": [TARGETS_FILE]}]
            del jobs[_LOAD_JOB]["dns_sd_configs"]
            jobs[_LOAD_JOB]["static_configs"] = [{"targets": [*profile.load_tests]}]
            left_out = _CONTAINER_JOBS if profile.load_tests else _CONTAINER_JOBS | {_LOAD_JOB}
            document["scrape_configs"] = [job for name, job in jobs.items() if name not in left_out]
    return document


def _find_tasks(jobs: Mapping[str, dict[str, Any]]) -> None:
    """Swarm's DNS has every task of a service, wherever it runs, as tasks.NAME."""
    [app] = jobs[APP_JOB]["dns_sd_configs"]
    app["names"] = [f"tasks.{name}" for name in app["names"]]
    [machine] = jobs["node"].pop("static_configs")[0]["targets"]
    name, _, port = machine.partition(":")
    jobs["node"]["dns_sd_configs"] = [{**app, "names": [f"tasks.{name}"], "port": int(port)}]


def _aim(job: dict[str, Any], address: str) -> None:
    if address:
        job["static_configs"] = [{"targets": [address]}]


def _alertmanager(document: dict[str, Any], profile: Profile) -> dict[str, Any]:
    def change(holder: dict[str, Any], key: str, value: str) -> None:
        if key in _WAITS:
            holder[key] = _scaled(value, profile.compress)
        elif key.endswith("_file") and profile.secrets_dir is not None:
            holder[key] = str(profile.secrets_dir / Path(value).name)

    with _WellFormed(ALERTMANAGER_FILE, "amtool check-config"):
        _each_text(document, change)
        if profile.pagerduty_url:
            document["global"]["pagerduty_url"] = profile.pagerduty_url
        if profile.dead_mans_switch_url:
            receivers = {receiver["name"]: receiver for receiver in document["receivers"]}
            switch = receivers["dead-mans-switch"]["webhook_configs"][0]
            switch["url"] = profile.dead_mans_switch_url
    return document


def _each_text(node: Any, visit: Callable[[dict[str, Any], str, str], None]) -> None:
    """Call `visit(holder, key, text)` for every text in the document."""
    if isinstance(node, list):
        for item in node:
            _each_text(item, visit)
    elif isinstance(node, dict):
        for key, value in list(node.items()):
            if isinstance(value, str):
                visit(node, key, value)
            else:
                _each_text(value, visit)


def _secrets(alertmanager: Mapping[str, Any], directory: Path) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []

    def collect(_: dict[str, Any], key: str, value: str) -> None:
        if key.endswith("_file"):
            found.append((key, directory / value))

    _each_text(alertmanager, collect)
    return found


def _fault_of_secret(path: Path, *, is_url: bool) -> str:
    if not path.exists():
        return "does not exist"
    if not path.is_file():
        return "is not a file"
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return "cannot be read as text"
    if not secret:
        return "is empty"
    if len(secret.splitlines()) > 1:
        return "holds more than one line"
    if is_url and not secret.startswith(("https://", "http://")):
        return "holds no http or https address"
    return ""


# --- reading and writing -----------------------------------------------------------------


class _WellFormed:
    """Turns the exceptions of a malformed document into one sentence."""

    def __init__(self, name: str, checker: str) -> None:
        self._name = name
        self._checker = checker

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | IndexError | TypeError | AttributeError):
            raise _wrong(
                self._name, "its form", f"run `{self._checker}` to see what is wrong"
            ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(str(path), "a file that cannot be read", str(error.strerror)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}" if where else "its content"
        raise _wrong(str(path), line, "write valid YAML") from None
    if not isinstance(document, dict):
        raise _wrong(str(path), "its content", "write a YAML mapping")
    return document


class _Dumper(yaml.SafeDumper):
    """Writes multi-line text as a block, so that a rendered rule is readable."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    body = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    path.write_text(_NOTE.format(name=path.name) + body, encoding="utf-8")


def _write_targets(path: Path, addresses: tuple[str, ...]) -> Path | None:
    if not addresses:
        return None
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([{"targets": list(addresses)}]) + "\n", encoding="utf-8")
    return path


def _wrong(key: str, value: str, allowed: str) -> ConfigError:
    return ConfigError([Problem(key, value, allowed)])
