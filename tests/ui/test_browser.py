"""The pages in Chromium: used by mouse and by keyboard, in light and dark colours."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from tests.ui.ui_worlds import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from feature_store import FeatureStore

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Without a sandbox, since tests may run as root, and without network requests of Chromium's own.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_COMMAND = "import sys; from feature_store.cli import main; main()"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    assert path is not None, f"the pages are tested in Chromium: put one of {', '.join(_NAMES)} on the PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


TOKEN = "open-sesame-0123456789"


@pytest.fixture(scope="module")
def address(shop: FeatureStore) -> Iterator[str]:
    """Where `feature-store ui` serves the project, with a token."""
    arguments = ["ui", "--repo", str(shop.config.folder), "--port", "0", "--token", TOKEN]
    server = subprocess.Popen([sys.executable, "-c", _COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    told = server.stderr.readline()
    found = re.match(r"(http://127\.0\.0\.1:\d+)/\?token=… shows shop", told)
    assert found is not None, told
    yield found[1]
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    assert server.stderr.read() == ""
    server.stderr.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page for a visitor who has given the token. Console errors, dialogs and foreign requests fail the test."""
    context = browser.new_context(base_url=address, viewport={"width": 1100, "height": 800})
    problems: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda asked: problems.append(asked.url) if not asked.url.startswith(address) else None)
    page.goto(f"/?token={TOKEN}")
    assert page.url == f"{address}/"
    yield page
    context.close()
    assert problems == []


def _whole(page: Page) -> None:
    """Wait until no value is pending."""
    page.locator("meta[http-equiv=refresh]").wait_for(state="detached")


def test_from_the_catalogue_to_a_service(page: Page) -> None:
    page.get_by_role("link", name="Catalogue", exact=True).click()
    page.get_by_label("Words").fill("basket mean")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="stats:mean_basket").click()
    _whole(page)
    assert page.get_by_role("heading", level=1).inner_text() == "mean_basket"
    assert page.locator("svg.histogram rect").count() == 24
    page.get_by_role("link", name="upstream and downstream").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Lineage of stats:mean_basket"
    page.locator("a.node.services", has_text="ranking").click()
    assert page.locator("a.node.services.focus").count() == 1
    page.get_by_role("link", name="Open its page").click()
    assert page.get_by_role("heading", level=1).inner_text() == "ranking"
    assert page.url.endswith("/service/ranking")


def test_a_view_is_opened_in_the_graph(page: Page) -> None:
    page.goto("/lineage")
    assert page.locator("a.node.features").count() == 0
    page.locator("a.node.views", has_text="stats").click()
    assert page.locator("a.node.features").count() == 6
    page.locator("a.node.features", has_text="mean_basket").click()
    page.locator("a.node.focus").click()
    assert page.url.endswith("/feature/stats/mean_basket")


def test_the_slider_changes_what_is_kept(page: Page) -> None:
    page.goto("/prune?service=ranking&n_user=1&n_item=100")
    _whole(page)
    slider, kept = page.get_by_role("slider"), page.locator("#kept")
    every = int(kept.inner_text())
    before = page.locator("#bytes").inner_text()
    slider.focus()
    page.keyboard.press("Home")
    assert int(kept.inner_text()) < every
    assert page.locator("#bytes").inner_text() != before
    assert page.locator("#accounts .badge.warn").count() == every - int(kept.inner_text())
    assert page.locator(".curve circle.chosen").get_attribute("data-point") == "0"
    shown = kept.inner_text(), page.locator("#share").inner_text()
    page.get_by_role("button", name="Show").click()  # the server shows the same as the script
    assert (kept.inner_text(), page.locator("#share").inner_text()) == shown


def test_the_slider_works_without_scripts(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/?token={TOKEN}")
    page.goto("/prune?service=ranking&n_user=1&n_item=100&point=2")
    page.wait_for_selector("#kept")
    first = page.locator("#bytes").inner_text()
    page.locator("#point").press("ArrowLeft")
    page.get_by_role("button", name="Show").click()
    page.wait_for_selector("#kept")
    assert page.locator("#bytes").inner_text() != first
    context.close()


def test_one_entity_is_looked_up(page: Page) -> None:
    page.get_by_role("link", name="Look up", exact=True).click()
    page.get_by_label("View or service").select_option("view:activity")
    page.get_by_role("button", name="Choose").click()
    page.get_by_label("user_id").fill("1")
    page.get_by_role("button", name="Look up").click()
    page.get_by_text("price_mean_1d: ").click()
    assert page.get_by_role("region", name="Tiles of price_mean_1d").locator("tbody tr").count() >= 2


def test_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"
    _press_until(page, "document.activeElement.textContent.trim() === '2'")  # views
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.goto("/catalogue")
    _press_until(page, "document.activeElement.id === 'q'")
    page.keyboard.type("orders")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=orders**")
    _press_until(page, "document.activeElement.textContent.trim() === 'stats:orders'")
    page.keyboard.press("Enter")
    page.wait_for_url("**/feature/stats/orders")
    page.goto("/lineage")
    _press_until(page, "document.activeElement.matches('a.node.services')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/lineage?kind=services**")


def _press_until(page: Page, reached: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate(reached):
            return
    raise AssertionError(f"no Tab leads to where {reached}")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/catalogue",
        "/feature/stats/orders",
        "/view/about",
        "/service/ranking",
        "/lineage",
        "/prune?service=ranking",
        "/lookup?of=view:activity&user_id=1",
    ],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(browser: Browser, address: str, path: str, scheme: str) -> None:
    context = browser.new_context(base_url=address, viewport={"width": 360, "height": 700}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"/?token={TOKEN}")
    page.goto(path)
    _whole(page)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "nothing is wider than the screen"
    assert page.evaluate(_CONTRAST) == []
    context.close()


# The contrast of each text to its background, by WCAG 2.2, must be at least 4.5.
_CONTRAST = """() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const [r, g, b, a] = parse(getComputedStyle(one).backgroundColor);
      if (a === undefined || a > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *:not(svg *):not(script)')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest('.skip')) continue;
    const [light, dark] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => b - a);
    if ((light + 0.05) / (dark + 0.05) < 4.5) poor.push(`${element.tagName} ${element.className} ${element.textContent.slice(0, 40)}`);
  }
  return poor;
}"""


def test_hostile_texts_stay_texts(page: Page) -> None:
    for path in ("/view/about", "/feature/about/price", "/entity/item", "/catalogue", "/lineage?kind=views&name=about"):
        page.goto(path)
        _whole(page)
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 0
    page.goto("/entity/item")
    assert HOSTILE.replace("\0", "\ufffd").split("\u202e")[0] in page.locator(".lead").inner_text()


def test_a_visitor_without_the_token_sees_nothing(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address)
    page = context.new_page()
    answer = page.goto("/catalogue")
    assert answer is not None
    assert answer.status == 401
    assert "stats" not in page.content()
    context.close()
