"""The command lines of `ws-cluster monitor` and `ws-cluster monitoring`.

Rule: this module imports nothing slow, so that --help is quick; each command imports its own module when
it runs.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NoReturn

_EPILOG: Final = (
    "exit codes: 0 done, 1 what was named does not exist, 3 a service did not answer or an argument"
    " cannot be understood; check-alerts: 0 nothing fires, 1 warning, 2 critical, 3 unknown"
)
_UP_EPILOG: Final = (
    "exit codes: 0 clean, 3 a process cannot start, 69 a program is missing, 78 bad configuration"
)
_USAGE_EXIT: Final = 3
_INTERRUPTED_EXIT: Final = 130

Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse names this type nowhere else


class _Parser(argparse.ArgumentParser):
    """A parser that ends with 3 on a mistake: 2 would say that a critical alert fires."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and refuse arguments that are left over here instead of in the parser above."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(_USAGE_EXIT, f"{self.prog}: {message}\n")


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    monitor = commands.add_parser(
        "monitor",
        help="alerts, acknowledgements, incidents and logs: the operator's commands",
        description="Show the state of Prometheus, Alertmanager and the incidents; act on alerts.",
        epilog=_EPILOG,
    )
    # add_parser gave it the program's class, whose mistakes end with 2.
    monitor.__class__ = _Parser
    below = monitor.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )
    _add_status_commands(below)
    _add_silence_commands(below)
    _add_history_and_logs(below)
    _add_keep(below)
    monitoring = commands.add_parser(
        "monitoring",
        help="run Prometheus, Alertmanager and node_exporter beside a cluster",
        description="Run Prometheus, Alertmanager, node_exporter, the incident tracker and a stand-in"
        " for Slack and PagerDuty on this machine.",
        epilog=_UP_EPILOG,
    )
    stack = monitoring.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_up(stack)
    _add_receive(stack)
    _add_render(stack)


def _run(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        code = 0
        try:
            code = int(getattr(import_module(f"cluster.monitor.{module}"), name)(arguments))
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader of our output has closed it; the interpreter must not flush it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        except KeyboardInterrupt:
            return _INTERRUPTED_EXIT
        except sqlite3.Error as error:
            sys.stderr.write(f"ws-cluster: the incident store cannot be used: {error}\n")
            return _USAGE_EXIT
        return code

    return run


def _command(
    commands: Commands[_Parser], name: str, module: str, text: str, *, more: str = ""
) -> _Parser:
    parser = commands.add_parser(name, help=text, description=more or None, epilog=_EPILOG)
    parser.set_defaults(run=_run(module, name.replace("-", "_")))
    add = parser.add_argument
    add("--prometheus-url", metavar="URL", help="default: that of `monitoring up`, or :9090")
    add("--alertmanager-url", metavar="URL", help="default: that of `monitoring up`, or :9093")
    add("--data-dir", metavar="DIR", help="data directory of `monitoring up`")
    return parser


def _add_status_commands(commands: Commands[_Parser]) -> None:
    status = _command(
        commands, "status", "commands.status", "the cluster and its alerts on one screen"
    )
    status.add_argument("--admin-url", metavar="URL", help="admin port of a cluster, default :8001")
    check = _command(
        commands,
        "check-alerts",
        "commands.status",
        "the alerts that fire, as text and as exit code",
    )
    check.add_argument("--json", action="store_true", help="print one JSON document")
    alerts = _command(
        commands,
        "alerts",
        "commands.status",
        "open Alertmanager in a browser, or print its address",
    )
    alerts.add_argument(
        "--print", action="store_true", dest="prints", help="only print its address"
    )
    rules = _command(
        commands, "rules", "commands.status", "every rule: state, health, last evaluation"
    )
    rules.add_argument(
        "alert", nargs="?", metavar="ALERT", help="only this one, with its expression"
    )
    _command(
        commands, "targets", "commands.status", "what Prometheus scrapes, and with which result"
    )
    runbook = _command(commands, "runbook", "commands.status", "the runbook of an alert")
    runbook.add_argument("alert", metavar="ALERT", help="name of the alert")
    runbook.add_argument("--url", action="store_true", help="only print its address")


def _add_silence_commands(commands: Commands[_Parser]) -> None:
    ack = _command(
        commands,
        "ack",
        "commands.silence",
        "acknowledge an alert: say that you work on it",
        more="Silence the alerts of this name that fire, with author and note; the tracker acknowledges"
        " PagerDuty's incident, and resolves it when the condition ends.",
    )
    ack.add_argument("alert", metavar="ALERT", help="name of the alert")
    _add_note(ack)
    _add_duration(ack)
    _add_author(ack)
    ack.add_argument(
        "--match",
        action="append",
        default=[],
        metavar="MATCHER",
        help="only alerts with this label: instance=…",
    )
    resolve = _command(
        commands,
        "resolve",
        "commands.silence",
        "close an incident by hand",
        more="Close the incidents of an alert in the store and at PagerDuty; warns if the condition"
        " still holds.",
    )
    resolve.add_argument("alert", metavar="ALERT", help="name of the alert")
    _add_note(resolve)
    _add_author(resolve)
    silence = _command(
        commands,
        "silence",
        "commands.silence",
        "suppress notifications for a while; without matchers, list the silences",
    )
    silence.add_argument(
        "matchers", nargs="*", metavar="MATCHER", help="an alert's name, name=value, name=~regex, …"
    )
    silence.add_argument("--note", metavar="TEXT", help="why; required for a new silence")
    _add_duration(silence)
    _add_author(silence)
    unsilence = _command(commands, "unsilence", "commands.silence", "end silences")
    unsilence.add_argument(
        "what", nargs="+", metavar="ID|MATCHER", help="a silence's id, or its matchers"
    )


def _add_note(parser: _Parser) -> None:
    parser.add_argument("--note", required=True, metavar="TEXT", help="what the team should know")


def _add_duration(parser: _Parser) -> None:
    parser.add_argument(
        "--for",
        dest="duration",
        default="2h",
        metavar="DURATION",
        help="90s, 30m, 2h (default), 7d",
    )


def _add_author(parser: _Parser) -> None:
    parser.add_argument("--author", metavar="NAME", help="default: the user who runs this")


def _add_history_and_logs(commands: Commands[_Parser]) -> None:
    history = _command(
        commands,
        "history",
        "commands.history",
        "incidents from the store, and rates for the reviews",
    )
    add = history.add_argument
    add("--since", default="7d", metavar="DURATION", help="how far back (default 7d)")
    add("--alert", metavar="ALERT", help="only this one")
    add("--rates", action="store_true", help="one line per alert: firings, times, false positives")
    add("--json", action="store_true", help="print one JSON document")
    add("--false-positive", type=int, metavar="ID", help="mark an incident as a false positive")
    add("--true-positive", type=int, metavar="ID", help="remove that mark")
    add("--pending", action="store_true", help="also alerts that were pending and never fired")
    logs = _command(
        commands,
        "logs",
        "commands.logs",
        "log lines and alerts in order of time",
        more="SERVICE is app, nginx, prometheus, alertmanager, node_exporter, receiver, tracker or"
        " all.",
    )
    add = logs.add_argument
    add("service", metavar="SERVICE", help="the service whose log to read")
    add("-f", "--follow", action="store_true", help="go on with new lines")
    add("--grep", metavar="REGEX", help="only lines that match")
    add("--since", metavar="DURATION", help="how far back (default: the last 50 lines)")
    add("--file", metavar="FILE", help="read this file instead of the service's own")
    add("--cluster-dir", metavar="DIR", help="data directory of `ws-cluster up`, for app and nginx")
    add("--no-alerts", action="store_false", dest="alerts", help="log lines only")


def _add_keep(commands: Commands[_Parser]) -> None:
    keep = _command(
        commands,
        "keep",
        "commands.daemons",
        "run the incident tracker; `monitoring up` does it",
        more="Watch Prometheus and Alertmanager, record incidents, resolve PagerDuty's for acknowledged"
        " alerts, and repeat notifications that are not acknowledged.",
    )
    add = keep.add_argument
    _add_response_times(add)
    add("--poll", default="5s", metavar="DURATION", help="how often to ask both (default 5s)")
    add("--compress", type=float, default=1.0, metavar="N", help="time passes N times faster")
    add("--pagerduty-url", metavar="URL", help="Events API v2, if not PagerDuty's own")
    _add_stand_in(add)
    add("--pagerduty-key-file", default="", metavar="FILE", help="file with the routing key")
    add(
        "--change-key-file",
        default="",
        metavar="FILE",
        help="file with the routing key of change events",
    )
    add("--slack-url-file", default="", metavar="FILE", help="file with the webhook's address")
    add("--once", action="store_true", help="ask once and end")
    add("--metrics-host", default="127.0.0.1", metavar="ADDR", help="default 127.0.0.1")
    add(
        "--metrics-port",
        type=int,
        default=0,
        metavar="PORT",
        help="serve incidents, response times and false positives as metrics there (default: nowhere)",
    )


def _add_response_times(add: Callable[..., Any]) -> None:
    add("--critical-after", default="5m", metavar="DURATION", help="repeat a critical (default 5m)")
    add("--warning-after", default="30m", metavar="DURATION", help="repeat a warning (default 30m)")


def _add_stand_in(add: Callable[..., Any]) -> None:
    add(
        "--stand-in",
        default="",
        metavar="URL",
        help="address of `monitoring receive`: if Slack's address begins with it, PagerDuty's events go"
        " there too",
    )


def _add_up(commands: Commands[argparse.ArgumentParser]) -> None:
    up = commands.add_parser(
        "up", help="run the monitoring stack in the foreground", epilog=_UP_EPILOG
    )
    up.set_defaults(run=_run("commands.daemons", "up"))
    add = up.add_argument
    add("--host", default="127.0.0.1", metavar="ADDR", help="address to listen on (127.0.0.1)")
    _add_ports(add)
    add("--no-node-exporter", action="store_false", dest="node_exporter", help="do not run it")
    _add_targets(add)
    add("--data-dir", metavar="DIR", help="data directory (default: beside the cluster's)")
    add(
        "--rules-dir",
        metavar="DIR",
        help="rules and configuration (default: the project's docker/)",
    )
    add(
        "--secrets-dir",
        metavar="DIR",
        help="folder with slack_api_url, pagerduty_routing_key and, if wanted, pagerduty_change_key:"
        " notify Slack and PagerDuty instead of the stand-in",
    )
    add(
        "--runbook-base-url",
        default="",
        metavar="URL",
        help="base address of runbooks (default: /runbooks at the first admin port)",
    )
    add(
        "--dead-mans-switch-url",
        default="",
        metavar="URL",
        help="where the Watchdog is sent (default: the stand-in, which cannot raise an alarm when"
        " this machine is down)",
    )
    _add_response_times(add)
    add(
        "--user",
        default="nobody",
        metavar="NAME",
        help="user to become if started by root; root stays",
    )
    add("--root", default="/", metavar="DIR", help="root directory for node_exporter")
    add(
        "--compress",
        type=float,
        default=1.0,
        metavar="N",
        help="time passes N times faster: drills",
    )


def _add_ports(add: Callable[..., Any]) -> None:
    add("--prometheus-port", type=int, default=9090, metavar="PORT", help="default 9090")
    add("--alertmanager-port", type=int, default=9093, metavar="PORT", help="default 9093")
    add("--node-exporter-port", type=int, default=9100, metavar="PORT", help="default 9100")
    add(
        "--receiver-port", type=int, default=9099, metavar="PORT", help="the stand-in; default 9099"
    )
    add(
        "--tracker-port",
        type=int,
        default=9098,
        metavar="PORT",
        help="metrics of the incident tracker; default 9098",
    )


def _add_targets(add: Callable[..., Any]) -> None:
    add(
        "--app",
        action="append",
        dest="apps",
        metavar="HOST:PORT",
        help="admin port to scrape (default 127.0.0.1:8001); may be repeated",
    )
    add(
        "--load-test",
        action="append",
        dest="load_tests",
        metavar="HOST:PORT",
        help="--metrics-listen of a load test or of drills to scrape; may be repeated",
    )


def _add_render(commands: Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "render", help="write the configuration of Prometheus and Alertmanager for containers"
    )
    command.set_defaults(run=_run("commands.container_config", "write"))
    add = command.add_argument
    add("folder", metavar="FOLDER", help="folder to write into")
    add("--secrets-dir", default="/run/secrets", metavar="DIR", help="folder of the secret files")
    _add_stand_in(add)
    add("--runbook-base-url", default="docs/runbooks", metavar="URL", help="address of runbooks")
    add("--dead-mans-switch-url", default="", metavar="URL", help="where the Watchdog is sent")
    add(
        "--swarm",
        action="store_true",
        help="Prometheus finds replicas and machines as tasks of Swarm's services",
    )
    add("--compress", type=float, default=1.0, metavar="N", help="time passes N times faster")


def _add_receive(commands: Commands[argparse.ArgumentParser]) -> None:
    receive = commands.add_parser("receive", help="run only the stand-in for Slack and PagerDuty")
    receive.set_defaults(run=_run("commands.daemons", "receive"))
    add = receive.add_argument
    add("--host", default="127.0.0.1", metavar="ADDR", help="default 127.0.0.1")
    add("--port", type=int, default=9099, metavar="PORT", help="default 9099")
    add("--file", metavar="FILE", help="also write notifications to this file")
    add(
        "--heartbeat",
        default="5m",
        metavar="DURATION",
        help="raise the alarm if Watchdog is silent for longer (default 5m)",
    )
