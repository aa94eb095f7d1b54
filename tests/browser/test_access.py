"""The page for everybody: assistive technology, keyboard only, a server that goes away, and no traces left behind."""

import os

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed.") if not os.environ.get("CI") else None
from playwright.sync_api import Page, expect  # noqa: E402
from steps import button, cards, choose, free_port, server, translate, upload, violations  # noqa: E402

FAKE_PAGE = """
import sys
from fake_translator import FakeTranslator
from cyclegan.ui import build_demo, launch
translator = FakeTranslator()
if "slow" in sys.argv:
    translator.gate.clear()  # translations last until the server dies
launch(build_demo(translator), server_port=int(sys.argv[-1]), quiet=True)
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_for_assistive_technology(visit, pictures, scheme):
    page = visit(color_scheme=scheme)
    assert not violations(page)
    upload(page, pictures["red"])
    page.get_by_role("button", name="Add steps").click()
    choose(page, "By hand")
    expect(page.get_by_label("number input for Across")).to_be_visible()
    translate(page)
    expect(cards(page)).to_have_count(1)
    page.get_by_text("Heat maps").click()
    page.get_by_role("button", name="All directions").click()
    page.get_by_text("All 3 directions").wait_for()
    page.locator("#gallery button").first.click()
    expect(page.locator("#visit button")).to_have_count(2)
    assert not violations(page)
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#models article").first).to_be_visible(timeout=60_000)  # a busy machine counts slowly
    assert not violations(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_while_a_batch_runs_and_after(visit, pictures, scheme):
    page = visit(color_scheme=scheme)
    page.get_by_role("tab", name="Batch").click()
    expect(page.get_by_text("Each file is listed here")).to_be_visible()
    assert not violations(page)
    page.locator("#batch-files input[type=file]").set_input_files([pictures["red"], pictures["notes"]])
    page.get_by_role("button", name="Translate all").click()
    expect(page.locator("#batch-status")).to_contain_text("Done. 1 of 2 translated")
    expect(page.get_by_role("button", name="Download results")).to_be_visible()
    assert not violations(page)


def test_every_picture_says_what_it_shows(visit, pictures):
    page = visit()
    upload(page, pictures["red"])
    translate(page)
    expect(cards(page)).to_have_count(2)
    pictures_shown = page.locator("img:visible").evaluate_all("all => all.map(i => [i.alt, !!i.closest('button')])")
    assert len(pictures_shown) >= 9
    assert all(alt or in_button for alt, in_button in pictures_shown)  # a button has a name of its own


def focus_on(page: Page, target, presses: int = 60) -> None:
    """Press Tab until the target has the focus."""
    for _ in range(presses):
        page.keyboard.press("Tab")
        if target.evaluate("e => e === document.activeElement || e.contains(document.activeElement)"):
            return
    raise AssertionError("It cannot be reached by the Tab key.")


def test_everything_can_be_reached_and_used_by_keyboard(visit):
    page = visit()
    focus_on(page, page.get_by_role("button", name="Upload file"))
    focus_on(page, page.get_by_role("button", name="Try: Astronaut"))
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(2)
    page.locator("body").evaluate("() => document.activeElement.blur()")
    focus_on(page, page.get_by_role("radio", name="Face 1"))
    page.keyboard.press("Space")
    expect(page.get_by_role("radio", name="Face 1")).to_be_checked()
    focus_on(page, page.get_by_role("radio", name="Glasses", exact=True))
    focus_on(page, page.get_by_role("radio", name="Remove glasses"))
    page.keyboard.press("Space")
    focus_on(page, page.get_by_role("button", name="Add steps"))
    page.keyboard.press("Enter")
    focus_on(page, page.get_by_label("Then").first)
    page.keyboard.press("Escape")
    focus_on(page, button(page))
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_contain_text("Remove glasses")
    focus_on(page, page.get_by_role("slider", name="Boundary between before and after"))
    page.keyboard.press("ArrowLeft")
    focus_on(page, page.get_by_label("range slider for Strength"))
    focus_on(page, page.get_by_role("button", name="Download PNG"))
    focus_on(page, page.get_by_text("Heat maps").first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="Heat map").first).to_be_visible()
    focus_on(page, page.locator("#visit button").first)
    page.get_by_role("tab", name="Photo").focus()
    for name in ("Live", "Batch", "Models"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("tab", name=name)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#models article").first).to_be_visible(timeout=60_000)  # a busy machine counts slowly


def test_nothing_stays_in_the_browser(visit, pictures):
    page = visit()
    upload(page, pictures["red"])
    translate(page)
    expect(cards(page)).to_have_count(2)
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert "red" not in kept and "image" not in kept and len(kept) < 500
    assert page.evaluate("indexedDB.databases()") == [] and page.evaluate("caches.keys()") == []


def test_the_page_outlives_its_server(visit, pictures):
    port = free_port()
    message = "Connection to the server was lost"
    with server("-c", FAKE_PAGE, "slow", port=port, kill=True) as url:
        page = visit(url)
        upload(page, pictures["red"])
        translate(page)
        expect(page.get_by_role("button", name="Translating…")).to_be_visible()
    expect(page.get_by_text(message)).to_be_visible(timeout=60_000)
    with server("-c", FAKE_PAGE, port=port):
        expect(page.get_by_text(message)).to_have_count(0, timeout=60_000)
        expect(page.get_by_text("Drop a photo here")).to_be_visible(timeout=60_000)
        upload(page, pictures["red"])
        translate(page)
        expect(cards(page)).to_have_count(2)
