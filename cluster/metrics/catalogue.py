"""The table of all metric families: name, kind, help, labels, and the process that exports it.

Rules
- Names have the prefix `app_` and base units; counters end in `_total`.
- Label values are enumerated here, so that every series exists at 0 from the first scrape: a
  counter first seen at 1 has no rate.
- Dashboards and alert rules depend on these names. docs/reference/metrics.md is generated from
  this table, and a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from cluster.errors import CLIENT_ERRORS, DISCONNECTS
from cluster.methods import METHODS

Kind = Literal["counter", "gauge", "histogram"]
Owner = Literal["worker", "supervisor", "tracker"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family.

    Attributes:
        labels: all values of each label; empty if the values are not known in advance (a worker's
            lane, a version).
        mode: multiprocess mode of a worker's gauge: how the values of the lanes are combined.
    """

    name: str
    kind: Kind
    owner: Owner
    help: str
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    mode: str = ""


def base_name(family: Family) -> str:
    """Return the name prometheus-client gives to a family: a counter has no suffix."""
    return family.name.removesuffix("_total") if family.kind == "counter" else family.name


DIRECTIONS: Final = ("in", "out")
INCIDENT_SEVERITIES: Final = ("critical", "warning", "info")
#: Those that must be acknowledged within a time.
RESPONSE_SEVERITIES: Final = ("critical", "warning")
#: `alert_instance` is the label `instance` of the alert; Prometheus sets `instance` to the tracker.
INCIDENT_LABELS: Final[dict[str, tuple[str, ...]]] = {
    "incident": (),
    "alertname": (),
    "severity": (),
    "alert_instance": (),
}
ERROR_TYPES: Final = ("handler", "broker", "store", "presence", "internal", "token_keys")
DROP_REASONS: Final = ("slow", "closed", "broker", "join_leave")
RENEWAL_RESULTS: Final = ("renewed", "restored", "failed")
API_RESULTS: Final = ("ok", "error", "unauthorized", "forbidden")
API_ERROR_CODES: Final = ("100", "102", "104", "107", "108", "112", "113", "other")
CONTROL_RESULTS: Final = (
    "sent", "received", "unknown", "invalid", "unanswered", "lost", "dropped",
)  # fmt: skip
HANDLER_KINDS: Final = (
    "connecting", "refreshing", "subscribing", "sub_refreshing", "publishing", "rpc", "message",
    "disconnecting", "http",
)  # fmt: skip
#: The others are HTTP handlers, which have no time limit.
LIMITED_HANDLER_KINDS: Final = tuple(kind for kind in HANDLER_KINDS if kind != "http")
HANDLER_FAILURES: Final = ("exception", "timeout", "overload")
REJECT_REASONS: Final = (
    "rate_limit",
    "connection_limit",
    "connect_concurrency",
    "file_limit",
    "connection_limit_per_address",
    "connection_rate_limit_per_address",
    "user_connection_limit",
    "origin",
    "draining",
    "not_ready",
    "bad_handshake",
)
#: Why a token is refused: what is wrong with it, with its keys, or with what it asks for.
TOKEN_REFUSALS: Final = (
    "malformed", "signature", "algorithm", "kind", "no_channel", "audience", "issuer", "expired", "not_yet_valid",
    "ended", "foreign", "anonymous", "no_keys", "unknown_key", "keys_unavailable", "revoked",
    "blocked",
)  # fmt: skip
REFRESH_FAILURES: Final = ("connection", "subscription")
KEY_SET_RESULTS: Final = ("read", "failed")
PERMISSION_OPERATIONS: Final = ("subscribe", "publish", "history", "presence")
THROTTLE_REASONS: Final = ("command_rate", "commands", "output")
READ_RESULTS: Final = ("immediate", "queued", "paced", "dropped", "cut")
SUPPRESSION_REASONS: Final = ("idempotency_key", "version")
RECOVERY_RESULTS: Final = ("recovered", "unrecovered")
LOG_OUTPUTS: Final = ("stream", "file")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
RESTART_REASONS: Final = ("crash", "hung", "boot", "roll")
EXIT_OUTCOMES: Final = ("clean", "killed", "crashed")
SHUTDOWN_PHASES: Final = ("clients", "broker", "sessions", "exit")

ADMIN_CONNECTION_REASONS: Final = ("limit", "displaced", "descriptors", "timeout")
ADMIN_REQUEST_REASONS: Final = (
    "key", "key_rate", "no_key", "network", "host", "origin", "viewers", "malformed",
)  # fmt: skip
SUPERVISOR_ERROR_TYPES: Final = ("accept", "collect", "spawn", "background", "http")

DELIVERY_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
#: The others have one series together: there is room for so many in a file of metrics.
API_TIMED_METHODS: Final = ("publish", "broadcast", "batch", "history", "other")
API_BUCKETS: Final = (0.001, 0.01, 0.1, 1.0, 10.0)
LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# One bound is 5 (the threshold of the alert), and some are above the stop grace period.
SHUTDOWN_BUCKETS: Final = (
    0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0,
)  # fmt: skip
STARTUP_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)

_CLOSE_CODES: Final = (*(str(close.code) for close in DISCONNECTS), "other")
_CLIENT_CODES: Final = (
    *(str(error.code) for error in CLIENT_ERRORS if error.code != 100),
    *(str(close.code) for close in DISCONNECTS if close.is_client_fault),
)

WORKER_FAMILIES: Final = (
    Family("app_active_connections", "gauge", "worker", "Open client connections.", mode="livesum"),
    Family("app_subscriptions", "gauge", "worker",
           "Subscriptions of local connections.", mode="livesum"),
    Family("app_channels", "gauge", "worker",
           "Channels with a local subscriber, summed over workers.", mode="livesum"),
    Family("app_presence_entries", "gauge", "worker",
           "Subscriptions of local connections in channels with presence.", mode="livesum"),
    Family("app_presence_renewals_total", "counter", "worker",
           "Presence entries renewed, restored because the store had them no longer, or not renewed because"
           " it failed.", {"result": RENEWAL_RESULTS}),
    Family("app_connections_opened_total", "counter", "worker", "WebSocket handshakes completed."),
    Family("app_connections_closed_total", "counter", "worker",
           "Connections closed, by close code.", {"code": _CLOSE_CODES}),
    Family("app_connections_shed_total", "counter", "worker",
           "Connections closed to balance the workers, with 3011."),
    Family("app_session_channels_left_out_total", "counter", "worker",
           "Channels of sessions that a connect has left out, as the configuration has them no longer."),
    Family("app_messages_total", "counter", "worker",
           "Commands received (in); replies and pushes written, one per recipient (out).",
           {"direction": DIRECTIONS}),
    Family("app_message_bytes_total", "counter", "worker",
           "Bytes of WebSocket payload received and of frames written.", {"direction": DIRECTIONS}),
    Family("app_publications_total", "counter", "worker",
           "Publications accepted by the broker from this service's clients."),
    Family("app_publications_suppressed_total", "counter", "worker",
           "Publications of the server API that were not published: repeated with their idempotency"
           " key, or of a version not above the last one.", {"reason": SUPPRESSION_REASONS}),
    Family("app_errors_total", "counter", "worker", "Faults of the service, not of a client.",
           {"type": ERROR_TYPES}),
    Family("app_client_errors_total", "counter", "worker",
           "Faults of clients, by error or close code.", {"code": _CLIENT_CODES}),
    Family("app_permission_refusals_total", "counter", "worker",
           "Commands refused with 103, permission denied.", {"operation": PERMISSION_OPERATIONS}),
    Family("app_commands_total", "counter", "worker", "Commands received.", {"method": METHODS}),
    Family("app_messages_dropped_total", "counter", "worker",
           "Pushes not delivered: to a slow or closed connection, lost with the broker, or joins and leaves"
           " of a storm.",
           {"reason": DROP_REASONS}),
    Family("app_slow_consumers_total", "counter", "worker",
           "Connections closed because they did not read."),
    Family("app_recoveries_total", "counter", "worker", "Recovery attempts of subscriptions.",
           {"result": RECOVERY_RESULTS}),
    Family("app_stream_reads_total", "counter", "worker",
           "Reads of publications: sent at once, queued, followed by a pause as their client has read "
           "much, dropped as it had gone, cut at their limit of bytes.", {"result": READ_RESULTS}),
    Family("app_connections_rejected_total", "counter", "worker",
           "Upgrades and connects rejected.", {"reason": REJECT_REASONS}),
    Family("app_tokens_refused_total", "counter", "worker",
           "Tokens of connections and subscriptions that were not accepted.",
           {"reason": TOKEN_REFUSALS}),
    Family("app_refresh_failures_total", "counter", "worker",
           "Refreshes that were refused, and expiries for which none came in time.",
           {"kind": REFRESH_FAILURES}),
    Family("app_key_set_reads_total", "counter", "worker",
           "Reads of a JSON Web Key Set.", {"result": KEY_SET_RESULTS}),
    Family("app_api_requests_total", "counter", "worker", "Requests to the server HTTP API.",
           {"result": API_RESULTS}),
    Family("app_api_errors_total", "counter", "worker",
           "Errors in answers of the server HTTP API, those within a batch or broadcast included.",
           {"code": API_ERROR_CODES}),
    Family("app_api_duration_seconds", "histogram", "worker",
           "From a request to the server HTTP API to its answer.",
           {"method": API_TIMED_METHODS}, buckets=API_BUCKETS),
    Family("app_control_messages_total", "counter", "worker",
           "Messages between workers: sent, received, of an unknown kind, not understood, without the"
           " answer of a worker, missed, dropped because too many waited.", {"result": CONTROL_RESULTS}),
    Family("app_throttles_total", "counter", "worker",
           "Times a connection was not read for a while: more commands than client.command_rate_limit,"
           " more commands that wait for an answer than may wait, or output that the client does not read.", {"reason": THROTTLE_REASONS}),
    Family("app_log_events_total", "counter", "worker", "Log events written.",
           {"level": LOG_LEVELS}),
    Family("app_log_lines_dropped_total", "counter", "worker",
           "Log lines dropped because standard output or the log file could not be written.",
           {"output": LOG_OUTPUTS}),
    Family("app_publish_to_delivery_seconds", "histogram", "worker",
           "From a worker accepting a publication to a worker writing it to its subscribers.",
           buckets=DELIVERY_BUCKETS),
    Family("app_event_loop_lag_seconds", "histogram", "worker",
           "Delay of a timer of the event loop.", buckets=LAG_BUCKETS),
    Family("app_command_duration_seconds", "histogram", "worker",
           "From a command's arrival to its reply.", {"method": METHODS},
           buckets=DELIVERY_BUCKETS),
    Family("app_handler_duration_seconds", "histogram", "worker",
           "Time that a handler of the application has taken, its wait for a place included.",
           {"kind": HANDLER_KINDS}, buckets=API_BUCKETS),
    Family("app_handler_failures_total", "counter", "worker",
           "Handlers of the application that raised what is for no client, took too long, or found no "
           "place to wait; each is also an error of the type handler.",
           {"reason": HANDLER_FAILURES}),
    Family("app_slow_handlers_total", "counter", "worker",
           "Handlers of the application that took more than half of their time limit, those that failed"
           " included; for a proxy, more than half of its timeout.",
           {"kind": LIMITED_HANDLER_KINDS}),
    Family("app_broker_up", "gauge", "worker",
           "1 while every connection of the worker to the broker works.", mode="livemin"),
    Family("app_broker_last_message_timestamp_seconds", "gauge", "worker",
           "When the worker that is furthest behind last received its own canary.", mode="livemin"),
)  # fmt: skip

SUPERVISOR_FAMILIES: Final = (
    Family("app_workers_alive", "gauge", "supervisor", "Slots with a worker that is up, ready or not."),
    Family("app_worker_restarts_total", "counter", "supervisor", "Workers restarted.",
           {"reason": RESTART_REASONS}),
    Family("app_worker_exits_total", "counter", "supervisor", "Workers that ended.",
           {"outcome": EXIT_OUTCOMES}),
    Family("app_shutdown_duration_seconds", "histogram", "supervisor",
           "From the stop signal to a worker's exit.", buckets=SHUTDOWN_BUCKETS),
    Family("app_shutdown_phase_duration_seconds", "histogram", "supervisor",
           "Phases of a worker's shutdown.", {"phase": SHUTDOWN_PHASES}, buckets=SHUTDOWN_BUCKETS),
    Family("app_startup_duration_seconds", "histogram", "supervisor",
           "From a worker's start to ready.", buckets=STARTUP_BUCKETS),
    Family("app_sessions_tracked", "gauge", "supervisor",
           "Sessions in the store: the whole cluster's number, take max() over instances."),
    Family("app_sessions_created_total", "counter", "supervisor",
           "Sessions created, cluster-wide, from the store: take max() over instances."),
    Family("app_sessions_resumed_total", "counter", "supervisor",
           "Sessions resumed, cluster-wide, from the store: take max() over instances."),
    Family("app_sessions_expired_total", "counter", "supervisor",
           "Sessions expired, cluster-wide, from the store: take max() over instances."),
    Family("app_memory_working_set_bytes", "gauge", "supervisor",
           "Memory in use that cannot be reclaimed, of the cgroup or else of the machine."),
    Family("app_memory_limit_bytes", "gauge", "supervisor",
           "Memory limit of the cgroup, or else the machine's memory."),
    Family("app_worker_connections", "gauge", "supervisor",
           "Open client connections of a worker.", {"worker": ()}),
    Family("app_connection_capacity", "gauge", "supervisor",
           "Connections that fit, by file limits and client.connection_limit."),
    Family("app_worker_cpu_seconds_total", "counter", "supervisor",
           "CPU time of a worker.", {"worker": ()}),
    Family("app_worker_resident_memory_bytes", "gauge", "supervisor",
           "Resident memory of a worker.", {"worker": ()}),
    Family("app_worker_open_fds", "gauge", "supervisor",
           "Open file descriptors of a worker.", {"worker": ()}),
    Family("app_worker_max_fds", "gauge", "supervisor",
           "File descriptor limit of a worker.", {"worker": ()}),
    Family("app_build_info", "gauge", "supervisor", "1, with the build in its labels.",
           {"version": (), "revision": ()}),
    Family("app_deployment_timestamp_seconds", "gauge", "supervisor",
           "When this version's workers last became ready.", {"version": ()}),
    Family("app_admin_connections_rejected_total", "counter", "supervisor",
           "Connections of the admin port that were closed early.",
           {"reason": ADMIN_CONNECTION_REASONS}),
    Family("app_admin_requests_rejected_total", "counter", "supervisor",
           "Requests to the admin port that were refused.", {"reason": ADMIN_REQUEST_REASONS}),
    Family("app_supervisor_errors_total", "counter", "supervisor",
           "What the supervisor could not do, and tries again.", {"type": SUPERVISOR_ERROR_TYPES}),
    Family("app_metrics_collect_errors_total", "counter", "supervisor",
           "Multiprocess files that could not be read and were renamed."),
    Family("app_metrics_collect_duration_seconds", "gauge", "supervisor",
           "Duration of the last collection."),
    Family("app_metrics_files", "gauge", "supervisor", "Multiprocess files read."),
)  # fmt: skip

#: The last seven days of the incident store, so that a deleted incident is no reset of a counter.
TRACKER_FAMILIES: Final = (
    Family("app_incidents_open", "gauge", "tracker", "Incidents that have fired and not ended.",
           {"severity": INCIDENT_SEVERITIES, "state": ("firing", "acknowledged")}),
    Family("app_incidents_fired", "gauge", "tracker",
           "How often an alert has fired in the last seven days.",
           {"alertname": (), "severity": ()}),
    Family("app_incidents_false_positive", "gauge", "tracker",
           "How many of these were marked as false positives.", {"alertname": (), "severity": ()}),
    Family("app_incidents_answered", "gauge", "tracker",
           "Incidents of the last seven days that were, or were not, acknowledged or resolved within their response time.",
           {"severity": RESPONSE_SEVERITIES, "result": ("in_time", "late")}),
    Family("app_incident_target_seconds", "gauge", "tracker",
           "The response time of a severity.", {"severity": RESPONSE_SEVERITIES}),
    Family("app_incident_fired_timestamp_seconds", "gauge", "tracker",
           "When an incident fired: the last hundred of the last seven days.", INCIDENT_LABELS),
    Family("app_incident_acknowledge_seconds", "gauge", "tracker",
           "From firing to the acknowledgement, of those that were acknowledged.", INCIDENT_LABELS),
    Family("app_incident_resolve_seconds", "gauge", "tracker",
           "From firing to the end, of those that have ended.", INCIDENT_LABELS),
    Family("app_incident_store_readable", "gauge", "tracker",
           "1 if all of this could be read from the incident store; 0 beside nothing else if not."),
    Family("app_tracker_last_tick_timestamp_seconds", "gauge", "tracker",
           "When the tracker last asked Prometheus and Alertmanager, and wrote what changed."),
)  # fmt: skip

FAMILIES: Final = (*WORKER_FAMILIES, *SUPERVISOR_FAMILIES, *TRACKER_FAMILIES)
