"""Following faces: through motion, behind a hand, out of the picture and back; and never another viewer's."""

import numpy as np
import pytest
from helpers import draw_photo, drawn_landmarks, texture
from moving import FPS, film

from cyclegan.bench import film_of, landmark_errors
from cyclegan.faces.detect import FaceDetector
from cyclegan.faces.track import LIVE_SIDE, FaceTracker, OneEuroFilter

PHOTOS = ("deepface_img10.jpg", "facerec_obama_small.jpg", "deepface_img24_glasses.jpg")


@pytest.fixture(scope="module")
def live_detector() -> FaceDetector:
    return FaceDetector(long_side=LIVE_SIDE)


class Counting:
    """A detector that counts its searches."""

    def __init__(self, detector: FaceDetector):
        self.detector, self.searches = detector, 0

    def detect(self, frame):
        self.searches += 1
        return self.detector.detect(frame)

    def inspect(self, crops):
        return self.detector.inspect(crops)


def eye_distance(landmarks: np.ndarray) -> float:
    return float(np.hypot(*(landmarks[1] - landmarks[0])))


def error(face, truth: np.ndarray) -> float:
    """Mean distance of the landmarks, in eye distances."""
    return float(np.linalg.norm(face.landmarks - truth, axis=1).mean() / eye_distance(truth))


@pytest.fixture(scope="module", params=PHOTOS)
def follow(request, shared_faces, live_detector):
    """A film of a photographed face, followed: rows of (frame, true landmarks, faces), and how often it searched."""
    photo, faces = shared_faces(request.param)
    detector = Counting(live_detector)
    tracker = FaceTracker(detector)
    rows = [
        (frame, frame.landmarks, tracker.track(frame.image, frame.time)) for frame in film(photo, faces[0].landmarks)
    ]
    return rows, detector.searches


def rows_of(rows, *parts):
    return [row for row in rows if row[0].part in parts]


def test_a_face_in_view_is_followed_through_every_move(follow):
    for frame, truth, faces in rows_of(follow[0], "pan", "zoom", "roll"):
        assert len(faces) == 1, f"{frame.part} at {frame.time:.2f} s"
        assert error(faces[0], truth) < 0.15
    moving = [error(faces[0], truth) for _, truth, faces in rows_of(follow[0], "pan", "zoom", "roll")]
    assert np.median(moving) < 0.05


@pytest.mark.parametrize("name", PHOTOS)
def test_it_lies_where_the_detector_would_put_it(shared_faces, live_detector, name):
    frames, shifts = film_of(shared_faces(name)[0], FaceDetector())
    errors = landmark_errors(frames, shifts, FaceDetector(long_side=640), FaceTracker(live_detector, most=1))
    # No single search of the detector is nearer to its own average where the face is hard: dark glasses.
    assert errors["tracked"] < max(0.02, errors["mtcnn"]) and errors["mtcnn"] < 0.03


def test_at_rest_it_does_not_tremble(follow):
    shown = [(frame, truth, faces[0]) for frame, truth, faces in rows_of(follow[0], "rest") if faces]
    assert np.median([error(face, truth) for _, truth, face in shown]) < 0.04
    moves = [
        np.linalg.norm(face.landmarks - before.landmarks, axis=1).mean() / eye_distance(truth)
        for (earlier, _, before), (frame, truth, face) in zip(shown, shown[1:], strict=False)
        if frame.time - earlier.time < 1.5 / FPS
    ]
    assert np.median(moves) < 0.005


def test_nothing_is_seen_where_no_face_is(follow):
    assert not any(faces for _, _, faces in rows_of(follow[0], "covered", "away"))


def test_a_face_is_back_within_half_a_second(follow):
    rows = follow[0]
    times = [frame.time for frame, _, faces in rows if faces]
    uncovered = max(frame.time for frame, _, _ in rows_of(rows, "covered")) + 1 / FPS
    assert min(time for time in times if time >= uncovered) - uncovered <= 0.5
    # In view again: where the face is whole. Its middle is then 110 pixels from the edge.
    returned = [frame.time for frame, truth, _ in rows_of(rows, "return", "rest") if truth[:, 0].max() < 530]
    back = min(time for time in returned if time > rows_of(rows, "away")[0][0].time)
    assert min(time for time in times if time >= back) - back <= 0.5


def test_searches_are_rare(follow):
    rows, searches = follow
    seconds = rows[-1][0].time
    assert searches <= 5 * seconds and searches < len(rows) / 4


# Drawn faces


PLACES = ((40, 60, 160), (240, 40, 180), (440, 80, 150))
GROUP = draw_photo(*PLACES)


def test_several_faces_keep_their_places_in_the_list(live_detector):
    tracker = FaceTracker(live_detector)
    first = tracker.track(GROUP, 0.0)
    assert len(first) == 3
    for i in range(1, 10):
        faces = tracker.track(np.roll(GROUP, 2 * i, axis=1), i / FPS)
        assert len(faces) == 3
        for face, before in zip(faces, first, strict=True):
            moved = (face.landmarks - before.landmarks).mean(0)
            assert np.abs(moved - (2 * i, 0)).max() < 8


def test_the_largest_faces_are_followed_when_there_are_too_many(live_detector):
    (face,) = FaceTracker(live_detector, most=1).track(GROUP, 0.0)
    assert error(face, drawn_landmarks(*PLACES[1])) < 0.15


def test_a_newcomer_is_noticed_within_a_second_or_so(live_detector):
    tracker = FaceTracker(live_detector)
    alone = draw_photo(PLACES[0])
    pair = draw_photo(*PLACES[:2])
    for i in range(FPS):
        assert len(tracker.track(alone, i / FPS)) == 1
    seen = [len(tracker.track(pair, 1 + i / FPS)) for i in range(round(1.2 * FPS))]
    assert seen[-1] == 2


def test_viewers_share_nothing(live_detector):
    mine, yours = FaceTracker(live_detector), FaceTracker(live_detector)
    left, right = draw_photo(PLACES[0]), draw_photo(PLACES[2])
    for i in range(5):
        (a,), (b,) = mine.track(left, i / FPS), yours.track(right, i / FPS)
    assert error(a, drawn_landmarks(*PLACES[0])) < 0.15 and error(b, drawn_landmarks(*PLACES[2])) < 0.15


def test_pictures_without_faces_and_of_odd_sizes(live_detector):
    tracker = FaceTracker(live_detector)
    for i, shape in enumerate([(480, 640), (16, 16), (40, 900)]):
        assert tracker.track(texture(*shape), i * 1.0) == []


def test_a_camera_that_changes_its_size_loses_no_one(live_detector):
    tracker = FaceTracker(live_detector)
    assert len(tracker.track(GROUP, 0.0)) == 3
    small = draw_photo(*(tuple(value // 2 for value in place) for place in PLACES), width=320, height=210)
    assert any(len(tracker.track(small, 0.05 + i / FPS)) == 3 for i in range(FPS))


# The filter


def test_the_filter_calms_noise_and_keeps_up_with_motion():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.005, 200)
    calm = OneEuroFilter(1.5, 18.0, 3.0)
    resting = np.array([calm(np.array([value]), i / FPS)[0] for i, value in enumerate(noise)])
    assert resting[20:].std() < 0.7 * noise.std()
    moving = OneEuroFilter(1.5, 18.0, 3.0)
    line = 2.0 * np.arange(200) / FPS
    followed = np.array([moving(np.array([value]), i / FPS)[0] for i, value in enumerate(line)])
    assert np.abs(followed - line)[20:].max() < 0.05


def test_the_filter_starts_where_the_first_value_is_and_ignores_a_clock_that_stands_still():
    smooth = OneEuroFilter(1.0, 0.0)
    assert smooth(np.array([5.0]), 3.0) == 5
    assert smooth(np.array([9.0]), 3.0) == 5
    assert 5 < smooth(np.array([9.0]), 3.1)[0] < 9
