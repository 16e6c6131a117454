"""Commands that change something: ack, resolve, silence, unsilence.

Rules
- Acknowledgements are stored in Alertmanager only, as silences; the tracker sees them there and
  acknowledges PagerDuty's incident. So these commands work from any machine.
- Every change has an author and a note.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from cluster import durations
from cluster.alerting.alertmanager import ActiveAlert, Alertmanager
from cluster.alerting.matchers import Matcher, matcher
from cluster.alerting.prometheus import Prometheus
from cluster.errors import NotAnswering, NotFound, UsageError
from cluster.monitor.commands import status
from cluster.monitor.endpoints import Endpoints
from cluster.monitor.incidents import notifications
from cluster.monitor.incidents.store import (
    ALIVE_FACT,
    FILE_NAME,
    Incident,
    IncidentStore,
    canonical,
)
from cluster.terminal_text import print_line

_TRACKER_SILENT_SECONDS: Final = 30.0
_LONGEST_SECONDS: Final = 366 * 86400.0
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def ack(arguments: Namespace) -> int:
    """`monitor ack`: one silence for each alert that fires under the name, of exactly its labels."""
    where = Endpoints.of(arguments)
    alertmanager = Alertmanager(where.alertmanager)
    seconds, note, author = _terms(arguments)
    wanted = [Matcher("alertname", arguments.alert), *_matchers(arguments.match)]
    alerts = [a for a in alertmanager.alerts() if all(m.holds(a.labels) for m in wanted)]
    if not alerts:
        raise _nothing_fires(where, arguments.alert, wanted)
    for alert in alerts:
        _acknowledge(alertmanager, alert, seconds=seconds, author=author, note=note)
    _warn_without_tracker(where)
    return 0


def _acknowledge(
    alertmanager: Alertmanager, alert: ActiveAlert, *, seconds: float, author: str, note: str
) -> None:
    name = f"{alert.name} {alert.labels.get('instance', '')}".rstrip()
    now = time.time()
    made, replaced = alertmanager.acknowledge(
        alert.labels, seconds=seconds, author=author, note=note, now=now
    )
    for earlier in replaced:
        print_line(f"{name}: was acknowledged by {earlier.author}; now by {author}")
    until = durations.time_for_people(now + seconds)
    print_line(f"{name}: acknowledged by {author} until {until} (silence {made})")


def _nothing_fires(where: Endpoints, alert: str, wanted: Sequence[Matcher]) -> NotFound:
    """The error that says why there is nothing to acknowledge."""
    rule = status.named(Prometheus(where.prometheus).rules(), alert)
    if any(a.state == "pending" for a in rule.alerts):
        return NotFound(
            f"{alert} is pending and does not fire yet: there is nothing to acknowledge;"
            f" `ws-cluster monitor silence {alert} --note …` silences it"
        )
    if any(a.state == "firing" and all(m.holds(a.labels) for m in wanted) for a in rule.alerts):
        return NotFound(
            f"{alert} fires in Prometheus and has not reached Alertmanager: try again in a moment;"
            " if it stays so, see `ws-cluster monitor logs prometheus`"
        )
    return NotFound(f"{alert} does not fire for these labels: there is nothing to acknowledge")


def _warn_without_tracker(where: Endpoints) -> None:
    """Warn if no tracker runs here that would acknowledge PagerDuty's incident."""
    if not (where.data_dir / FILE_NAME).is_file():
        _warn(
            f"no incident tracker has ever run in {where.data_dir}: if none runs elsewhere, PagerDuty"
            " is not notified; start one with `ws-cluster monitoring up`"
        )
        return
    store = IncidentStore(where.data_dir, read_only=True)
    try:
        alive_at = float(store.fact(ALIVE_FACT) or 0)
    finally:
        store.close()
    if time.time() - alive_at > _TRACKER_SILENT_SECONDS:
        _warn(
            "the incident tracker has been silent since"
            f" {durations.time_for_people(alive_at)}: PagerDuty is notified when it runs again"
        )


def resolve(arguments: Namespace) -> int:
    """`monitor resolve`: closes the incidents of an alert, even if the condition still holds."""
    where = Endpoints.of(arguments)
    note, author = _note(arguments), arguments.author or _user()
    store = IncidentStore(where.data_dir, must_exist=True)
    try:
        open_ones = [i for i in store.open_incidents() if i.alertname == arguments.alert]
        if not open_ones:
            status.named(Prometheus(where.prometheus).rules(), arguments.alert)
            raise NotFound(f"{arguments.alert} has no open incident: there is nothing to resolve")
        for incident in open_ones:
            _close(store, incident, author, note)
    finally:
        store.close()
    return _warn_if_still_firing(where, arguments.alert, open_ones)


def _close(store: IncidentStore, incident: Incident, author: str, note: str) -> None:
    now = time.time()
    with store.change():
        store.set(
            incident.id,
            state="resolved",
            resolved_at=now,
            resolved_by=author,
            resolution=f"by hand: {note}",
            owes_resolve=0,
        )
        store.record(now, incident.id, "resolved", f"by hand, {author}: {note}")
        for key in incident.dedup_keys:
            name = notifications.notification_name("resolve", incident.id, key)
            store.add_notification(name, "pagerduty", notifications.resolution(key), now)
    print_line(f"incident {incident.id} ({incident.alertname}) is closed by {author}")


def _warn_if_still_firing(where: Endpoints, alert: str, closed: Sequence[Incident]) -> int:
    try:
        rules = Prometheus(where.prometheus).rules()
    except NotAnswering as error:
        _warn(f"whether the condition still holds is not known: {error}")
        return NotAnswering.exit_code
    ids = {canonical(incident.labels) for incident in closed}
    still = [a for r in rules if r.name == alert for a in r.alerts if canonical(a.labels) in ids]
    if still:
        _warn(
            f"the condition of {alert} still holds (value {still[0].value}): Alertmanager goes on"
            f" notifying; `ws-cluster monitor silence {alert} --note …` stops that. The incident"
            " stays closed until the condition ends and holds again"
        )
    return 0


def silence(arguments: Namespace) -> int:
    """`monitor silence`."""
    alertmanager = Alertmanager(Endpoints.of(arguments).alertmanager)
    if not arguments.matchers:
        _list(alertmanager)
        return 0
    seconds, note, author = _terms(arguments)
    matchers = _matchers(arguments.matchers)
    now = time.time()
    made = alertmanager.silence(matchers, seconds=seconds, author=author, comment=note, now=now)
    count = sum(all(m.holds(a.labels) for m in matchers) for a in alertmanager.alerts())
    print_line(made)
    print_line(
        f"silenced until {durations.time_for_people(now + seconds)}: {', '.join(map(str, matchers))}"
        f" ({count} of the alerts that fire now)"
    )
    return 0


def _list(alertmanager: Alertmanager) -> None:
    rows = [
        (
            one.id,
            one.state,
            durations.time_for_people(one.ends_at),
            one.author,
            "ack" if one.is_ack else "",
            ", ".join(map(str, one.matchers)),
            one.note,
        )
        for one in alertmanager.silences()
        if one.is_in_force
    ]
    if not rows:
        print_line("nothing is silenced")
        return
    status.table(("id", "state", "until", "author", "kind", "matchers", "note"), rows)


def unsilence(arguments: Namespace) -> int:
    """`monitor unsilence`: by id, or every silence that has these matchers among its own."""
    alertmanager = Alertmanager(Endpoints.of(arguments).alertmanager)
    in_force = [one for one in alertmanager.silences() if one.is_in_force]
    ids = {one.id for one in in_force}
    if any(_ID.fullmatch(word) or word in ids for word in arguments.what):
        unknown = [word for word in arguments.what if word not in ids]
        if unknown:
            raise NotFound(f"no silence in force has the id {unknown[0]}: nothing was changed")
        chosen = list(arguments.what)
    else:
        wanted = set(_matchers(arguments.what))
        chosen = [one.id for one in in_force if wanted <= set(one.matchers)]
    if not chosen:
        raise NotFound(
            f"no silence has the id or the matchers {' '.join(arguments.what)}:"
            " `ws-cluster monitor silence` lists them"
        )
    for silence_id in chosen:
        alertmanager.expire(silence_id)
        print_line(f"silence {silence_id} has ended")
    return 0


# --- arguments ---------------------------------------------------------------------------


def _terms(arguments: Namespace) -> tuple[float, str, str]:
    """Duration, note and author."""
    try:
        seconds = durations.seconds_of(arguments.duration)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageError(f"--for {arguments.duration}: give more than 0s and at most 366d")
    return seconds, _note(arguments), arguments.author or _user()


def _user() -> str:
    """The name of the user who runs this."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _note(arguments: Namespace) -> str:
    note = (arguments.note or "").strip()
    if not note:
        raise UsageError("--note is missing or empty: say why, in a few words")
    return note


def _matchers(texts: Sequence[str]) -> list[Matcher]:
    try:
        return [matcher(text) for text in texts]
    except ValueError as error:
        raise UsageError(str(error)) from None


def _warn(text: str) -> None:
    print_line(f"ws-cluster: {text}", sys.stderr)
