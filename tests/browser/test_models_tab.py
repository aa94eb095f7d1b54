"""The Models tab: cards, and models that a visitor adds."""

import os
import shutil
from contextlib import contextmanager

import pytest
from fake_translator import FIVE, FakeTranslator
from helpers import identity_model, make_config
from PIL import Image

from cyclegan import guests
from cyclegan.ui import build_demo, launch

pytest.importorskip("playwright", reason="Playwright is not installed.") if not os.environ.get("CI") else None
from playwright.sync_api import expect  # noqa: E402
from steps import cards, choose, toast, translate, upload  # noqa: E402

CARD = """---
license: other
---
# Glasses

Intro with [a link](https://example.org/paper) and ![a picture](https://example.org/spy.png).
<img src="https://example.org/spy2.png"><script>document.title = "owned"</script>

## Limitations

- Frames are *soft*.

## Data

Secret sauce.

<!-- a note
to myself -->
"""


@pytest.fixture(scope="module")
def open_page(cache, tmp_path_factory):
    """A page on which visitors may add models; one of its own has a card and a grid."""
    root = tmp_path_factory.mktemp("models")
    (root / "glasses").mkdir()
    (root / "glasses" / "README.md").write_text(CARD)
    Image.new("RGB", (200, 100), "orange").save(root / "glasses" / "grid.png")
    Image.new("RGB", (200, 100), "purple").save(root / "glasses" / "failures.jpg")
    translator = FakeTranslator([FIVE[0], FIVE[1]], root=root)
    demo = build_demo(translator, add_models=True)
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True)
    yield translator, url
    demo.close(verbose=False)


@pytest.fixture
def model_files(tmp_path):
    """The files of a sound model whose words try to be more than words."""
    folder = tmp_path / "mine"
    words = '<img src="https://example.org/spy3.png">'
    config = make_config("mine", title=f"Beard {words}", description=words, directions={"A2B": words, "B2A": "Shave"})
    identity_model(config).save_pretrained(folder)
    (folder / "README.md").write_text(CARD.replace("Glasses", "Beard"))
    return folder


def test_cards_show_figures_grid_and_limitations(visit, open_page):
    page = visit(open_page[1])
    page.get_by_role("tab", name="Models").click()
    first = page.locator("#models article").first
    expect(page.locator("#models article")).to_have_count(2)
    expect(first.get_by_role("heading", name="Glasses")).to_be_visible()
    expect(first.get_by_role("heading", name="Limitations")).to_be_visible()
    expect(first.get_by_text("Frames are soft.").first).to_be_visible()
    expect(first.get_by_role("img", name="Sample faces of the model Glasses")).to_be_visible()
    expect(first.get_by_role("img", name="Faces on which the model Glasses fails")).to_be_visible()
    expect(first).to_contain_text("CC BY-NC 4.0")
    expect(first).to_contain_text(open_page[0].zoo.entries["glasses"].revision)
    expect(first.get_by_text("Secret sauce.")).to_be_hidden()
    first.get_by_text("The whole card").click()
    expect(first.get_by_text("Secret sauce.")).to_be_visible()
    expect(first.get_by_role("link", name="a link")).to_have_attribute("rel", "noopener noreferrer")
    expect(first).not_to_contain_text("to myself")
    assert first.locator("img").count() == 2 and page.title() == "Face translation"


def test_a_model_folder_serves_the_visitor_who_brought_it(visit, open_page, pictures, model_files):
    page, other = visit(open_page[1]), visit(open_page[1])
    page.get_by_role("tab", name="Models").click()
    page.locator("#model-files input[type=file]").set_input_files(list(model_files.iterdir()))
    expect(page.locator("#added article")).to_have_count(1)
    expect(page.locator("#added")).to_contain_text("Frames are soft.")
    page.get_by_role("tab", name="Photo").click()
    choose(page, "Beard")
    expect(page.locator("#about")).to_contain_text('<img src="https://example.org/spy3.png">')
    upload(page, pictures["red"])
    choose(page, "Shave")
    translate(page)
    expect(cards(page)).to_have_count(2)
    assert open_page[0].calls[-1].model.startswith("guest-")
    page.get_by_role("button", name="Copy link to these settings").click()
    expect(page.get_by_role("button", name="Added models have no link")).to_be_visible()
    expect(other.get_by_role("radio", name="Beard")).to_have_count(0)
    again = visit(open_page[1])
    expect(again.get_by_role("radio", name="Age")).to_be_visible()
    expect(again.get_by_role("radio", name="Beard")).to_have_count(0)


def test_what_is_no_model_is_refused_with_a_reason(visit, open_page, model_files, tmp_path):
    page = visit(open_page[1])
    page.get_by_role("tab", name="Models").click()
    files = page.locator("#model-files input[type=file]")
    files.set_input_files([model_files / "config.json"])
    expect(toast(page).last).to_have_text("The model has no model.safetensors.")
    damaged = tmp_path / "damaged"
    shutil.copytree(model_files, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    files.set_input_files(list(damaged.iterdir()))
    expect(toast(page).last).to_contain_text("cut off or damaged")
    page.get_by_label("Model on the Hub").fill("../../etc")
    page.get_by_role("button", name="Add from the Hub").click()
    expect(toast(page).last).to_contain_text("owner/model")
    expect(page.locator("#added")).to_have_count(0)


def test_a_model_from_the_hub(visit, open_page, model_files, monkeypatch):
    @contextmanager
    def from_hub(repo_id):
        assert repo_id == "someone/beard"
        yield model_files

    monkeypatch.setattr(guests, "from_hub", from_hub)
    page = visit(open_page[1])
    page.get_by_role("tab", name="Models").click()
    page.get_by_label("Model on the Hub").fill(" someone/beard ")
    page.get_by_role("button", name="Add from the Hub").click()
    expect(page.locator("#added article")).to_have_count(1)


def test_elsewhere_models_cannot_be_added(visit):
    page = visit()
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#models article")).to_have_count(2)
    expect(page.get_by_text("Add a model")).to_have_count(0)
    expect(page.locator("#model-files")).to_have_count(0)
