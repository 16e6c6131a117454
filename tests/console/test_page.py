"""The console in a browser: what an operator sees and does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.console.browser import Visit, chromium, needs_browser, visit
from tests.console.console_cluster import ConsoleCluster

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [needs_browser, pytest.mark.asyncio(loop_scope="module")]

SCREENS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "is_mobile": True,
        "has_touch": True,
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def colour(seen: Visit) -> str:
    """The indicator's colour by its class."""
    return (await seen.page.get_attribute("#indicator", "class") or "").split()[-1]


async def turns(seen: Visit, level: str) -> None:
    await seen.page.wait_for_selector(f"#indicator.{level}", timeout=15000)


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("through_nginx", [False, True])
async def test_nothing_goes_wrong_and_nothing_overflows(
    console_cluster: ConsoleCluster, browser: Browser, screen: str, through_nginx: bool
):
    console_cluster.monitoring.fire("HighErrorRate", "critical", description="x" * 300)
    url = console_cluster.url(through_nginx=through_nginx)
    async with visit(browser, url, **SCREENS[screen]) as seen:
        await seen.shows("#alert-list", "HighErrorRate")
        await seen.shows("#workers", "w1a")
        await seen.page.click("#live-connect button[type=submit]")
        await seen.shows("#live-log", "subscribed")
        width = await seen.page.evaluate("document.documentElement.scrollWidth")
        assert width <= SCREENS[screen]["viewport"]["width"]
        assert seen.problems == []
        origins = {u.split("/")[2] for u in seen.requested}
        assert len(origins) == 1


async def test_light_and_dark_differ(console_cluster: ConsoleCluster, browser: Browser):
    papers = set()
    for screen in ("light", "dark"):
        async with visit(browser, console_cluster.url(), **SCREENS[screen]) as seen:
            papers.add(await seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2


async def test_the_indicator_turns_red_when_a_rule_fires_and_green_after(
    console_cluster: ConsoleCluster, browser: Browser
):
    async with visit(browser, console_cluster.url()) as seen:
        await turns(seen, "green")
        assert "no alerts" in await seen.text("#indicator")
        console_cluster.monitoring.fire("SlowShutdownTime", "warning")
        await turns(seen, "amber")
        console_cluster.monitoring.fire("HighErrorRate", "critical")
        await turns(seen, "red")
        assert await seen.text("#indicator") == "1 critical · 1 warning"
        assert await seen.page.title() == "(2) ws-cluster"
        console_cluster.monitoring.resolve()
        await turns(seen, "green")
        await seen.shows("#alert-list .resolved", "HighErrorRate")
        assert seen.problems == []


async def test_the_indicator_is_grey_while_the_alerts_are_not_known(
    console_cluster: ConsoleCluster, browser: Browser
):
    console_cluster.monitoring.has_rules = False
    async with visit(browser, console_cluster.url()) as seen:
        await seen.shows("#alert-list", "no alert rules")
        assert await colour(seen) == "unknown"
        assert "alerts unknown" in await seen.text("#indicator")


async def test_buttons_link_to_the_configured_addresses(
    console_cluster: ConsoleCluster, browser: Browser
):
    async with visit(browser, console_cluster.url()) as seen:
        await seen.page.wait_for_selector("#link-prometheus:not([hidden])")
        links = await seen.page.eval_on_selector_all(
            "nav a", "all => all.map(a => [a.innerText, a.href])"
        )
        assert [text for text, _ in links] == [
            "🚨 Active Alerts",
            "🔔 Alertmanager",
            "Prometheus",
            "Grafana",
        ]
        assert [href for _, href in links[1:]] == [
            "http://127.0.0.1:9093/",
            "http://127.0.0.1:9090/",
            "http://127.0.0.1:3000/",
        ]


async def fill_action(seen: Visit) -> None:
    await seen.page.fill("#action-note", "rolling back")
    await seen.page.fill("#action-author", "kim")
    await seen.page.select_option("#action-seconds", "1800")


async def test_an_acknowledgement_asks_for_the_key_first(
    console_cluster: ConsoleCluster, browser: Browser
):
    console_cluster.monitoring.fire("HighErrorRate", "critical")
    async with visit(browser, console_cluster.url(has_key=False)) as seen:
        await seen.page.click("text=Acknowledge")
        await seen.page.fill("#key-value", "wrong")
        await seen.page.click("#key button[type=submit]")
        await seen.shows("#key-error", "admin.key")
        assert console_cluster.monitoring.silences == []
        await seen.page.fill("#key-value", console_cluster.key)
        await seen.page.click("#key button[type=submit]")
        await fill_action(seen)
        await seen.page.click("#action-go")
        await seen.shows("#alert-list", "acknowledged by kim: rolling back")
        await turns(seen, "amber")
        assert [s["comment"] for s in console_cluster.monitoring.silences] == ["ack: rolling back"]
        # The refused key is the only problem that the browser reports.
        assert all("401" in problem for problem in seen.problems)


async def test_the_link_of_a_development_run_carries_the_key_and_hides_it(
    console_cluster: ConsoleCluster, browser: Browser
):
    console_cluster.monitoring.fire("HighErrorRate", "critical")
    async with visit(browser, console_cluster.url()) as seen:
        assert console_cluster.key not in seen.page.url
        await seen.page.click("text=Silence")
        await fill_action(seen)
        await seen.page.check("#action-all")
        await seen.page.click("#action-go")
        await seen.shows("#alert-list", "silenced by kim: rolling back")
        names = [[m["name"] for m in s["matchers"]] for s in console_cluster.monitoring.silences]
        assert names == [["alertname"]]
        await seen.page.click("#alert-list .silence button")
        await turns(seen, "red")
        assert not any(console_cluster.key in url for url in seen.requested)


async def test_texts_of_alerts_never_become_markup(
    console_cluster: ConsoleCluster, browser: Browser
):
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    console_cluster.monitoring.fire(
        "HighErrorRate", "critical", summary=evil, description=evil,
        runbook="javascript:document.title='owned'", instance=evil,
    )  # fmt: skip
    async with visit(browser, console_cluster.url()) as seen:
        await seen.shows("#alert-list", "onerror")
        assert await seen.page.locator("#alert-list img, #alert-list script").count() == 0
        assert await seen.page.locator("#alert-list a").count() == 0
        assert await seen.page.title() == "(1) ws-cluster"
        assert seen.problems == []


@pytest.mark.parametrize("through_nginx", [False, True])
async def test_the_live_client_publishes_and_recovers_what_it_missed(
    console_cluster: ConsoleCluster, browser: Browser, through_nginx: bool
):
    channel = f"story{through_nginx}"
    async with visit(browser, console_cluster.url(through_nginx=through_nginx)) as seen:
        await seen.page.fill("#live-channel", channel)
        await seen.page.click("#live-connect button[type=submit]")
        await seen.shows("#live-log", f"subscribed to {channel}: recoverable")
        await publish(seen, "before")
        await seen.shows("#live-log", f"{channel} #1: before")
        await seen.page.click("#live-drop")
        await seen.shows("#live-state", "connecting")
        await publish(seen, "missed one")
        await publish(seen, "missed two")
        await seen.shows("#live-log .recovered", "recovered 2 missed")
        await seen.shows("#live-log .recovered", f"recovered {channel} #3: missed two")
        await publish(seen, "after")
        await seen.shows("#live-log", f"{channel} #4: after")
        log = await seen.text("#live-log")
        positions = [log.index(text) for text in ("before", "missed one", "missed two", "after")]
        assert positions == sorted(positions)
        assert log.count("missed one") == 1
        assert seen.problems == []


async def publish(seen: Visit, text: str) -> None:
    await seen.page.fill("#live-message", text)
    await seen.page.click("#live-publish button")


async def test_a_roll_shows_in_the_workers_and_the_last_shutdowns(
    console_cluster: ConsoleCluster, browser: Browser
):
    async with visit(browser, console_cluster.url()) as seen:
        await seen.shows("#workers", "w0")
        before = {w.lane for w in console_cluster.cluster.workers()}
        await console_cluster.cluster.roll()
        for lane in before:
            await seen.shows("#ended", lane)
        for worker in console_cluster.cluster.workers():
            await seen.shows("#workers", worker.lane)
        assert await seen.page.locator("#ended svg.phases rect").count() > 0


ONE_FRAME = """async () => {
  const { Client } = await import("/console/centrifuge.js");
  const asked = [];
  const answers = {
    connect: { client: "c", ping: 25, pong: true },
    subscribe: { recoverable: true, epoch: "e", offset: 0 },
  };
  window.WebSocket = class {
    static OPEN = 1;
    readyState = 1;
    constructor() { queueMicrotask(() => this.onopen()); }
    close() {}
    send(text) {
      const command = JSON.parse(text);
      asked.push(command);
      const name = Object.keys(command).find((key) => key !== "id");
      const push = { push: { channel: "a", pub: { data: 1, offset: 1 } } };
      const reply = JSON.stringify({ id: command.id, [name]: answers[name] });
      const frame = name === "subscribe" ? reply + "\\n" + JSON.stringify(push) : reply;
      setTimeout(() => this.onmessage({ data: frame }));
    }
  };
  const client = new Client("ws://nowhere");
  const publication = () => new Promise((done) => client.addEventListener("publication", done, { once: true }));
  client.subscribe("a");
  const first = publication();
  client.connect();
  await first;
  await new Promise((done) => setTimeout(done));
  const second = publication();
  client.drop(1);
  await second;
  return asked.filter((command) => command.subscribe).map((command) => command.subscribe);
}"""


async def test_a_publication_in_the_frame_of_the_subscribe_reply_is_not_requested_again(
    console_cluster: ConsoleCluster, browser: Browser
):
    async with visit(browser, console_cluster.url()) as seen:
        first, second = await seen.page.evaluate(ONE_FRAME)
        assert "recover" not in first
        assert (second["recover"], second["offset"], second["epoch"]) == (True, 1, "e")
