"""What a visitor does and sees, as the tests say it; and servers of their own for tests that need one."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

expect.set_options(timeout=15_000)

ROOT = Path(__file__).parents[2]

WATCHED = """
import runpy, sys
seen, script, *rest = sys.argv[1:]
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = args[1] if event == "socket.connect" else args[0]
        host = address[0] if isinstance(address, tuple) else address
        if str(host) not in ("None", "127.0.0.1", "localhost", "0.0.0.0", "::1") and not str(host).startswith("/"):
            with open(seen, "a") as file:
                print(event, host, file=file)
sys.addaudithook(hook)
sys.argv = [script, *rest]
runpy.run_path(script, run_name="__main__")
"""
"""Python code that runs a script and writes down whom it asks but this machine: FILE SCRIPT ARGUMENTS."""


QUIET = ("CI", "TF_BUILD", "JENKINS_URL")
"""Environment variables with which some libraries send no telemetry; visitors' servers do not have them."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def server(*command: str, port: int | None = None, path: str = "", kill: bool = False) -> Iterator[str]:
    """The address of a page that ``python COMMAND --port PORT`` serves; in the end it is stopped, or killed."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}/"
    process = subprocess.Popen(
        [sys.executable, *command, "--port", str(port)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in QUIET}
        | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(900):
            assert process.poll() is None, process.stdout.read().decode()
            try:
                urllib.request.urlopen(url + path, timeout=10).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.kill() if kill else process.terminate()
        output, _ = process.communicate(timeout=30)
    assert b"Traceback" not in output, output.decode()


def upload(page: Page, path, hint: str = "faces found") -> None:
    page.locator("#photo input[type=file]").set_input_files(path)
    expect(page.locator("#hint")).to_contain_text(hint)


def button(page: Page):
    return page.get_by_role("button", name="Translate", exact=True)


def translate(page: Page) -> None:
    button(page).click()


def choose(page: Page, label: str) -> None:
    page.get_by_role("radio", name=label).check()


def cards(page: Page):
    return page.locator("#details section")


def toast(page: Page):
    return page.get_by_test_id("toast-text")


def until(page: Page, condition) -> None:
    """Wait for something that happens on the server and does not show in the page."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("It did not happen within 10 seconds.")


def no_sideways_scroll(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def click_photo(page: Page, x: float, y: float) -> None:
    """Click at fractions of the shown picture (which keeps its shape of 4:3 inside the frame)."""
    picture = page.locator("#photo .image-frame img")
    box = picture.bounding_box()
    width, height = min(box["width"], box["height"] * 4 / 3), min(box["height"], box["width"] * 3 / 4)
    left, top = (box["width"] - width) / 2, (box["height"] - height) / 2
    picture.click(position={"x": left + x * width, "y": top + y * height})


# Gradio's button that adds to chosen files holds the button of its own file input, and is named by a key of its texts.
_GRADIO_ADDS_FILES = 'aria-label="common.upload"'


def violations(page: Page) -> list[str]:
    """Serious faults of ours by the rules of axe-core, each with where it is."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed.")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node['html'][:160]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if _GRADIO_ADDS_FILES not in node["html"]
    ]
