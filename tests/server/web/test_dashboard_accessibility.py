"""The server's page for all readers: by keys, in light and dark, on any width, without motion."""

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from helpers.chains import RealChain
from helpers.dashboard_page import COUNT_RINGS, centre, hits_of, opened, ranked, text
from helpers.support import RunningServer, stub_of
from helpers.traffic import streamed

pytestmark = pytest.mark.slow


def test_keys_reach_every_code(browser: Browser, counting: RunningServer) -> None:
    hits = hits_of(counting)
    unhit = [code for code in range(4096) if not hits[code]]
    with opened(browser, counting) as page:
        page.locator("#code").fill("130")
        page.locator("#map").focus()
        at = 130
        for key, expected in (
            ("ArrowRight", 131),
            ("ArrowDown", 195),
            ("ArrowLeft", 194),
            ("ArrowUp", 130),
            ("PageDown", 642),
            ("PageUp", 130),
            ("End", 191),
            ("Home", 128),
            ("Control+End", 4095),
            ("ArrowRight", 4095),
            ("ArrowDown", 4095),
            ("Control+Home", 0),
            ("ArrowUp", 0),
            ("d", next(code for code in unhit if code > 0)),
            ("Control+End", 4095),
            ("Shift+D", max(code for code in unhit if code < 4095)),
        ):
            page.keyboard.press(key)
            expect(page.locator("#code")).to_have_value(str(expected))
            at = expected
        expect(page.locator("#said")).to_have_text(f"Code {at}: not hit yet")
        page.keyboard.press("Control+Home")
        expect(page.locator("#tip")).to_be_visible()
        page.locator("#tail").focus()
        page.keyboard.press("Home")
        expect(page.locator("#r-rank")).to_have_text("1")
        page.keyboard.press("PageUp")
        expect(page.locator("#tail")).to_have_attribute("aria-valuenow", "65")
        page.locator("#residues-chart").focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#tip")).to_contain_text("2 s ago")


def test_tab_reaches_all_controls(browser: Browser, counting: RunningServer) -> None:
    with opened(browser, counting) as page:
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            name = page.evaluate(
                """() => {
                  const {activeElement: at} = document;
                  if (at === document.body) return "BODY";
                  const style = getComputedStyle(at.matches(".choice input") ? at.nextElementSibling : at);
                  if (style.outlineStyle === "none") throw new Error(`focus is not seen on ${at.outerHTML}`);
                  return at.id || at.name || at.className || at.closest("[id]")?.id || at.pathname;
                }"""
            )
            if name == "BODY":
                break
            if name not in reached:
                reached.append(name)
        expected = ["skip", "pause", "theme", "scope", "map", "code", "tail", "top", "unhit-title"]
        charts = [f"{name}-chart" for name in ("residues", "structures", "latency", "refusals")]
        assert reached[:13] == [*expected, *charts]


def luminance(page: Page) -> float:
    """Of the page's ground, 0 to 255."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", color)[:3]) / 3


def test_light_and_dark(browser: Browser, counting: RunningServer) -> None:
    with opened(browser, counting, color_scheme="dark") as page:
        assert luminance(page) < 40
        page.get_by_role("radio", name="Light").check()
        assert luminance(page) > 230
        page.reload()
        assert luminance(page) > 230
        assert page.locator("#theme input[value=light]").is_checked()
        page.get_by_role("radio", name="Auto").check()
        assert luminance(page) < 40
        page.emulate_media(color_scheme="light")
        assert luminance(page) > 230
        page.get_by_role("radio", name="Dark").check()
        assert luminance(page) < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_readers(browser: Browser, counting: RunningServer, scheme: Any) -> None:
    """axe finds no fault by WCAG 2.2 AA: contrast, names, roles and more."""
    with opened(browser, counting, color_scheme=scheme) as page:
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        results = Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}})
        assert results.violations_count == 0, results.generate_report()
        assert len(results.response["passes"]) > 20


@pytest.mark.parametrize("width", [320, 390, 768, 1024])
def test_no_width_scrolls_sideways(browser: Browser, counting: RunningServer, width: int) -> None:
    options = {"viewport": {"width": width, "height": 800}, "device_scale_factor": 2, "has_touch": True}
    with opened(browser, counting, **options) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        cut = page.evaluate(
            """() => [...document.querySelectorAll("dd, dt, h2, .choice span, .story, button")]
              .filter((node) => node.scrollWidth > node.clientWidth + 1 && node.clientWidth && !node.closest(".unseen"))
              .map((node) => node.textContent)"""
        )
        assert cut == []
        hits = hits_of(counting)
        code = ranked(hits)[3]
        page.locator("#map").scroll_into_view_if_needed()
        page.touchscreen.tap(*centre(page, code))
        expect(page.locator("#code")).to_have_value(str(code))
        assert text(page, "r-hits") == str(hits[code])


def test_motion_is_left_out_where_it_is_not_wanted(
    browser: Browser, counting: RunningServer, short: list[RealChain]
) -> None:
    with opened(browser, counting, reduced_motion="reduce") as page, stub_of(counting) as stub:
        page.evaluate(COUNT_RINGS)
        before = sum(hits_of(counting))
        sent = streamed(stub, short)
        expect(page.locator("#residues")).to_have_text(f"{before + sent:,}")
        page.wait_for_timeout(200)
        assert page.evaluate("window.rings") == 0
