"""The Live tab in Chromium, with a film for a camera: every picture shown is compared with the frame it came from."""

import base64
import os
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from helpers import RED, TEMPLATE, identity_model, make_config, red_model
from moving import WALL, Frame, film, number_of, write_camera

from cyclegan.bench import EXAMPLE
from cyclegan.faces.align import Template
from cyclegan.faces.detect import FaceDetector
from cyclegan.images import load_image
from cyclegan.translator import Translator
from cyclegan.ui import build_demo, launch
from cyclegan.zoo import Zoo

pytest.importorskip("playwright", reason="Playwright is not installed.") if not os.environ.get("CI") else None
from playwright.sync_api import Page, expect  # noqa: E402
from steps import violations  # noqa: E402

SCRIPT = (
    ("rest", 1.0), ("pan", 2.0), ("zoom", 2.0), ("roll", 2.0), ("covered", 1.5), ("rest", 1.5), ("leave", 0.5),
    ("away", 1.5), ("return", 0.5),
)  # fmt: skip
OTHER_WALL = (60, 140, 200)
WAIT = 60_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="session")
def portrait():
    photo = load_image(EXAMPLE)
    return photo, FaceDetector().detect(photo)[0].landmarks


@pytest.fixture(scope="session")
def frames(portrait):
    return list(film(*portrait, script=SCRIPT, numbered=True))


@pytest.fixture(scope="session")
def live_browser(open_chromium, frames, portrait, tmp_path_factory):
    """A function that opens Chromium with a film before a wall of this colour as its camera."""
    folder, opened = tmp_path_factory.mktemp("camera"), {}

    def open_browser(wall):
        if wall not in opened:
            still = film(*portrait, script=(("rest", 1.0),), wall=wall, numbered=True)
            camera = write_camera(folder / f"{wall[0]}.mjpeg", frames if wall == WALL else still)
            opened[wall] = open_chromium(f"--use-file-for-fake-video-capture={camera}")
        return opened[wall]

    return open_browser


@pytest.fixture(scope="session")
def address(tmp_path_factory, cache):
    """A page with a model that reddens (A to B) or changes nothing (B to A), and another that does nothing."""
    root = tmp_path_factory.mktemp("live")
    template = Template(TEMPLATE.landmarks, 1.2)
    red_model(make_config("red", template=template)).save_pretrained(root / "red")
    identity_model(make_config("same")).save_pretrained(root / "same")
    demo = build_demo(Translator(Zoo(root)))
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True)
    yield url
    demo.close(verbose=False)


@pytest.fixture
def visit_live(address, live_browser):
    contexts, errors = [], []

    def visit(wall=WALL, script: str | None = None, **options) -> Page:
        context = live_browser(wall).new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: errors.append(str(error)))
        if script:
            page.add_init_script(script)
        page.goto(address)
        page.get_by_role("tab", name="Live").click()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors, "a script of the page failed"


def switch_on(page: Page) -> None:
    page.get_by_role("button", name="Switch the camera on").click()
    page.wait_for_function("document.querySelector('#stage canvas').dataset.frame", timeout=WAIT)


@dataclass
class Shown:
    frame: int
    faces: int
    direction: str
    picture: np.ndarray


def look(page: Page) -> Shown:
    """What is on the canvas now."""
    data = page.evaluate(
        """() => {
            const canvas = document.querySelector("#stage canvas");
            return {...canvas.dataset, url: canvas.toDataURL("image/png")};
        }"""
    )
    picture = load_image(base64.b64decode(data["url"].partition(",")[2]))
    return Shown(int(data["frame"]), int(data["faces"]), data["direction"], picture)


def reddened(shown: Shown, frame: Frame) -> float:
    """How far the middle of the face has moved from the film's frame towards red, 0 to 1."""
    image, points = at_size_of(shown, frame)
    near = distances(image, points) < 0.4
    change, all_the_way = shown.picture[near] - image[near], (np.array(RED) + 1) * 127.5 - image[near]
    return float((change * all_the_way).sum() / (all_the_way**2).sum())


def disturbed(shown: Shown, frame: Frame, beyond: float) -> float:
    """Share of pixels more than this many eye distances from the face that changed by more than a camera does."""
    image, points = at_size_of(shown, frame)
    far = distances(image, points) > beyond
    return float((np.abs(shown.picture[far] - image[far]).max(1) > 50).mean())


def at_size_of(shown: Shown, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    height, width = shown.picture.shape[:2]
    image = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA).astype(float)
    return image, frame.landmarks * width / frame.image.shape[1]


def distances(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Of every pixel from the middle of the face, in eye distances."""
    rows, columns = np.indices(image.shape[:2])
    x, y = points.mean(0)
    return np.hypot(columns - x, rows - y) / np.hypot(*(points[1] - points[0]))


def test_a_moving_face_is_translated_and_nothing_else(visit_live, frames):
    page = visit_live()
    switch_on(page)
    seen: dict[int, Shown] = {}
    wanted = {"rest", "pan", "zoom", "roll", "covered", "away"}
    for _ in range(600):
        shown = look(page)
        seen.setdefault(number_of(shown.picture), shown)
        parts = [frames[number].part for number, each in seen.items() if each.faces]
        still = {frames[number].part for number, each in seen.items() if not each.faces}
        if all(parts.count(part) >= 2 for part in wanted - {"covered", "away"}) and {"covered", "away"} <= still:
            break
        page.wait_for_timeout(60)
    else:
        pytest.fail(f"Only these parts of the film were seen: {sorted(set(parts) | still)}")
    for number, shown in seen.items():
        frame = frames[number]
        where = f"{frame.part}, frame {number}, {shown.picture.shape[1]} pixels wide"
        assert shown.faces == 0 or frame.part not in ("covered", "away"), where
        if shown.faces:
            assert 0.35 < reddened(shown, frame) < 0.65, where  # half of red is mixed in
            assert disturbed(shown, frame, beyond=4) < 0.01, where
        else:
            assert disturbed(shown, frame, beyond=0) < 0.01, where


def test_direction_model_and_view_change_without_a_restart(visit_live, frames):
    page = visit_live()
    switch_on(page)
    settled(page, lambda shown: shown.faces and reddened(shown, frames[number_of(shown.picture)]) > 0.35)
    page.get_by_role("radio", name="Change back").check()
    settled(page, lambda shown: shown.faces and shown.direction == "B2A")
    settled(page, lambda shown: shown.faces and abs(reddened(shown, frames[number_of(shown.picture)])) < 0.1)
    page.get_by_role("radio", name="Same").check()
    settled(page, lambda shown: shown.faces and shown.direction == "A2B")
    page.get_by_role("radio", name="Red").check()
    settled(page, lambda shown: shown.faces and reddened(shown, frames[number_of(shown.picture)]) > 0.35)
    video = page.locator("#stage video")
    expect(video).to_be_hidden()
    page.get_by_role("radio", name="Side by side").check()
    expect(video).to_be_visible()
    flipped = "getComputedStyle(document.querySelector('#stage canvas')).transform"
    assert page.evaluate(flipped) == "matrix(-1, 0, 0, 1, 0, 0)"
    page.get_by_role("checkbox", name="Mirror").uncheck()
    page.wait_for_function(f"{flipped} === 'none'")
    expect(page.locator("#stage .figures")).to_contain_text("frames per second")
    expect(page.locator("#stage .figures")).to_contain_text("ms behind")


def settled(page: Page, condition) -> Shown:
    for _ in range(600):
        shown = look(page)
        if condition(shown):
            return shown
        page.wait_for_timeout(50)
    raise AssertionError("It was not seen.")


def test_frozen_frames_become_the_photo_again_and_again(visit_live):
    page = visit_live(OTHER_WALL)  # a film in which the face is always in view
    for _ in range(2):
        switch_on(page)
        page.get_by_role("button", name="Freeze").click()
        expect(page.get_by_role("tab", name="Photo")).to_have_attribute("aria-selected", "true", timeout=WAIT)
        expect(page.locator("#hint")).to_contain_text("1 face found", timeout=WAIT)
        page.get_by_role("tab", name="Live").click()


def test_two_viewers_never_see_each_other(visit_live):
    pages = {wall: visit_live(wall) for wall in (WALL, OTHER_WALL)}
    pages[OTHER_WALL].get_by_role("radio", name="Change back").check()
    for page in pages.values():
        switch_on(page)
    for _ in range(15):
        for wall, page in pages.items():
            shown = look(page)
            corner = shown.picture[2:12, -12:-2].reshape(-1, 3).mean(0)
            assert np.abs(corner - wall).max() < 25  # the walls differ by 70 and more
            assert shown.direction == ("A2B" if wall == WALL else "B2A")
            page.wait_for_timeout(60)
    assert all(look(page).frame > 3 for page in pages.values())


def test_the_camera_goes_off_and_on_again(visit_live):
    page = visit_live(OTHER_WALL)
    switch_on(page)
    page.get_by_role("button", name="Switch off").click()
    expect(page.get_by_text("Switch the camera on to see yourself translated.")).to_be_visible()
    assert page.evaluate("document.querySelector('#stage video').srcObject") is None
    before = look(page).frame
    page.get_by_role("button", name="Switch the camera on").click()
    settled(page, lambda shown: shown.frame > before and shown.faces == 1)


@pytest.mark.parametrize(
    "camera, advice",
    [
        ("() => Promise.reject(new DOMException('', 'NotFoundError'))", "No camera was found. Connect one"),
        ("() => Promise.reject(new DOMException('', 'NotAllowedError'))", "Allow it beside the address"),
        ("() => Promise.reject(new DOMException('', 'NotReadableError'))", "another program may have it"),
    ],
    ids=["none", "forbidden", "taken"],
)
def test_without_a_camera_the_page_says_what_to_do(visit_live, camera, advice):
    page = visit_live(OTHER_WALL, f"navigator.mediaDevices.getUserMedia = {camera};")
    page.get_by_role("button", name="Switch the camera on").click()
    expect(page.locator("#stage .say")).to_contain_text(advice)
    expect(page.get_by_role("button", name="Switch the camera on")).to_be_enabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_for_assistive_technology(visit_live, scheme):
    page = visit_live(OTHER_WALL, color_scheme=scheme)
    expect(page.get_by_role("button", name="Switch the camera on")).to_be_visible()
    assert not violations(page)
    switch_on(page)
    assert not violations(page)
