"""The commands that run until a signal ends them: the tracker, the stack, the receiver."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from cluster import durations, log
from cluster.config import LogConfig
from cluster.errors import BootFailed, ConfigError, Problem
from cluster.given_path import absolute_path
from cluster.monitor import endpoints
from cluster.monitor.endpoints import Endpoints

_LEAST_POLL_SECONDS = 0.2


def keep(arguments: Namespace) -> int:
    """`monitor keep`."""
    from cluster.alerting.alertmanager import Alertmanager
    from cluster.alerting.prometheus import Prometheus
    from cluster.monitor.incidents.notifications import PAGERDUTY_URL, NotificationSender
    from cluster.monitor.incidents.store import TARGET_FACT, IncidentStore
    from cluster.monitor.incidents.tracker import IncidentTracker, NotificationPolicy
    from cluster.monitor.signals import stop_flag

    compress = _compression(arguments)

    def compressed(name: str) -> float:
        return _seconds(f"--{name}", getattr(arguments, name.replace("-", "_"))) / compress

    policy = NotificationPolicy.of(
        critical=compressed("critical-after"),
        warning=compressed("warning-after"),
        poll=max(_LEAST_POLL_SECONDS, compressed("poll")),
    )
    stand_in = str(arguments.stand_in).rstrip("/")
    is_stand_in = endpoints.uses_stand_in(stand_in, Path(arguments.slack_url_file))
    default_url = f"{stand_in}/v2/enqueue" if is_stand_in else PAGERDUTY_URL
    sender = NotificationSender(
        pagerduty_url=arguments.pagerduty_url or default_url,
        pagerduty_key_file=arguments.pagerduty_key_file,
        change_key_file=arguments.change_key_file,
        slack_url_file=arguments.slack_url_file,
    )
    stop = stop_flag()
    log.configure(LogConfig(), instance="tracker")
    where = Endpoints.of(arguments)
    end_metrics = _serve_metrics(arguments, where.data_dir)
    store = IncidentStore(where.data_dir)
    try:
        for severity, seconds in policy.response_seconds.items():
            with store.change():
                store.set_fact(f"{TARGET_FACT}{severity}", str(seconds * compress))
        tracker = IncidentTracker(
            store,
            Prometheus(where.prometheus),
            Alertmanager(where.alertmanager),
            sender,
            policy,
        )
        if arguments.once:
            tracker.tick()
        else:
            tracker.run(stop)
    finally:
        end_metrics()
        store.close()
    return 0


def up(arguments: Namespace) -> int:
    """`monitoring up`."""
    from cluster.monitor.stack import up
    from cluster.monitor.stack.setup import StackOptions

    def folder(given: str | None, flag: str) -> Path | None:
        return absolute_path(given, flag) if given else None

    apps = tuple(arguments.apps or ("127.0.0.1:8001",))
    for flag, text in (
        ("--critical-after", arguments.critical_after),
        ("--warning-after", arguments.warning_after),
    ):
        _seconds(flag, text)
    options = StackOptions(
        host=arguments.host,
        prometheus_port=arguments.prometheus_port,
        alertmanager_port=arguments.alertmanager_port,
        node_exporter_port=arguments.node_exporter_port,
        receiver_port=arguments.receiver_port,
        tracker_port=arguments.tracker_port,
        apps=apps,
        data_dir=endpoints.data_dir(arguments.data_dir),
        rules_dir=folder(arguments.rules_dir, "--rules-dir"),
        secrets_dir=folder(arguments.secrets_dir, "--secrets-dir"),
        runbook_base_url=arguments.runbook_base_url or f"http://{apps[0]}/runbooks",
        root=arguments.root,
        compress=_compression(arguments),
        critical_after=arguments.critical_after,
        warning_after=arguments.warning_after,
        dead_mans_switch_url=arguments.dead_mans_switch_url,
        with_node_exporter=arguments.node_exporter,
        load_tests=tuple(arguments.load_tests or ()),
        user=arguments.user,
    )
    return up.run(options)


def receive(arguments: Namespace) -> int:
    """`monitoring receive`."""
    from cluster.monitor.stack import receiver

    file = absolute_path(arguments.file, "--file") if arguments.file else None
    heartbeat = _seconds("--heartbeat", arguments.heartbeat)
    log.configure(LogConfig(), instance="receiver")
    try:
        asyncio.run(receiver.serve(arguments.host, arguments.port, file, heartbeat))
    except OSError as error:
        raise BootFailed(
            f"the receiver cannot listen on {arguments.host}:{arguments.port}"
            f" ({error.strerror}): give a free --port"
        ) from None
    return 0


def _serve_metrics(arguments: Namespace, folder: Path) -> Callable[[], None]:
    """Serve the metrics of the incidents; returns what ends it.

    Raises:
        BootFailed: the port is in use.
    """
    from cluster.monitor.incidents import incident_server

    if not arguments.metrics_port:
        return lambda: None
    host, port = arguments.metrics_host, arguments.metrics_port
    try:
        return incident_server.serve(host, port, folder)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BootFailed(
            f"the tracker cannot serve its metrics on {host}:{port} ({why}):"
            " give a free --metrics-port"
        ) from None


def _compression(arguments: Namespace) -> float:
    factor = float(arguments.compress)
    if not 1 <= factor < 1000:
        raise ConfigError([Problem("--compress", f"{factor:g}", "give 1 or more, below 1000")])
    return factor


def _seconds(flag: str, text: str) -> float:
    try:
        return durations.seconds_of(text)
    except ValueError as error:
        raise ConfigError([Problem(flag, text, str(error).partition(": ")[2])]) from None
