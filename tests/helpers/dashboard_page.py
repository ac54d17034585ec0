"""The server's page in a browser: opened, and what is on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, expect

from helpers.support import RunningServer, metrics_of


@contextmanager
def opened(browser: Browser, server: RunningServer, **options: Any) -> Iterator[Page]:
    """The page, live. It must complain of nothing, and ask no other server. options: of the browser's context."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(20_000)
    page = context.new_page()
    complaints, asked = [], set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.on("response", lambda response: complaints.extend([response.url] if response.status >= 400 else []))
    page.goto(f"http://{server.metrics}/")
    expect(page.locator("#status-text")).to_have_text("Live", timeout=20_000)
    expect(page.locator("#lineage li").first).to_be_visible(timeout=20_000)
    yield page
    context.close()
    assert complaints == []
    assert asked == {server.metrics}


def hits_of(server: RunningServer) -> list[int]:
    metrics = metrics_of(server)
    return [int(metrics[f'foldmint_code_hits_total{{code="{code}"}}']) for code in range(4096)]


def ranked(hits: list[int]) -> list[int]:
    """Codes, the most used first."""
    return sorted(range(len(hits)), key=lambda code: (-hits[code], code))


def centre(page: Page, code: int) -> tuple[float, float]:
    """Where a code's cell is in the window."""
    box = page.locator("#heat").bounding_box()
    assert box is not None
    size = box["width"] / 64
    return box["x"] + (code % 64 + 0.5) * size, box["y"] + (code // 64 + 0.5) * size


# The rings around codes that were just hit.
COUNT_RINGS = """() => {
  window.rings = 0;
  const context = document.getElementById("glow").getContext("2d");
  const strokeRect = context.strokeRect.bind(context);
  context.strokeRect = (...box) => { window.rings += 1; strokeRect(...box); };
}"""


def text(page: Page, name: str) -> str:
    return page.locator(f"#{name}").inner_text()
