"""Names that others choose are text in the console: of alerts, channels, users, and what they write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.console.browser import Visit, chromium, needs_browser, visit
from tests.console.console_cluster import ACK, ConsoleCluster

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [needs_browser, pytest.mark.asyncio(loop_scope="module")]

MARKUP = "<img src=x onerror=\"document.title='owned'\">"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def assert_is_text(seen: Visit, selector: str, text: str) -> None:
    """The element shows the markup as it was written, and nothing was made of it."""
    await seen.shows(selector, text)
    assert await seen.page.locator("img[src=x]").count() == 0
    assert "owned" not in await seen.page.title()
    assert not any(url.endswith("/x") for url in seen.requested)
    assert seen.problems == []


async def test_names_of_alerts_and_users_are_text(
    console_cluster: ConsoleCluster, browser: Browser
):
    name = f"Alert{MARKUP}"
    console_cluster.monitoring.fire(name, "critical", instance=f"instance{MARKUP}")
    ack = {**ACK, "labels": {**ACK["labels"], "alertname": name, "instance": f"instance{MARKUP}"}}  # type: ignore[dict-item]
    ack |= {"author": f"user{MARKUP}", "note": f"note{MARKUP}"}
    answer = await console_cluster.post("/console/ack", ack, **console_cluster.bearer)
    assert answer.status == 200, answer.text
    async with visit(browser, console_cluster.url()) as seen:
        for text in ("Alert", "instance", "user", "note"):
            await assert_is_text(seen, "#alert-list", f"{text}{MARKUP}")


async def test_names_of_channels_and_messages_are_text(
    console_cluster: ConsoleCluster, browser: Browser
):
    channel = f"channel{MARKUP}"
    async with visit(browser, console_cluster.url()) as seen:
        await seen.page.fill("#live-channel", channel)
        await seen.page.click("#live-connect button[type=submit]")
        await assert_is_text(seen, "#live-log", f"subscribed to {channel}")
        await seen.page.fill("#live-message", f"message{MARKUP}")
        await seen.page.click("#live-publish button[type=submit]")
        await assert_is_text(seen, "#live-log", f"message{MARKUP}")
