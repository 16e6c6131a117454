"""The web pages of the examples, in a browser, against a real cluster."""

from __future__ import annotations

import re
from pathlib import Path

from tests.console.browser import chromium, needs_browser, visit
from tests.harness.cluster import Cluster

WITHIN = 60.0


def example(folder: Path, name: str) -> Cluster:
    """A cluster that runs an example, with the options of `up --development` that it uses."""
    return Cluster(
        folder,
        config={
            "app": {"target": f"examples.{name}:app"},
            "client": {"allowed_origins": ["http://127.0.0.1:*"]},
            "channel": {"without_namespace": {"presence": True, "join_leave": True}},
        },
    )


@needs_browser
async def test_two_people_chat_and_a_third_sees_what_was_said_before(tmp_path: Path):
    async with example(tmp_path, "chat") as cluster, chromium() as browser:
        url = f"http://127.0.0.1:{cluster.port}/app/"
        async with visit(browser, url) as ann, visit(browser, url) as ben:
            for one, name in ((ann, "Ann"), (ben, "Ben")):
                await one.page.fill("#name", name)
                await one.page.click("#enter button")
                await one.shows("#status", f"in the room as {name}", WITHIN)
            # Ann sees that Ben has come after her.
            for one in (ann, ben):
                await one.shows("#people", "Ann, Ben", WITHIN)
            await ann.page.fill("#text", "hello <b>Ben</b>")
            await ann.page.click("#write button")
            for one in (ann, ben):
                await one.shows("#messages li", "Ann: hello <b>Ben</b>", WITHIN)
            async with visit(browser, url) as late:
                await late.page.fill("#name", "Kim")
                await late.page.click("#enter button")
                await late.shows("#messages li", "Ann: hello <b>Ben</b>", WITHIN)
                await ann.shows("#people", "Ann, Ben, Kim", WITHIN)
                assert late.problems == []
            left = ann.page.locator("#people", has_text=re.compile("^Ann, Ben$"))
            await left.wait_for(timeout=WITHIN * 1000)
            # Its worker is replaced: it comes back, and nothing is shown twice.
            await cluster.roll()
            await ben.shows("#status", "in the room as Ben", WITHIN)
            await ben.page.fill("#text", "still here")
            await ben.page.click("#write button")
            await ann.shows("#messages li", "Ben: still here", WITHIN)
            assert await ann.page.locator("#messages li").count() == 2
            assert ann.problems == []


@needs_browser
async def test_two_tabs_share_the_counter_and_it_survives_a_reload_of_the_page(tmp_path: Path):
    async with example(tmp_path, "counter") as cluster, chromium() as browser:
        url = f"http://127.0.0.1:{cluster.port}/app/"
        async with visit(browser, url) as first:
            await first.shows("#status", "new at worker", WITHIN)
            second = await first.page.context.new_page()
            await second.goto(url)
            await second.locator("#status", has_text="resumed at worker").wait_for(
                timeout=WITHIN * 1000
            )
            for page in (first.page, second, first.page):
                await page.click("#more")
            for page in (first.page, second):
                await page.locator("#count", has_text="3").wait_for(timeout=WITHIN * 1000)
            await second.reload()
            await second.locator("#count", has_text="3").wait_for(timeout=WITHIN * 1000)
            assert first.problems == []
