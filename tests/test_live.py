"""The service behind the Live tab: frames of several viewers in, each one's own out."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import draw_photo, texture, tinted_red

from cyclegan.errors import BadImageError, CycleGANError, UnknownModelError
from cyclegan.faces.detect import FaceDetector
from cyclegan.faces.track import LIVE_SIDE
from cyclegan.images import encode_jpeg, encode_png, load_image
from cyclegan.translator import Translator
from cyclegan.ui import live
from cyclegan.ui.live import FULL, LiveService

PLACE = (200, 60, 260)
FRAME = encode_jpeg(draw_photo(PLACE), quality=95)
EMPTY = encode_jpeg(texture(420, 640), quality=95)


@pytest.fixture(scope="module")
def live_detector():
    return FaceDetector(long_side=LIVE_SIDE)


@pytest.fixture
def service(zoo, live_detector):
    return LiveService(Translator(zoo), live_detector)


def nose(picture: np.ndarray) -> np.ndarray:
    return picture[200:230, 315:345].astype(float)


def test_the_face_changes_and_the_wall_does_not(service):
    jpeg, faces = service.translate("me", FRAME, "red", "A2B")
    before, after = load_image(FRAME), load_image(jpeg)
    assert faces == 1 and after.shape == before.shape
    assert np.abs(nose(after) - tinted_red(nose(before))).mean() < 12
    assert np.abs(after[:, :120].astype(int) - before[:, :120]).mean() < 2


def test_a_frame_without_a_face_comes_back_as_it_is(service):
    assert service.translate("me", EMPTY, "red", "A2B") == (EMPTY, 0)


def test_every_frame_may_ask_for_another_direction(service):
    there, _ = service.translate("me", FRAME, "red", "A2B")
    back, faces = service.translate("me", FRAME, "red", "B2A")
    assert faces == 1
    assert np.abs(nose(load_image(there)) - nose(load_image(back))).mean() > 30
    assert np.abs(nose(load_image(FRAME)) - nose(load_image(back))).mean() < 4


def test_many_viewers_at_once_each_get_their_own(service):
    frames = {f"viewer {i}": encode_jpeg(draw_photo((40 + 80 * i, 60, 260))) for i in range(4)}

    def watch(name):
        return [service.translate(name, frames[name], "red", "A2B") for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        answers = dict(zip(frames, pool.map(watch, frames), strict=True))
    for name, seen in answers.items():
        before = load_image(frames[name])
        for jpeg, faces in seen:
            assert faces == 1
            change = np.abs(load_image(jpeg).astype(int) - before).mean(2)
            columns = np.flatnonzero(change.mean(0) > 10)
            middle = 40 + 80 * int(name[-1]) + 130
            assert abs(columns.mean() - middle) < 30


def test_only_so_many_may_watch_until_one_goes(service, monkeypatch):
    monkeypatch.setattr(live, "MOST_VIEWERS", 2)
    for name in ("a", "b", "a"):
        service.translate(name, EMPTY, "red", "A2B")
    with pytest.raises(CycleGANError) as caught:
        service.translate("c", EMPTY, "red", "A2B")
    assert str(caught.value) == FULL
    monkeypatch.setattr(live, "_FORGET", -1.0)
    assert service.translate("c", EMPTY, "red", "A2B") == (EMPTY, 0)


@pytest.mark.parametrize("data", [b"", b"no picture", FRAME[:2000], b"\xff\xd8\xff" + bytes(3_000_000)])
def test_what_is_no_frame_is_refused(service, data):
    with pytest.raises(BadImageError):
        service.translate("me", data, "red", "A2B")


def test_a_frame_that_unpacks_to_a_poster_is_refused(service):
    poster = encode_png(np.zeros((2000, 2000, 3), np.uint8))
    with pytest.raises(BadImageError, match="too large"):
        service.translate("me", poster, "red", "A2B")


def test_an_unknown_model(service):
    with pytest.raises(UnknownModelError):
        service.translate("me", FRAME, "blue", "A2B")
