"""The report in a browser: every chart is drawn without an error and without network, at any width."""

import shutil

import pytest

from platform.reporting.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(finished):
    return write_report(finished).as_uri()


def opened(browser, address, **options):
    """Return the page with all charts drawn, the addresses that it requested, and its messages."""
    page = browser.new_page(**options)
    requests, messages = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(address)
    count = page.locator(".chart").count()
    page.locator(".chart").nth(count - 1).locator(".main-svg").first.wait_for(timeout=60_000)
    return page, requests, messages


def brightness(page):
    """Return the sum of red, green and blue of the text in the charts, 0 to 765."""
    ink = page.eval_on_selector(".xtick text", "text => text.style.fill")
    return sum(map(int, ink[4:-1].split(",")))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_within_the_page(browser, address, width, scheme):
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    page, requests, messages = opened(browser, address, **options)
    assert requests == [address]
    assert messages == []
    charts = page.locator(".chart").count()
    assert charts >= 15
    assert page.locator(".js-plotly-plot").count() == charts
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.eval_on_selector_all(
        ".chart text", "all => all.map(each => parseFloat(getComputedStyle(each).fontSize))"
    )
    assert min(sizes) >= 8
    assert (brightness(page) > 380) == (scheme == "dark")
    page.close()


def test_charts_fit_the_paper_and_are_dark_on_white(browser, address):
    page, _, _ = opened(browser, address, color_scheme="dark", viewport={"width": 1280, "height": 900})
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    widths = page.eval_on_selector_all(".chart .main-svg", "all => all.map(each => each.clientWidth)")
    assert max(widths) <= 700
    assert brightness(page) < 380
    assert len(page.pdf()) > 50_000
    page.close()
