"""A real Chromium against a real server. Without Chromium the tests skip, except where CI is set: there they fail."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))  # for fake_translator, when only this folder is run

from fake_translator import FakeTranslator
from served import CHROMIUM_FLAGS, CHROMIUM_NAMES

from cyclegan.ui import build_demo, launch


def missing(reason: str):
    if os.environ.get("CI"):
        pytest.fail(f"{reason} CI must run the browser tests.", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def open_chromium():
    """A function that opens Chromium, with flags of its own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed.")
    with sync_playwright() as playwright:
        installed = [path for name in CHROMIUM_NAMES if (path := shutil.which(name))]
        own = playwright.chromium.executable_path
        executable = next(iter(installed), own if os.path.exists(own) else None)
        if executable is None:
            missing("No Chromium was found.")
        browsers = []

        def open_chromium(*flags: str):
            browsers.append(playwright.chromium.launch(executable_path=executable, args=[*CHROMIUM_FLAGS, *flags]))
            return browsers[-1]

        yield open_chromium
        for browser in browsers:
            browser.close()


@pytest.fixture(scope="session")
def browser(open_chromium):
    return open_chromium()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The folder into which the page writes uploads and results."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def served(cache):
    """The page around a fake translator, as (translator, address, demo)."""
    translator = FakeTranslator(problems={"broken": "The weights of broken are cut off. Copy the folder again."})
    demo = build_demo(translator)
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True)
    yield translator, url, demo
    demo.close(verbose=False)


@pytest.fixture
def translator(served):
    translator = served[0]
    translator.calls.clear()
    yield translator
    translator.gate.set()
    translator.look.set()
    translator.fail_with = None


@pytest.fixture
def visit(browser, served):
    """Call it to become a new visitor. Any request to another host and any script error fails the test."""
    contexts, foreign, errors = [], [], []

    def visit(url=served[1], width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        own = (url.partition("?")[0], "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or foreign.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.get_by_role("button", name="Translate", exact=True).wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not foreign, "the page asked other hosts"
    assert not errors, "a script of the page failed"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Paths of small files: two photos with (pretended) faces, one without, and a file that is no image."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = {name: folder / f"{name}.png" for name in ("red", "blue", "black")}
    for name, path in paths.items():
        Image.new("RGB", (400, 300), name).save(path)
    paths["notes"] = folder / "notes.png"
    paths["notes"].write_bytes(np.random.default_rng(0).bytes(2000))
    return paths
