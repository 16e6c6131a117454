"""Commands that change something: ack, resolve, silence, unsilence.

Rules
- Alertmanager's silences are the one truth about who has taken what; the tracker sees an
  acknowledgement there and tells PagerDuty. So these commands work from any machine.
- Every change carries an author and a note.
"""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from cluster.monitor import durations
from cluster.monitor.alertmanager import (
    ACK_MARK,
    ActiveAlert,
    Alertmanager,
    Matcher,
    Silence,
    exactly,
    matcher,
)
from cluster.monitor.asking import Refused
from cluster.monitor.commands import status
from cluster.monitor.endpoints import Endpoints
from cluster.monitor.faults import NotAnswering, NotFound
from cluster.monitor.incidents import notifications
from cluster.monitor.incidents.store import FILE_NAME, Incident, IncidentStore, canonical
from cluster.monitor.incidents.tracker import ALIVE_FACT
from cluster.monitor.monitor_cli import user
from cluster.monitor.prometheus import Prometheus

_KEEPER_SILENT_SECONDS: Final = 30.0
_LONGEST_SECONDS: Final = 366 * 86400.0
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def ack(arguments: Namespace) -> int:
    """`monitor ack`: one silence for each alert that fires under the name, of exactly its labels."""
    where = Endpoints.of(arguments)
    alertmanager = Alertmanager(where.alertmanager)
    seconds, note, author = _how(arguments)
    wanted = [Matcher("alertname", arguments.alert), *_matchers(arguments.match)]
    alerts = [a for a in alertmanager.alerts() if all(m.holds(a.labels) for m in wanted)]
    if not alerts:
        raise _nothing_fires(where, arguments.alert, wanted)
    known = {silence.id: silence for silence in alertmanager.silences()}
    for alert in alerts:
        _acknowledge(alertmanager, alert, known, seconds=seconds, author=author, note=note)
    _tell_about_tracker(where)
    return 0


def _acknowledge(
    alertmanager: Alertmanager,
    alert: ActiveAlert,
    known: dict[str, Silence],
    *,
    seconds: float,
    author: str,
    note: str,
) -> None:
    name = f"{alert.name} {alert.labels.get('instance', '')}".rstrip()
    held = next((known[i] for i in alert.silenced_by if i in known and known[i].is_ack), None)
    now = time.time()
    number = alertmanager.silence(
        exactly(alert.labels), seconds=seconds, author=author, comment=ACK_MARK + note, now=now
    )
    if held is not None:
        _expire(alertmanager, held.id)
        _print(f"{name}: was acknowledged by {held.author}; now by {author}")
    until = durations.shown(now + seconds)
    _print(f"{name}: acknowledged by {author} until {until} (silence {number})")


def _nothing_fires(where: Endpoints, alert: str, wanted: Sequence[Matcher]) -> NotFound:
    """The sentence that says why there is nothing to acknowledge."""
    rule = status.named(Prometheus(where.prometheus).rules(), alert)
    if any(a.state == "pending" for a in rule.alerts):
        return NotFound(
            f"{alert} is pending and does not fire yet: there is nothing to acknowledge;"
            f" `ws-cluster monitor silence {alert} --note …` keeps it quiet"
        )
    if any(a.state == "firing" and all(m.holds(a.labels) for m in wanted) for a in rule.alerts):
        return NotFound(
            f"{alert} fires in Prometheus and has not reached Alertmanager: try again in a moment;"
            " if it stays so, see `ws-cluster monitor logs prometheus`"
        )
    return NotFound(f"{alert} does not fire for these labels: there is nothing to acknowledge")


def _tell_about_tracker(where: Endpoints) -> None:
    """Say so when nobody will tell PagerDuty."""
    if not (where.data_dir / FILE_NAME).is_file():
        _warn(
            f"no incident tracker has ever run in {where.data_dir}: if none runs elsewhere, PagerDuty"
            " is not told; start one with `ws-cluster monitoring up`"
        )
        return
    store = IncidentStore(where.data_dir, only_reads=True)
    try:
        alive_at = float(store.fact(ALIVE_FACT) or 0)
    finally:
        store.close()
    if time.time() - alive_at > _KEEPER_SILENT_SECONDS:
        _warn(
            f"the incident tracker has been silent since {durations.shown(alive_at)}: PagerDuty is told"
            " when it runs again"
        )


def resolve(arguments: Namespace) -> int:
    """`monitor resolve`: the incidents of an alert are closed, whatever the condition does."""
    where = Endpoints.of(arguments)
    note, author = _note(arguments), arguments.author or user()
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
    return _say_if_it_holds(where, arguments.alert, open_ones)


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
        store.tell(now, incident.id, "resolved", f"by hand, {author}: {note}")
        for key in incident.dedup_keys:
            name = notifications.notification_name("resolve", incident.id, key)
            store.post(name, "pagerduty", notifications.resolution(key), now)
    _print(f"incident {incident.id} ({incident.alertname}) is closed by {author}")


def _say_if_it_holds(where: Endpoints, alert: str, closed: Sequence[Incident]) -> int:
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
            f" notifying; `ws-cluster monitor silence {alert} --note …` keeps it quiet. The incident"
            " stays closed until the condition has ended and come again"
        )
    return 0


def silence(arguments: Namespace) -> int:
    """`monitor silence`."""
    alertmanager = Alertmanager(Endpoints.of(arguments).alertmanager)
    if not arguments.matchers:
        _list(alertmanager)
        return 0
    seconds, note, author = _how(arguments)
    matchers = _matchers(arguments.matchers)
    now = time.time()
    number = alertmanager.silence(matchers, seconds=seconds, author=author, comment=note, now=now)
    count = sum(all(m.holds(a.labels) for m in matchers) for a in alertmanager.alerts())
    _print(number)
    _print(
        f"silenced until {durations.shown(now + seconds)}: {', '.join(map(str, matchers))}"
        f" ({count} of the alerts that fire now)"
    )
    return 0


def _list(alertmanager: Alertmanager) -> None:
    rows = [
        (
            one.id,
            one.state,
            durations.shown(one.ends_at),
            one.author,
            "ack" if one.is_ack else "",
            ", ".join(map(str, one.matchers)),
            one.note,
        )
        for one in alertmanager.silences()
        if one.state != "expired"
    ]
    if not rows:
        _print("nothing is silenced")
        return
    status.table(("id", "state", "until", "author", "kind", "matchers", "note"), rows)


def unsilence(arguments: Namespace) -> int:
    """`monitor unsilence`: by id, or by matchers that a silence has among its own."""
    alertmanager = Alertmanager(Endpoints.of(arguments).alertmanager)
    living = [one for one in alertmanager.silences() if one.state != "expired"]
    ids = {one.id for one in living}
    if any(_ID.fullmatch(word) or word in ids for word in arguments.what):
        unknown = [word for word in arguments.what if word not in ids]
        if unknown:
            raise NotFound(f"no silence in force has the id {unknown[0]}: nothing was changed")
        chosen = list(arguments.what)
    else:
        wanted = set(_matchers(arguments.what))
        chosen = [one.id for one in living if wanted <= set(one.matchers)]
    if not chosen:
        raise NotFound(
            f"no silence is {' '.join(arguments.what)} or has these matchers:"
            " `ws-cluster monitor silence` lists them"
        )
    for number in chosen:
        _expire(alertmanager, number)
        _print(f"silence {number} has ended")
    return 0


def _expire(alertmanager: Alertmanager, number: str) -> None:
    try:
        alertmanager.expire(number)
    except Refused as refused:
        if refused.status != 404:
            raise


# --- what was given ----------------------------------------------------------------------


def _how(arguments: Namespace) -> tuple[float, str, str]:
    """Duration, note and author."""
    try:
        seconds = durations.seconds_of(arguments.duration)
    except ValueError as error:
        raise NotAnswering(str(error)) from None
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise NotAnswering(f"--for {arguments.duration}: give more than 0s and at most 366d")
    return seconds, _note(arguments), arguments.author or user()


def _note(arguments: Namespace) -> str:
    note = (arguments.note or "").strip()
    if not note:
        raise NotAnswering("--note is missing or empty: say why, in a few words")
    return note


def _matchers(texts: Sequence[str]) -> list[Matcher]:
    try:
        return [matcher(text) for text in texts]
    except ValueError as error:
        raise NotAnswering(str(error)) from None


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _warn(text: str) -> None:
    sys.stderr.write(f"ws-cluster: {text}\n")
