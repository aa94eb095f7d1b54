"""The Batch tab as a visitor meets it, in Chromium."""

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # for test_video, when only this folder is run

from test_video import make_video

pytest.importorskip("playwright", reason="Playwright is not installed.") if not os.environ.get("CI") else None
from playwright.sync_api import Page, expect  # noqa: E402

expect.set_options(timeout=30_000)


def open_batch(page: Page) -> None:
    page.get_by_role("tab", name="Batch").click()
    expect(page.get_by_text("Each file is listed here")).to_be_visible()


def choose_files(page: Page, *paths) -> None:
    page.locator("#batch-files input[type=file]").set_input_files(paths)
    expect(start(page)).to_be_enabled()


def start(page: Page):
    return page.get_by_role("button", name="Translate all")


def rows(page: Page):
    return page.locator("#batch-status tbody tr")


def download(page: Page) -> zipfile.ZipFile:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download results").click()
    return zipfile.ZipFile(waiting.value.path())


def test_many_files_go_in_and_a_zip_comes_out(visit, pictures, translator, tmp_path):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(pictures["blue"], "trip/inside.png")
    clip = make_video(tmp_path / "clip.mp4", frames=4)
    page = visit()
    open_batch(page)
    expect(start(page)).to_be_disabled()
    choose_files(page, pictures["red"], pictures["notes"], tmp_path / "more.zip", pictures["black"], clip)
    page.locator("#batch-direction").get_by_role("radio", name="Remove glasses").check()
    start(page).click()
    expect(page.locator("#batch-status")).to_contain_text("Done. 3 of 5 translated")
    expect(page.locator("#batch-status")).to_contain_text("2 could not be used")
    expect(rows(page)).to_have_count(5)
    for number, words in enumerate(
        ["2 faces, cycle error 0.032", "not an image we can read", "2 faces", "No face was found", "Video of 4 frames"]
    ):
        expect(rows(page).nth(number)).to_contain_text(words)
    expect(rows(page).nth(2)).to_contain_text("trip/inside.png")
    archive = download(page)
    assert sorted(archive.namelist()) == ["clip.mp4", "inside.png", "manifest.json", "red.png"]
    manifest = json.loads(archive.read("manifest.json"))
    assert manifest["steps"][0]["direction"] == "B2A" and manifest["files"][1]["photo"] == "notes.png"
    expect(start(page)).to_be_enabled()


def test_stop_keeps_what_is_done(visit, pictures, translator):
    page = visit()
    open_batch(page)
    choose_files(page, pictures["red"], pictures["blue"], pictures["black"])
    translator.gate.clear()
    start(page).click()
    expect(rows(page).nth(0)).to_contain_text("Working")
    expect(rows(page).nth(2)).to_contain_text("Waiting")
    page.get_by_role("button", name="Stop and keep what is done").click()
    expect(page.get_by_role("button", name="Stopping…")).to_be_disabled()
    translator.gate.set()
    expect(page.locator("#batch-status")).to_contain_text("Stopped. 1 of 3 translated")
    expect(rows(page).nth(1)).to_contain_text("Not begun")
    assert sorted(download(page).namelist()) == ["manifest.json", "red.png"]
    expect(start(page)).to_be_visible()


def test_a_visitor_who_leaves_ends_the_batch(visit, pictures, translator):
    page = visit()
    open_batch(page)
    many = pictures["red"].with_name("many.zip")
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(150):
            archive.write(pictures["red"], f"{number}.png")
    choose_files(page, many)
    translator.gate.clear()
    start(page).click()
    expect(rows(page).nth(0)).to_contain_text("Working")
    page.close()
    translator.gate.set()
    other = visit()
    seen = -1
    for _ in range(100):  # until nothing is translated any more
        other.wait_for_timeout(1500)
        if len(translator.calls) == seen:
            break
        seen = len(translator.calls)
    assert len(translator.calls) < 150


def test_those_who_wait_are_told_their_place(visit, pictures, translator):
    translator.gate.clear()
    pages = [visit() for _ in range(4)]
    for page in pages:
        open_batch(page)
        choose_files(page, pictures["red"])
        start(page).click()
    expect(pages[0].locator("#batch-status tbody")).to_contain_text("Working")
    expect(pages[3].locator("#batch-status")).to_contain_text("queue: 2/2")
    translator.gate.set()
    for page in pages:
        expect(page.locator("#batch-status")).to_contain_text("Done. 1 of 1 translated")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_tab_fits_the_screen(visit, pictures, width):
    page = visit(width=width)
    open_batch(page)
    choose_files(page, pictures["red"], pictures["notes"])
    start(page).click()
    expect(page.locator("#batch-status")).to_contain_text("Done.")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    box = rows(page).nth(1).bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
