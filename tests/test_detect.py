"""Finding faces: in drawn photos everywhere, and in the shared photographs where they are at hand."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from helpers import draw_face, draw_photo, drawn_landmarks, texture

from cyclegan.faces.detect import Face, FaceDetector
from cyclegan.images import load_image

# How many faces a person counts in the shared photographs.
COUNTS = {
    "dlib_2008_001322.jpg": 3,
    "dlib_2008_002506.jpg": 3,
    "synthetic_exif3_dlib_2008_002506.jpg": 3,
    "synthetic_exif6_dlib_2008_002506.jpg": 3,
    "dlib_2008_001009.jpg": 2,
    "dlib_2009_004587.jpg": 2,
    "deepface_img10.jpg": 1,
    "deepface_img24_glasses.jpg": 1,
    "facerec_obama_small.jpg": 1,
    "facerec_32bit.png": 1,
    "facerec_obama_partial_face.jpg": 1,
    "faceapi_surprised.jpg": 1,
    "dlib_dogs.jpg": 0,
    "deepface_selfie-many-people.jpg": 4,
    "dlib_2007_007763.jpg": 7,
    "facenet_multiface.jpg": 6,
}
GROUP = ((20, 30, 120), (200, 60, 260), (480, 100, 150))


def longer_side(face: Face) -> float:
    left, top, right, bottom = face.box
    return max(right - left, bottom - top)


def same_place(face: Face, other: Face, tolerance: float) -> bool:
    """Whether boxes and landmarks lie within ``tolerance`` of the box's side."""
    moved = max(np.abs(np.subtract(face.box, other.box)).max(), np.abs(face.landmarks - other.landmarks).max())
    return moved <= tolerance * longer_side(face)


def assert_sound(photo: np.ndarray, faces: list[Face]) -> None:
    height, width = photo.shape[:2]
    areas = [face.area for face in faces]
    assert areas == sorted(areas, reverse=True)
    for face in faces:
        left, top, right, bottom = face.box
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert all(type(value) is float for value in face.box) and type(face.score) is float
        assert 0.9 <= face.score <= 1
        assert face.landmarks.shape == (5, 2) and face.landmarks.dtype == np.float32


def assert_a_face_stands_upright(face: Face) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


# Drawn faces


def test_drawn_faces_are_found_where_they_are(detector):
    photo = draw_photo(*GROUP)
    faces = detector.detect(photo)
    assert_sound(photo, faces)
    assert len(faces) == 3
    for face, place in zip(faces, sorted(GROUP, key=lambda place: -place[2]), strict=True):
        assert np.abs(face.landmarks - drawn_landmarks(*place)).max() < 0.05 * place[2]
        assert_a_face_stands_upright(face)
        left, top, right, bottom = face.box
        assert (face.landmarks > (left, top)).all() and (face.landmarks < (right, bottom)).all()


@pytest.mark.parametrize("factor", [0.5, 3, 6])
def test_places_are_in_pixels_of_the_photo_whatever_its_size(detector, factor):
    photo = draw_photo(*GROUP)
    size = (round(640 * factor), round(420 * factor))
    resized = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    faces, originals = detector.detect(resized), detector.detect(photo)
    assert len(faces) == 3
    for face, original in zip(faces, originals, strict=True):
        scaled = Face(tuple(v * factor for v in original.box), original.landmarks * factor, original.score)
        assert same_place(face, scaled, 0.12)


def test_a_face_that_fills_its_picture(detector):
    face = draw_face(240)
    (whole,) = detector.detect(draw_photo((150, 60, 240)))
    (alone,) = detector.detect(face[44:216, 56:184])  # its box and little more
    moved = alone.landmarks + (56 + 150, 44 + 60) - whole.landmarks
    assert np.abs(moved).max() < 0.05 * longer_side(whole)


def test_a_face_cut_by_the_frame_has_a_box_within_the_photo(detector):
    photo = draw_photo((200, 60, 260))[:, 260:]  # without its left edge
    (face,) = detector.detect(photo)
    assert_sound(photo, [face])
    assert face.box[0] < 30


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((200, 300, 3), np.uint8),
        np.full((200, 300, 3), 255, np.uint8),
        np.full((200, 300, 3), (205, 160, 135), np.uint8),
        texture(300, 400, 1),
        texture(300, 400, 2),
        np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8),
    ],
    ids=["black", "white", "skin", "clouds", "more clouds", "noise"],
)
def test_where_there_is_no_face_none_is_found(detector, photo):
    assert detector.detect(photo) == []


@pytest.mark.parametrize("shape", [(16, 16), (19, 19), (20, 20), (16, 2000), (2000, 16), (30, 9000)])
def test_pictures_too_small_for_a_face(detector, shape):
    assert detector.detect(np.full((*shape, 3), 128, np.uint8)) == []


def test_a_long_panorama_is_searched_in_little_memory(detector):
    """Repeating the edges around this one at its own size would take 13 gigabytes."""
    assert detector.detect(np.full((1000, 60_000, 3), 128, np.uint8)) == []


def test_lesser_scores_can_be_asked_for_or_left_out():
    photo = draw_photo(*GROUP)
    assert FaceDetector(min_score=1.01).detect(photo) == []


def test_a_smaller_working_size_loses_small_faces():
    photo = draw_photo((100, 100, 200), (500, 300, 44))
    assert len(FaceDetector(long_side=640).detect(photo)) == 2
    assert len(FaceDetector(long_side=160).detect(photo)) == 1


def test_searching_changes_no_pixel(detector):
    photo = draw_photo(*GROUP)
    photo.setflags(write=False)
    assert len(detector.detect(photo)) == 3


def test_a_detector_serves_many_threads(detector):
    photos = [draw_photo(*GROUP[:count]) for count in (1, 2, 3)] * 2
    start = threading.Barrier(6)

    def search(photo):
        start.wait()
        return detector.detect(photo)

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(search, photos))
    assert [len(faces) for faces in found] == [1, 2, 3, 1, 2, 3]
    for faces, again in zip(found[:3], found[3:], strict=True):
        assert all(same_place(face, other, 0.001) for face, other in zip(faces, again, strict=True))


# Photographs


@pytest.mark.parametrize("name, count", COUNTS.items(), ids=COUNTS)
def test_as_many_faces_as_a_person_counts(shared_faces, name, count):
    photo, faces = shared_faces(name)
    assert len(faces) == count
    assert_sound(photo, faces)
    for face in faces:
        height, width = photo.shape[:2]
        # A face cut by the frame may have an eye outside the photo; its box ends where the photo does.
        left, top, right, bottom = (
            edge if 0 < edge < end else outside
            for edge, end, outside in zip(
                face.box, (width, height, width, height), (-width, -height, 2 * width, 2 * height), strict=True
            )
        )
        assert (face.landmarks > (left, top)).all() and (face.landmarks < (right, bottom)).all()
        assert_a_face_stands_upright(face)


@pytest.mark.parametrize("name, least, most", [("dlib_bald_guys.jpg", 24, 30), ("edgeface_office1.jpg", 15, 20)])
def test_about_as_many_faces_as_a_person_counts(shared_faces, name, least, most):
    photo, faces = shared_faces(name)
    assert least <= len(faces) <= most
    assert_sound(photo, faces)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_camera_changes_nothing(shared_faces, orientation):
    photo, faces = shared_faces("dlib_2008_002506.jpg")
    copy, found = shared_faces(f"synthetic_exif{orientation}_dlib_2008_002506.jpg")
    assert copy.shape == photo.shape
    assert np.abs(copy.astype(int) - photo).mean() < 3  # saved as JPEG once more
    assert len(found) == 3
    assert all(same_place(face, other, 0.05) for face, other in zip(faces, found, strict=True))


def test_a_tight_crop_has_its_landmarks_where_the_photo_has_them(shared_faces, detector):
    errors = []
    for name in ("dlib_2008_002506.jpg", "facenet_multiface.jpg", "deepface_img10.jpg", "facerec_obama_small.jpg"):
        photo, faces = shared_faces(name)
        for face in faces:
            left, top, right, bottom = (round(value) for value in face.box)
            found = detector.detect(np.ascontiguousarray(photo[top:bottom, left:right]))
            assert found
            errors.append(np.abs(found[0].landmarks + (left, top) - face.landmarks).max() / longer_side(face))
    # Without surroundings MTCNN errs by 10 % here.
    assert np.median(errors) < 0.035
    assert np.mean(np.array(errors) < 0.05) > 0.85


def test_a_face_among_clouds(shared_photos, detector):
    """A photograph as part of a larger picture: the same faces, moved."""
    photo = load_image(shared_photos / "dlib_2008_002506.jpg")
    wide = texture(600, 790, 4)
    wide[100:475, 200:700] = photo
    faces, moved = detector.detect(photo), detector.detect(wide)
    assert len(moved) == 3
    for face, other in zip(faces, moved, strict=True):
        assert same_place(
            face, Face(tuple(np.subtract(other.box, (200, 100) * 2)), other.landmarks - (200, 100), 1), 0.05
        )
