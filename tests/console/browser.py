"""A Chromium for tests, or the reason why there is none, and a page that records its errors.

Rule: without Chromium or playwright the tests that need them are skipped with the reason, but not
where CI=true: there they fail.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.harness.needs import needs

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page

CHROMIUM = shutil.which("chromium") or ""
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing() -> str:
    """What is not installed; empty if everything is."""
    found = []
    if not CHROMIUM:
        found.append("chromium (Debian: apt-get install chromium)")
    if importlib.util.find_spec("playwright") is None:
        found.append("playwright (pip install playwright)")
    return " and ".join(found)


needs_browser = needs(not missing(), f"not installed: {missing()}")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(ARGUMENTS), headless=True
        )
        try:
            yield browser
        finally:
            await browser.close()


class Visit:
    """One page with its errors, warnings and requests."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.requested: list[str] = []
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", lambda request: self.requested.append(request.url))

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    async def text(self, selector: str) -> str:
        """The text of an element."""
        return await self.page.inner_text(selector)

    async def shows(self, selector: str, text: str, within: float = 15.0) -> None:
        """Wait until an element shows a text."""
        found = self.page.locator(selector, has_text=text).first
        await found.wait_for(timeout=within * 1000)


@asynccontextmanager
async def visit(browser: Browser, url: str, **options: Any) -> AsyncIterator[Visit]:
    """A fresh profile with one page at `url`; `options` are those of a browser context."""
    context = await browser.new_context(**options)
    try:
        visited = Visit(await context.new_page())
        await visited.page.goto(url)
        yield visited
    finally:
        await context.close()
