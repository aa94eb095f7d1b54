"""The geometry: points go where they should and come back, and a crop put back unchanged leaves the photo as it was."""

import cv2
import numpy as np
import pytest
from helpers import TEMPLATE, draw_photo, drawn_landmarks, texture
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclegan.faces.align import (
    Change,
    Template,
    bounding_box,
    centred_square,
    compose,
    crop,
    crop_corners,
    feather,
    invert,
    paste,
    paste_all,
    photo_to_crop,
    resized,
    scale_of,
    similarity,
    square_to_crop,
)

angles = st.floats(-np.pi, np.pi)
scales = st.floats(0.02, 50)
shifts = st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000))
matrices = st.builds(lambda angle, scale, shift: matrix_of(angle, scale, shift), angles, scales, shifts)
seeds = st.integers(0, 10_000)


def matrix_of(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def turned(centre: tuple[float, float], size: int, scale: float, angle: float) -> np.ndarray:
    """photo_to_crop with ``centre`` of the photo in the middle of a crop of ``size``."""
    matrix = matrix_of(angle, scale, (0, 0))
    matrix[:, 2] = (size - 1) / 2 - matrix[:, :2] @ centre
    return matrix


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def inside(matrix: np.ndarray, size: int, photo: np.ndarray, grow: float = 0) -> np.ndarray:
    """Which pixels of the photo lie in the crop, its border moved out by ``grow`` crop pixels: bool [H, W]."""
    ys, xs = np.indices(photo.shape[:2])
    places = apply(matrix, np.stack([xs, ys], -1).reshape(-1, 2)).reshape(*photo.shape[:2], 2)
    return ((places > -0.5 - grow) & (places < size - 0.5 + grow)).all(-1)


def mean_change(photo: np.ndarray, result: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(photo.astype(int) - result)[where].mean())


# Matrices


@given(angles, scales, shifts, seeds)
def test_similarity_recovers_what_moved_the_points(angle, scale, shift, seed):
    points = np.random.default_rng(seed).uniform(-100, 100, (5, 2))
    matrix = matrix_of(angle, scale, shift)
    found = similarity(points, apply(matrix, points))
    assert np.allclose(found, matrix, rtol=1e-9, atol=1e-7)


@given(matrices, seeds)
def test_similarity_is_the_least_squares_fit(matrix, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-100, 100, (5, 2))
    target = apply(matrix, points) + rng.normal(0, 5, (5, 2))

    def error(candidate):
        return np.square(apply(candidate, points) - target).sum()

    best = similarity(points, target)
    for nudge in (matrix_of(1e-3, 1, (0, 0)), matrix_of(-1e-3, 1, (0, 0)), matrix_of(0, 1.001, (0, 0)),
                  matrix_of(0, 0.999, (0, 0)), matrix_of(0, 1, (0.1, 0)), matrix_of(0, 1, (0, -0.1))):  # fmt: skip
        assert error(best) <= error(compose(best, nudge)) + 1e-6


def test_similarity_never_mirrors():
    points = TEMPLATE.points(100)
    found = similarity(points, points * (-1, 1))
    assert np.linalg.det(found[:, :2]) >= 0


def test_points_on_a_line_are_enough():
    points = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0], [4, 0]])
    matrix = matrix_of(0.5, 3, (7, -2))
    assert np.allclose(similarity(points, apply(matrix, points)), matrix)


def test_points_in_one_place_are_not():
    with pytest.raises(ValueError, match="The source points coincide."):
        similarity(np.full((5, 2), 7.0), TEMPLATE.points(64))


@given(matrices)
def test_the_inverse_undoes(matrix):
    assert np.allclose(compose(matrix, invert(matrix)), [[1, 0, 0], [0, 1, 0]], atol=1e-6)
    assert np.allclose(compose(invert(matrix), matrix), [[1, 0, 0], [0, 1, 0]], atol=1e-6)


@given(matrices, matrices, seeds)
def test_composed_is_first_then_second(first, second, seed):
    points = np.random.default_rng(seed).uniform(-100, 100, (4, 2))
    assert np.allclose(apply(compose(first, second), points), apply(second, apply(first, points)), rtol=1e-6, atol=1e-5)


@given(matrices)
def test_scale_is_crop_pixels_per_photo_pixel(matrix):
    moved = apply(matrix, np.array([[0.0, 0], [3, 4]]))
    assert np.isclose(scale_of(matrix), np.hypot(*(moved[1] - moved[0])) / 5)


@given(matrices, st.integers(16, 512), st.sampled_from([0.25, 0.5, 2, 3, 4]))
def test_a_resized_crop_shows_the_same_part(matrix, size, factor):
    assert np.allclose(
        crop_corners(resized(matrix, factor), size * factor), crop_corners(matrix, size), rtol=1e-6, atol=1e-4
    )
    assert np.allclose(resized(resized(matrix, factor), 1 / factor), matrix)


def test_resizing_changes_no_matrix_in_place():
    matrix = matrix_of(0.1, 2, (3, 4))
    before = matrix.copy()
    resized(matrix, 2)
    assert np.array_equal(matrix, before)


@given(matrices, st.integers(16, 512))
def test_the_bounding_box_holds_the_corners(matrix, size):
    left, top, right, bottom = bounding_box(matrix, size)
    corners = crop_corners(matrix, size) + 0.5
    assert np.allclose([left, top], corners.min(0)) and np.allclose([right, bottom], corners.max(0))
    turn = np.abs(np.cos(np.arctan2(*matrix[1::-1, 0]))) + np.abs(np.sin(np.arctan2(*matrix[1::-1, 0])))
    assert np.isclose(right - left, bottom - top)
    assert np.isclose(right - left, size / scale_of(matrix) * turn)


# Squares


@given(st.floats(-100, 500), st.floats(-100, 500), st.floats(1, 800), st.integers(16, 256))
def test_a_square_becomes_a_whole_crop(left, top, side, size):
    matrix = square_to_crop((left, top, left + side, top + side), size)
    assert np.allclose(bounding_box(matrix, size), (left, top, left + side, top + side), atol=1e-6)
    assert np.isclose(scale_of(matrix), size / side)


@pytest.mark.parametrize(
    "height, width, square",
    [
        (100, 100, (0, 0, 100, 100)),
        (100, 160, (30, 0, 130, 100)),
        (161, 100, (0, 30, 100, 130)),
        (16, 17, (0, 0, 16, 16)),
    ],
)
def test_the_centred_square(height, width, square):
    assert centred_square(height, width) == square


def test_a_square_of_the_crops_own_size_is_cut_pixel_for_pixel():
    photo = texture(100, 140)
    assert np.array_equal(crop(photo, square_to_crop((30, 20, 94, 84), 64), 64), photo[20:84, 30:94])


def test_a_square_of_twice_the_crops_size_is_averaged():
    photo = texture(128, 128)
    blocks = photo.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(crop(photo, square_to_crop((0, 0, 128, 128), 64), 64) - blocks).max() <= 1


# Templates


def test_template_points_are_fractions_of_the_crop():
    # A fraction of 0 is the crop's left edge, half a pixel before the centre of its first pixel.
    corners = Template(((0, 0), (1, 0), (0.5, 0.5), (0, 1), (1, 1)), 1.0)
    assert np.allclose(corners.points(64), [[-0.5, -0.5], [63.5, -0.5], [31.5, 31.5], [-0.5, 63.5], [63.5, 63.5]])


def test_a_larger_scale_shows_more_surroundings():
    wide = Template(TEMPLATE.landmarks, 2.0)
    near, far = TEMPLATE.points(64), wide.points(64)
    assert np.allclose(far - 31.5, (near - 31.5) / 2)


@pytest.mark.parametrize(
    "landmarks, scale, message",
    [
        (TEMPLATE.landmarks[:4], 1.0, "A template has five (x, y) landmarks and a positive scale."),
        ((1, 2, 3, 4, 5), 1.0, "A template has five (x, y) landmarks and a positive scale."),
        (TEMPLATE.landmarks, 0.0, "A template has five (x, y) landmarks and a positive scale."),
        (TEMPLATE.landmarks, -1.0, "A template has five (x, y) landmarks and a positive scale."),
        (TEMPLATE.landmarks, float("nan"), "A template has five (x, y) landmarks and a positive scale."),
        (((0.5, 0.5),) * 5, 1.0, "The landmarks of a template are finite and lie apart."),
        ((*TEMPLATE.landmarks[:4], (0.1, float("inf"))), 1.0, "The landmarks of a template are finite and lie apart."),
    ],
)
def test_impossible_templates(landmarks, scale, message):
    with pytest.raises(ValueError) as caught:
        Template(landmarks, scale)
    assert str(caught.value) == message


@given(angles, st.floats(0.1, 10), shifts, st.sampled_from([64, 128, 256]))
def test_landmarks_land_on_the_template(angle, scale, shift, size):
    landmarks = apply(matrix_of(angle, scale, shift), TEMPLATE.points(100)).astype(np.float32)
    matrix = photo_to_crop(landmarks, TEMPLATE, size)
    assert np.allclose(apply(matrix, landmarks.astype(float)), TEMPLATE.points(size), atol=0.05)


@pytest.mark.parametrize("angle", [0, 0.4, -1.3, np.pi])
@pytest.mark.parametrize("face", [60, 150, 400])
def test_what_is_at_a_landmark_is_seen_at_the_template(angle, face):
    """Not the matrix but the pixels: white dots on the landmarks of a turned face appear where the template says."""
    photo = np.zeros((700, 700, 3), np.uint8)
    landmarks = apply(matrix_of(angle, 1, (350, 350)), (np.array(TEMPLATE.landmarks) - 0.5) * face)
    for x, y in landmarks:
        cv2.circle(photo, (round(x * 16), round(y * 16)), round(face / 20 * 16), (255, 255, 255), -1, cv2.LINE_AA, 4)
    seen = crop(photo, photo_to_crop(landmarks, TEMPLATE, 128), 128)[..., 0]
    for x, y in TEMPLATE.points(128):
        ys, xs = np.indices(seen.shape)
        weight = seen * (np.hypot(xs - x, ys - y) < 12)
        assert np.hypot((xs * weight).sum() / weight.sum() - x, (ys * weight).sum() / weight.sum() - y) < 0.7


# Cropping


@pytest.mark.parametrize("side", [256, 300, 512, 1000])
@pytest.mark.parametrize("angle", [0, 0.3, np.pi / 4])
def test_a_large_face_does_not_alias(side, angle):
    """A checkerboard of single pixels is grey from afar; sampling it would give stripes or a new checkerboard."""
    board = (np.indices((1500, 1500)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    seen = crop(board, turned((750, 750), 64, 64 / side, angle), 64)
    assert np.abs(seen.astype(float) - 127.5).max() < 26
    assert seen.std() < 10  # it is 128 in the photo


def test_a_small_face_is_enlarged_smoothly():
    ramp = np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2) * 4
    seen = crop(ramp, square_to_crop((20, 20, 36, 36), 128), 128).astype(int)
    assert (np.diff(seen[64, :, 0]) >= 0).all() and np.diff(seen[64, :, 0]).max() <= 1
    assert np.array_equal(seen[0], seen[127])


def test_beyond_the_photo_its_edge_repeats():
    photo = texture(60, 80)
    seen = crop(photo, square_to_crop((-30, -30, 34, 34), 64), 64)
    assert np.array_equal(seen[30:, 30:], photo[:34, :34])
    assert (seen[:30, 30:] == photo[0, :34]).all()
    assert (seen[30:, :30] == photo[:34, :1]).all()
    assert (seen[:30, :30] == photo[0, 0]).all()


def test_cropping_far_outside_gives_the_nearest_corner():
    photo = texture(60, 80)
    assert (crop(photo, square_to_crop((500, 400, 564, 464), 64), 64) == photo[-1, -1]).all()


@pytest.mark.parametrize("shape", [(16, 3000), (3000, 16), (900, 40000)])
def test_long_pictures_can_be_cropped_and_pasted(shape):
    photo = np.full((*shape, 3), 90, np.uint8)
    square = centred_square(*shape)
    matrix = square_to_crop(square, 64)
    before = crop(photo, matrix, 64)
    assert (before == 90).all()
    result = paste(photo, before, before + 100, matrix, detail=False)
    left, top, right, bottom = square
    assert result[(top + bottom) // 2, (left + right) // 2, 0] == 190
    assert (result != photo).any(-1).sum() < (right - left) * (bottom - top)


# Putting back

PLACES = {
    "upright": turned((160, 120), 128, 1.0, 0),
    "turned": turned((160, 120), 128, 1.0, 0.35),
    "between pixels": turned((160.37, 119.71), 128, 1.0, 0),
    "enlarged": turned((160, 120), 128, 1.7, -0.2),
    "small face": turned((160, 120), 128, 3.3, 0.1),
    "over the left edge": turned((20, 120), 128, 1.0, 0.1),
    "over a corner": turned((315, 5), 128, 1.0, -0.5),
    "larger than the photo": turned((160, 120), 400, 1.0, 0.2),
}


@pytest.mark.parametrize("detail", [True, False])
@pytest.mark.parametrize("matrix", PLACES.values(), ids=PLACES)
def test_an_unchanged_crop_leaves_the_photo(matrix, detail):
    photo = texture(240, 320)
    size = 400 if matrix is PLACES["larger than the photo"] else 128
    before = crop(photo, matrix, size)
    kept, given = photo.copy(), before.copy()
    result = paste(photo, before, before, matrix, detail)
    within = inside(matrix, size, photo)
    assert result.shape == photo.shape and result.dtype == np.uint8
    assert within.any() and np.array_equal(result[~within], photo[~within])
    assert mean_change(photo, result, within) < (0.001 if detail else 2)
    assert np.array_equal(photo, kept) and np.array_equal(before, given)  # inputs stay as they are


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.floats(-80, 400), st.floats(-80, 320)),
    st.floats(0.15, 4),
    angles,
    st.sampled_from([32, 64, 100]),
    st.booleans(),
)
def test_wherever_the_crop_lies_the_rest_is_bit_identical(centre, scale, angle, size, detail):
    photo = texture(240, 320)
    matrix = turned(centre, size, scale, angle)
    before = crop(photo, matrix, size)
    result = paste(photo, before, 255 - before, matrix, detail)
    outside = ~inside(matrix, size, photo, grow=max(1.0, scale))
    assert np.array_equal(result[outside], photo[outside])
    if detail:
        assert np.array_equal(paste(photo, before, before, matrix, detail), photo)


@pytest.mark.parametrize("detail", [True, False])
@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_a_change_arrives_whole_in_the_middle_and_fades_to_the_border(scale, detail):
    photo = np.full((400, 400, 3), 80, np.uint8)
    size = 64
    side = size / scale
    matrix = turned((200, 200), size, scale, 0)
    before = crop(photo, matrix, size)
    result = paste(photo, before, before + 100, matrix, detail).astype(int)[..., 0]
    middle = int(side / 4)
    assert (np.abs(result[200 - middle : 200 + middle, 200 - middle : 200 + middle] - 180) <= 1).all()
    row = result[200, 200 : 201 + int(side / 2)]
    assert (np.diff(row) <= 0).all()  # no ring
    assert row[-1] - 80 <= 100 * 0.12 + 8 / side * 100  # no seam at the border
    assert np.diff(row).min() >= -100 * 1.6 / (0.16 * side) - 3  # the feather is as wide as it says


def test_detail_keeps_the_photos_own_grain_under_a_gentle_change():
    photo = texture(600, 600)
    matrix = square_to_crop((44, 44, 556, 556), 128)  # a face of 512 pixels in a crop of 128
    before = crop(photo, matrix, 128)
    after = np.minimum(before.astype(int) + 6, 255).astype(np.uint8)
    middle = (slice(200, 400), slice(200, 400))

    def grain(picture):
        grey = picture[middle].astype(np.float32).mean(2)
        return (grey - cv2.GaussianBlur(grey, (0, 0), 2)).std()

    kept, lost = paste(photo, before, after, matrix, True), paste(photo, before, after, matrix, False)
    assert grain(kept) > 0.95 * grain(photo)
    assert grain(lost) < 0.6 * grain(photo)
    assert abs(mean_change(photo, kept, middle) - 6) < 1


def test_detail_leaves_no_edges_of_what_was_removed():
    """A dark frame of two pixels taken off bright skin: its fine edges in the photo go with it."""
    photo = np.full((600, 600, 3), 190, np.uint8)
    photo[280:296, 100:500] = 30
    matrix = square_to_crop((44, 44, 556, 556), 128)
    before = crop(photo, matrix, 128)
    after = np.full_like(before, 190)
    result = paste(photo, before, after, matrix, True)[200:400, 200:400].astype(int)
    assert np.abs(result - 190).max() <= 12


@pytest.mark.parametrize("face", [16, 32, 40])
def test_a_crop_larger_than_its_face_does_not_alias(face):
    photo = np.full((200, 200, 3), 128, np.uint8)
    matrix = square_to_crop((80, 80, 80 + face, 80 + face), 128)
    stripes = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    result = paste(photo, np.full_like(stripes, 128), stripes, matrix, detail=False)
    assert np.abs(result.astype(int) - 128).max() <= 12


def test_values_stop_at_black_and_white():
    photo = texture(100, 100)
    matrix = square_to_crop((10, 10, 90, 90), 64)
    before = crop(photo, matrix, 64)
    for after, end in ((np.full_like(before, 255), 255), (np.zeros_like(before), 0)):
        middle = paste(photo, before, after, matrix, detail=True)[40:60, 40:60].astype(int)
        assert np.abs(middle - end).mean() < 12  # wrapped around, it would be far away


def test_a_crop_beside_the_photo_changes_nothing():
    photo = texture(100, 100)
    matrix = square_to_crop((200, 200, 264, 264), 64)
    result = paste(photo, crop(photo, matrix, 64), np.zeros((64, 64, 3), np.uint8), matrix, detail=False)
    assert np.array_equal(result, photo) and result is not photo


@pytest.mark.parametrize("size", [16, 64, 128, 257])
def test_the_feather_is_whole_in_the_middle_and_nothing_at_the_border(size):
    mask = feather(size)
    assert mask.shape == (size, size) and mask.dtype == np.float32
    assert (mask[size // 4 : -size // 4, size // 4 : -size // 4] == 1).all()
    assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
    assert np.array_equal(mask, mask.T) and np.array_equal(mask, mask[::-1])


@pytest.mark.parametrize("detail", [True, False])
def test_a_drawn_face_comes_back(detail):
    photo = draw_photo((150, 60, 240))
    matrix = photo_to_crop(drawn_landmarks(150, 60, 240), TEMPLATE, 128)
    before = crop(photo, matrix, 128)
    result = paste(photo, before, before, matrix, detail)
    assert mean_change(photo, result, inside(matrix, 128, photo)) < 2


@pytest.mark.parametrize(
    "name",
    ["dlib_2008_002506.jpg", "facenet_multiface.jpg", "facerec_obama_partial_face.jpg", "deepface_img24_glasses.jpg"],
)
def test_real_faces_come_back(shared_faces, name):
    photo, faces = shared_faces(name)
    for face in faces:
        small = photo_to_crop(face.landmarks, TEMPLATE, 128)
        before = crop(photo, small, 128)
        assert np.array_equal(paste(photo, before, before, small, detail=True), photo)

        size = round(128 / scale_of(small))  # as many pixels as the face has in the photo
        matrix = photo_to_crop(face.landmarks, TEMPLATE, size)
        before = crop(photo, matrix, size)
        result = paste(photo, before, before, matrix, detail=False)
        within = inside(matrix, size, photo)
        assert np.array_equal(result[~within], photo[~within])
        assert mean_change(photo, result, within) < 2


# Several faces


def shifted(photo: np.ndarray, centre: tuple[float, float], by: int, size: int = 64) -> Change:
    """A crop around ``centre`` made lighter or darker."""
    matrix = turned(centre, size, 1.0, 0)
    before = crop(photo, matrix, size)
    return Change(before, (before.astype(int) + by).astype(np.uint8), matrix, detail=False)


def test_faces_far_apart_are_pasted_as_if_alone():
    photo = np.full((200, 300, 3), 120, np.uint8)
    left, right = shifted(photo, (60, 100), 80), shifted(photo, (200, 100), -80)
    expected = paste(photo, left.before, left.after, left.matrix, False)
    expected = paste(expected, right.before, right.after, right.matrix, False)
    assert np.array_equal(paste_all(photo, [[left], [right]]), expected)


def test_neighbours_share_a_pixel_by_how_deep_it_lies_in_their_crops():
    """Whoever is pasted first: the middle of each face is its own, half way both count alike, and no seam is seen."""
    photo = np.full((200, 300, 3), 120, np.uint8)
    left, right = shifted(photo, (120, 100), 80), shifted(photo, (164, 100), -80)
    result = paste_all(photo, [[left], [right]])
    assert np.abs(result.astype(int) - paste_all(photo, [[right], [left]])).max() <= 1  # rounding
    row = result[100, :, 0].astype(int)
    assert row[125] == 200 and row[159] == 40 and abs(row[142] - 120) <= 2
    assert (np.diff(row[125:160]) <= 1).all() and np.diff(row[125:160]).min() > -40


def test_steps_of_one_face_lie_on_top_of_one_another():
    photo = np.full((200, 300, 3), 120, np.uint8)
    first = shifted(photo, (120, 100), 80)
    second = shifted(paste_all(photo, [[first]]), (120, 100), -30)
    far = shifted(photo, (250, 60), 0)
    for others in ([], [[far]]):
        assert paste_all(photo, [[first, second], *others])[100, 120, 0] == 170


def test_no_face_changes_nothing_and_one_beyond_the_photo_neither():
    photo = texture(100, 100)
    beyond = shifted(photo, (400, 400), 50)
    assert np.array_equal(paste_all(photo, []), photo)
    assert np.array_equal(paste_all(photo, [[beyond], [beyond]]), photo)
