"""What users and backends are refused, tokens, and the handlers of the application."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query
from scripts.dashboards.queries import quantile, rate_of, some

_CHECKED = ',method=~"subscribe|publish|history|presence|presence_stats"'
_NO_KEY = ',result=~"unauthorized|forbidden"'


def _share(part: str, whole: str) -> str:
    """A share; 0 where there is nothing of which it could be one."""
    return f"({part}) / clamp_min({whole}, 1e-9)"


_REFUSALS = Panel(
    "refusals",
    "Commands refused",
    "Share of the commands that need a permission that are refused. Above 5 %, and above ten per minute, fires"
    " HighRefusalRate.",
    "percentunit",
    (
        Query(
            _share(
                rate_of("app_permission_refusals_total"),
                rate_of("app_commands_total", "", _CHECKED),
            ),
            "refused",
        ),
    ),
    limits=(0.05,),
)
_REFUSED_OPERATIONS = Panel(
    "refused-operations",
    "Commands refused, by operation",
    "Per minute; HighRefusalRate needs more than ten. Refusals are counted, not logged.",
    "cpm",
    (Query(f"60 * {rate_of('app_permission_refusals_total', 'operation')}", "{{operation}}"),),
    limits=(10,),
)
_TOKENS = Panel(
    "tokens-refused",
    "Tokens that are not accepted",
    "Per minute, by the reason: a key, a clock, or what the token asks for. Above ten it is more than a client or two.",
    "cpm",
    (Query(some(f"60 * {rate_of('app_tokens_refused_total', 'reason')}", "reason"), "{{reason}}"),),
    limits=(10,),
)
_REFRESHES = Panel(
    "refresh-failures",
    "Refreshes that fail or do not come",
    "Per minute; each disconnects a user or ends a subscription. More than ten fire TokenRefreshFailing.",
    "cpm",
    (Query(f"60 * {rate_of('app_refresh_failures_total', 'kind')}", "{{kind}}"),),
    limits=(10,),
)
_API_ERRORS = Panel(
    "api-errors",
    "Errors of the server API",
    "Errors, those within batches included, by requests. Above 5 %, and above ten per minute, fires"
    " HighAPIErrorRate.",
    "percentunit",
    (
        Query(
            _share(
                f"{rate_of('app_api_errors_total')} + {rate_of('app_api_requests_total', '', _NO_KEY)}",
                rate_of("app_api_requests_total"),
            ),
            "of all requests",
        ),
    ),
    limits=(0.05,),
)
_API_REQUESTS = Panel(
    "api-requests",
    "Requests to the server API",
    "By their result; a request without a valid key is unauthorized.",
    "reqps",
    (Query(rate_of("app_api_requests_total", "result"), "{{result}}"),),
)
_API_TIME = Panel(
    "api-time",
    "Time of the server API, p99",
    "From a request to its answer: yellow from 0.25 s on, red from one second.",
    "s",
    (Query(quantile(0.99, "app_api_duration_seconds", "method"), "{{method}}"),),
    limits=(0.25, 1),
)
_API_CODES = Panel(
    "api-error-codes",
    "Errors of the server API, by code",
    "Per minute; HighAPIErrorRate needs more than ten. 100 is a fault of the service; the others are mistakes of backends.",
    "cpm",
    (Query(some(f"60 * {rate_of('app_api_errors_total', 'code')}", "code"), "{{code}}"),),
    limits=(10,),
)
_HANDLER_TIME = Panel(
    "handler-time",
    "Time of handlers, p99",
    "By kind, the wait for a place included. app.handler_timeout is 4 s (red); from half of it on a handler counts as slow (yellow).",
    "s",
    (Query(quantile(0.99, "app_handler_duration_seconds", "kind"), "{{kind}}"),),
    limits=(2, 4),
)
_SLOW_HANDLERS = Panel(
    "slow-handlers",
    "Handlers near their time limit",
    "Share that takes more than half of its limit. Above 5 %, and above ten per minute, fires SlowHandlers.",
    "percentunit",
    (
        Query(
            _share(
                rate_of("app_slow_handlers_total", "kind"),
                rate_of("app_handler_duration_seconds_count", "kind"),
            ),
            "{{kind}}",
        ),
    ),
    limits=(0.05,),
)
_HANDLERS = Panel(
    "handler-calls",
    "Handlers called",
    "Calls of the application's handlers, by kind.",
    "reqps",
    (Query(rate_of("app_handler_duration_seconds_count", "kind"), "{{kind}}"),),
)
_HANDLER_FAILURES = Panel(
    "handler-failures",
    "Handlers that fail",
    "Per minute; each is a fault of the service, and counts for HighErrorRate, which more than ten fire.",
    "cpm",
    (Query(f"60 * {rate_of('app_handler_failures_total', 'reason')}", "{{reason}}"),),
    limits=(10,),
)

APPLICATIONS = Page(
    "ws-applications",
    "WebSocket cluster: applications and access",
    "What users and backends are refused, tokens, and the handlers of the application.",
    (
        ("Permissions and tokens", (_REFUSALS, _REFUSED_OPERATIONS, _REFRESHES, _TOKENS)),
        ("Server API", (_API_ERRORS, _API_CODES, _API_REQUESTS, _API_TIME)),
        ("Application", (_SLOW_HANDLERS, _HANDLER_TIME, _HANDLERS, _HANDLER_FAILURES)),
    ),
)
