"""What can end, as one table; how full each resource is, when it ends and how full it is in a week are made of it.

Rules
- A resource whose series are not there, or that has no limit, has no row.
- What does not grow ends in ten years, and what is full ends now.
- Growth is that of a sum or of the fullest, and not of each replica: one that has just started has a steep slope.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from scripts.dashboards.panels import Query, Variable
from scripts.dashboards.queries import RATE, of

DAY: Final = 86400
WEEK: Final = 7 * DAY
TEN_YEARS: Final = 3650 * DAY
#: One point a minute of the last six hours.
_WINDOW: Final = "[6h:1m]"
#: A slope that is no growth, as a share of the limit a second.
_LEAST: Final = "1e-12"


class Resource(NamedTuple):
    """One resource.

    Attributes:
        used: an expression with one value, and without labels.
        limit: at which `used` ends, as it is now; 1 if `used` is a share.
        job: the job of an exporter that only the containers have, if it is of one.
    """

    name: str
    used: str
    limit: str = "1"
    job: str = ""

    def _by_limit(self, expr: str) -> str:
        return expr if self.limit == "1" else f"{expr} / {self.limit}"

    @property
    def share(self) -> str:
        """How full it is."""
        return self._by_limit(self.used)

    @property
    def seconds_left(self) -> str:
        """When it ends, if it goes on growing as in the last six hours."""
        growth = self._by_limit(f"deriv({self.used}{_WINDOW})")
        return f"clamp((1 - {self.share}) / clamp_min({growth}, {_LEAST}), 0, {TEN_YEARS})"

    @property
    def share_in_a_week(self) -> str:
        """How full it is then; without series now there is none, whatever was there before."""
        then = self._by_limit(f"predict_linear({self.used}{_WINDOW}, {WEEK})")
        return f"clamp_min({then}, 0) and {self.used}"


# All replicas: the clients of one that is not chosen may come to those that are.
_OPEN: Final = 'sum (app_active_connections{job="$job"})'
_FIT: Final = '(sum (app_connection_capacity{job="$job"}) > 0)'
_REDIS: Final = '{job="redis"}'
# The exporter of nginx says nothing of its limits: that of docker/compose.yml, two files for each client.
NGINX_TAKES: Final = Variable("nginx", "clients nginx takes", "32000")

#: What all replicas share.
SHARED: Final = (
    Resource("nginx", 'sum (nginx_connections_active{job="nginx"})', "$nginx", job="nginx"),
    Resource(
        "memory of Valkey",
        f"max (redis_memory_used_bytes{_REDIS} / (redis_memory_max_bytes{_REDIS} > 0))",
        job="redis",
    ),
    # It runs commands on one core.
    Resource(
        "CPU of Valkey",
        f"max (rate(redis_cpu_user_seconds_total{_REDIS}{RATE})"
        f" + rate(redis_cpu_sys_seconds_total{_REDIS}{RATE}))",
        job="redis",
    ),
)
RESOURCES: Final = (
    Resource("connections", _OPEN, _FIT),
    Resource(
        "memory", f"max ({of('app_memory_working_set_bytes')} / {of('app_memory_limit_bytes')})"
    ),
    Resource("file descriptors", f"max ({of('app_worker_open_fds')} / {of('app_worker_max_fds')})"),
    Resource("CPU of the busiest worker", f"max (rate({of('app_worker_cpu_seconds_total')}[5m]))"),
    *SHARED,
)


def shares(resources: tuple[Resource, ...]) -> tuple[Query, ...]:
    """How full each is."""
    return tuple(Query(one.share, one.name, one.job) for one in resources)


def seconds_left(resources: tuple[Resource, ...]) -> tuple[Query, ...]:
    """When each ends."""
    return tuple(Query(one.seconds_left, one.name, one.job) for one in resources)


def shares_in_a_week(resources: tuple[Resource, ...]) -> tuple[Query, ...]:
    """How full each is in a week."""
    return tuple(Query(one.share_in_a_week, one.name, one.job) for one in resources)


def first_to_end(resources: tuple[Resource, ...]) -> Query:
    """The name and the time of the one that ends first; `none` if none grows.

    Whether the first of them does is known wherever the application is scraped; elsewhere there is no `none`.
    """
    every = " or ".join(_named(one.seconds_left, one.name) for one in resources)
    none = _named(f"clamp_min({resources[0].seconds_left}, {TEN_YEARS})", "none")
    return Query(f"bottomk(1, ({every}) < {TEN_YEARS} or {none})", "{{resource}}")


def _named(expr: str, name: str) -> str:
    return f'label_replace({expr}, "resource", "{name}", "", "")'
