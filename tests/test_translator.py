"""From photo to photo: the right faces are translated, by the right models, and nothing else changes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import RED, TEMPLATE, blend, draw_photo, drawn_landmarks, identity_model, make_config, texture, tinted_red

from cyclegan.errors import (
    BadCheckpointError,
    BadImageError,
    DeviceError,
    NoFaceError,
    UnknownDirectionError,
    UnknownModelError,
)
from cyclegan.faces import align
from cyclegan.faces.detect import Face
from cyclegan.translator import Translator, choose
from cyclegan.zoo import Zoo

NO_FACE = "No face was found in this photo. Try one where the face is larger, brighter or turned to the camera."
# Left, top and side of drawn faces, as the detector would list them: largest first.
PLACES = ((200, 60, 260), (480, 100, 150), (20, 30, 120))
PHOTO = draw_photo(*PLACES)


def face_at(left: int, top: int, side: int) -> Face:
    landmarks = drawn_landmarks(left, top, side).astype(np.float32)
    return Face((left + side * 0.2, top + side * 0.2, left + side * 0.8, top + side * 0.9), landmarks, 0.99)


FACES = [face_at(*place) for place in PLACES]


class NoDetector:
    """Stands where the detector would, and must not be asked."""

    def detect(self, photo):
        pytest.fail("looked for faces")


@pytest.fixture(scope="session")
def translator(tmp_path_factory, detector) -> Translator:
    """Models ``same``, ``red`` (reddens from A to B), ``blue`` (likewise), ``sketch`` (photographs to drawings),
    ``paint`` (drawings to drawings, reddening), and ``broken``."""
    root = tmp_path_factory.mktemp("translator")
    wide = align.Template(TEMPLATE.landmarks, 1.4)
    for config, colour in [
        (make_config("same"), None),
        (make_config("red"), RED),
        (make_config("blue", image_size=48, template=wide), (-0.9, -0.9, 0.9)),
        (make_config("sketch", ("mtcnn", "square"), image_size=96), None),
        (make_config("paint", ("square", "square"), image_size=32), RED),
    ]:
        model = identity_model(config)
        if colour:
            blend(model.G_AB, colour, 0.5)
        model.save_pretrained(root / config.name)
    (root / "broken").mkdir()
    return Translator(Zoo(root), device="cpu", engine="torch", detector=detector)


@pytest.fixture
def blind(translator) -> Translator:
    """The same models behind a detector that must not be asked."""
    return Translator(translator.zoo, device="cpu", engine="torch", detector=NoDetector())


def changed(result) -> np.ndarray:
    """Which pixels of the photo differ in the output: bool [H, W]."""
    return (result.photo != result.output).any(-1)


def within(box) -> np.ndarray:
    """Pixels of PHOTO in a box and one around it: bool [H, W]."""
    left, top, right, bottom = box
    ys, xs = np.indices(PHOTO.shape[:2])
    return (xs > left - 2) & (xs < right + 2) & (ys > top - 2) & (ys < bottom + 2)


def redness(image: np.ndarray) -> float:
    return float(image[..., 0].mean() - image[..., 1:].mean())


# Which faces


def test_all_faces_are_translated(translator):
    result = translator.translate(PHOTO, "red", "A2B")
    assert [each.index for each in result.translations] == [0, 1, 2]
    boxes = np.zeros(PHOTO.shape[:2], bool)
    for each, place in zip(result.translations, PLACES, strict=True):
        assert np.abs(each.face.landmarks - drawn_landmarks(*place)).max() < 0.06 * place[2]
        left, top, right, bottom = (round(value) for value in each.box)
        # The feathered mask is whole in the middle half of the crop.
        across, down = (right - left) // 4, (bottom - top) // 4
        middle = (slice(top + down, bottom - down), slice(left + across, right - across))
        assert redness(result.output[middle]) > redness(PHOTO[middle]) + 60
        boxes |= within(each.box)
    assert not changed(result)[~boxes].any()
    assert np.array_equal(result.photo, PHOTO)
    assert result.seconds > 0


def test_in_a_group_every_face_is_seen_as_it_is_in_the_photo(blind):
    """However close its neighbours are, and whatever became of them."""
    close = [face_at(200, 60, 260), face_at(290, 80, 250)]
    together = blind.translate(PHOTO, "red", "A2B", found=close)
    for index, each in enumerate(together.translations):
        alone = blind.translate(PHOTO, "red", "A2B", faces=index, found=close).translations[0]
        assert np.array_equal(each.input, alone.input) and np.array_equal(each.translation, alone.translation)
    turned_around = blind.translate(PHOTO, "red", "A2B", faces=[1, 0], found=close).output
    assert np.abs(together.output.astype(int) - turned_around).max() <= 2  # rounding
    moving = blind.retouch(PHOTO, "red", "A2B", close)
    assert np.array_equal(moving, together.output)


@pytest.mark.parametrize(
    "faces, indices",
    [
        ("all", [0, 1, 2]),
        ("largest", [0]),
        (0, [0]),
        (2, [2]),
        ("1", [1]),
        ([2, 0], [2, 0]),
        ((1,), [1]),
    ],
    ids=str,
)
def test_the_faces_asked_for_are_translated_and_no_others(blind, faces, indices):
    result = blind.translate(PHOTO, "red", "A2B", faces=faces, found=FACES)
    assert [each.index for each in result.translations] == indices
    assert all(each.face is FACES[each.index] for each in result.translations)
    for index, (left, top, side) in enumerate(PLACES):
        nose = result.output[top + side // 2, left + side // 2].astype(int)
        assert (nose != PHOTO[top + side // 2, left + side // 2]).any() == (index in indices)


@pytest.mark.parametrize(
    "faces, count, message",
    [
        (0, 0, NO_FACE),
        ("all", 0, NO_FACE),
        ("largest", 0, NO_FACE),
        (3, 3, "There is no face 4 in this photo: only 3 faces were found."),
        (1, 1, "There is no face 2 in this photo: only 1 face was found."),
        ([0, 7], 3, "There is no face 8 in this photo: only 3 faces were found."),
        (-1, 3, "There is no face 0 in this photo: only 3 faces were found."),
        ("smallest", 3, '"smallest" is not a choice of faces. Use all, largest or a number.'),
        ("", 3, '"" is not a choice of faces. Use all, largest or a number.'),
        (None, 3, '"None" is not a choice of faces. Use all, largest or a number.'),
        (1.5, 3, '"1.5" is not a choice of faces. Use all, largest or a number.'),
    ],
    ids=str,
)
def test_faces_that_are_not_there(blind, faces, count, message):
    with pytest.raises(NoFaceError) as caught:
        blind.translate(PHOTO, "red", "A2B", faces=faces, found=FACES[:count])
    assert str(caught.value) == message


def test_choosing_no_face_changes_nothing(blind):
    result = blind.translate(PHOTO, "red", "A2B", faces=[], found=FACES)
    assert result.translations == [] and not changed(result).any()
    assert choose([], 3) == []


@pytest.mark.parametrize(
    "photo", [texture(200, 300), np.zeros((64, 64, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)]
)
def test_a_photo_without_a_face(translator, photo):
    assert translator.detect(photo) == []
    with pytest.raises(NoFaceError) as caught:
        translator.translate(photo, "red", "A2B")
    assert str(caught.value) == NO_FACE


def test_detect_lists_the_faces_that_translate_counts(translator):
    faces = translator.detect(PHOTO)
    assert len(faces) == 3
    (each,) = translator.translate(PHOTO, "same", "A2B", faces=1).translations
    assert each.face.box == faces[1].box


# What is made of them


def test_the_pictures_of_a_translation(blind):
    (each,) = blind.translate(PHOTO, "red", "A2B", faces=0, found=FACES).translations
    matrix = align.photo_to_crop(FACES[0].landmarks, TEMPLATE, 64)
    assert np.array_equal(each.input, align.crop(PHOTO, matrix, 64))
    assert each.translation.shape == each.reconstruction.shape == (64, 64, 3)
    assert each.translation.dtype == each.reconstruction.dtype == np.uint8
    assert np.abs(each.translation - tinted_red(each.input)).max() <= 1
    # The way back changes nothing here, so that the reconstruction is still red.
    assert np.array_equal(each.reconstruction, each.translation)
    difference = np.abs(each.input.astype(float) - each.reconstruction).mean() / 255
    assert each.cycle_l1 == pytest.approx(difference) and each.cycle_l1 > 0.1
    assert each.box == pytest.approx(align.bounding_box(matrix, 64))


def test_each_direction_has_its_own_way_back(blind):
    (each,) = blind.translate(PHOTO, "red", "B2A", faces=0, found=FACES).translations
    assert np.array_equal(each.translation, each.input)
    assert np.abs(each.reconstruction - tinted_red(each.input)).max() <= 1


def test_a_model_that_changes_nothing_leaves_the_photo(blind):
    result = blind.translate(PHOTO, "same", "A2B", found=FACES)
    assert np.array_equal(result.output, PHOTO)
    for each in result.translations:
        assert np.array_equal(each.input, each.translation) and np.array_equal(each.input, each.reconstruction)
        assert each.cycle_l1 == 0


def test_the_photo_given_is_never_written_to(blind):
    photo = PHOTO.copy()
    photo.setflags(write=False)
    blind.translate(photo, "red", "A2B", found=FACES)
    assert np.array_equal(photo, PHOTO)


def test_a_face_beyond_the_edge(blind):
    photo = np.ascontiguousarray(PHOTO[:, 330:])  # half of the largest face
    result = blind.translate(photo, "red", "A2B", found=[face_at(200 - 330, 60, 260)])
    (each,) = result.translations
    assert each.box[0] < 0
    assert redness(result.output[160:220, :20]) > redness(photo[160:220, :20]) + 60
    assert np.array_equal(result.output[:, -60:], photo[:, -60:])


# Chains


def test_a_chain_of_models_that_change_nothing_changes_nothing(blind):
    result = blind.translate(PHOTO, "same", "A2B", then=[("same", "B2A"), ("same", "A2B")], found=FACES)
    assert np.array_equal(result.output, PHOTO)
    assert all(each.cycle_l1 == 0 for each in result.translations)


def test_the_second_model_gets_the_face_the_first_made(blind):
    once = blind.translate(PHOTO, "red", "A2B", faces=0, found=FACES)
    twice = blind.translate(PHOTO, "red", "A2B", faces=0, then=[("red", "A2B")], found=FACES)
    (first,), (second,) = once.translations, twice.translations
    assert np.array_equal(first.input, second.input)
    # Red twice in the middle; towards the border, where the first step was feathered, once.
    middle = (slice(20, 44), slice(20, 44))
    assert np.abs(second.translation[middle] - tinted_red(tinted_red(first.input))[middle]).mean() < 4
    assert redness(second.translation) > redness(first.translation) + 20


def test_every_model_of_a_chain_cuts_its_own_crop(blind):
    result = blind.translate(PHOTO, "red", "A2B", faces=0, then=[("blue", "A2B")], found=FACES)
    (each,) = result.translations
    assert each.input.shape == each.reconstruction.shape == (64, 64, 3)  # as the first model sees faces
    assert each.translation.shape == (48, 48, 3)  # as the last one does
    wide = align.photo_to_crop(FACES[0].landmarks, align.Template(TEMPLATE.landmarks, 1.4), 48)
    assert not changed(result)[~within(align.bounding_box(wide, 48))].any()
    left, top, side = PLACES[0]
    nose = result.output[top + side // 2, left + side // 2].astype(float)
    red = tinted_red(PHOTO[top + side // 2, left + side // 2])
    assert np.abs(nose - (red + (np.array((-0.9, -0.9, 0.9)) + 1) * 127.5) / 2).max() < 12


def test_the_way_back_of_a_chain_visits_every_model(blind):
    (each,) = blind.translate(PHOTO, "same", "A2B", faces=0, then=[("red", "B2A")], found=FACES).translations
    # Forward nothing changes; on the way back the second model reddens.
    assert np.abs(each.translation.astype(int) - each.input).max() == 0
    middle = (slice(20, 44), slice(20, 44))
    assert np.abs(each.reconstruction[middle] - tinted_red(each.input)[middle]).mean() < 3
    (each,) = blind.translate(PHOTO, "red", "B2A", faces=0, then=[("same", "A2B")], found=FACES).translations
    assert np.abs(each.reconstruction - tinted_red(each.input)).max() <= 1


def test_the_way_back_of_models_with_different_crops(blind):
    (each,) = blind.translate(PHOTO, "same", "A2B", faces=0, then=[("blue", "B2A")], found=FACES).translations
    inner = (slice(16, 48), slice(16, 48))
    tinted = (each.input[inner].astype(float) + (np.array((-0.9, -0.9, 0.9)) + 1) * 127.5) / 2
    assert np.abs(each.reconstruction[inner] - tinted).mean() < 6


def test_a_drawing_made_by_the_first_model_stays_where_the_face_was(blind):
    result = blind.translate(PHOTO, "sketch", "A2B", faces=0, then=[("paint", "A2B")], found=FACES)
    (each,) = result.translations
    assert each.input.shape == (96, 96, 3) and each.translation.shape == (32, 32, 3)
    assert each.face is FACES[0]
    expected = align.crop(each.input, align.square_to_crop((0, 0, 96, 96), 32), 32)
    middle = (slice(10, 22), slice(10, 22))
    assert np.abs(each.translation[middle] - tinted_red(expected)[middle]).mean() < 6
    assert not changed(result)[~within(each.box)].any()


# Drawings


def test_a_drawing_needs_no_detector(blind):
    assert blind.needs_faces("red", "A2B") and blind.needs_faces("red", "B2A")
    assert blind.needs_faces("sketch", "A2B") and not blind.needs_faces("sketch", "B2A")
    assert not blind.needs_faces("paint", "A2B")

    drawing = texture(100, 160)
    result = blind.translate(drawing, "paint", "A2B")
    (each,) = result.translations
    assert each.index == 0 and each.face is None
    assert each.box == pytest.approx((30, 0, 130, 100))
    assert not changed(result)[:, :30].any() and not changed(result)[:, 130:].any()
    assert redness(result.output[30:70, 60:100]) > redness(drawing[30:70, 60:100]) + 60


@pytest.mark.parametrize("square", [(20, 30, 84, 94), (100.5, 10.25, 140.5, 50.25), (-20, -10, 44, 54)])
def test_the_square_can_be_chosen(blind, square):
    drawing = texture(100, 160)
    result = blind.translate(drawing, "paint", "A2B", square=square)
    (each,) = result.translations
    left, top, right, bottom = square
    assert each.box == pytest.approx(square)
    assert np.array_equal(each.input, align.crop(drawing, align.square_to_crop(square, 32), 32))
    ys, xs = np.indices((100, 160))
    assert not changed(result)[(xs < left - 1) | (xs > right) | (ys < top - 1) | (ys > bottom)].any()
    assert changed(result).mean() > 0.3 * (min(right, 160) - max(left, 0)) * (min(bottom, 100) - max(top, 0)) / 16000


@pytest.mark.parametrize(
    "square", [(20, 30, 20, 30), (84, 30, 20, 94), (20, 30, float("nan"), 94), (20, 30, float("inf"), 94)]
)
def test_an_empty_square(blind, square):
    with pytest.raises(BadImageError) as caught:
        blind.translate(texture(100, 160), "paint", "A2B", square=square)
    assert str(caught.value) == "The part of the picture to translate is empty. Choose a larger one."


def test_a_chain_that_starts_from_a_drawing(blind):
    drawing = texture(120, 120)
    result = blind.translate(drawing, "paint", "B2A", then=[("red", "A2B")])
    (each,) = result.translations
    assert each.face is None and each.translation.shape == (64, 64, 3)
    assert redness(result.output[40:80, 40:80]) > redness(drawing[40:80, 40:80]) + 60


def test_a_face_made_of_a_drawing_is_aligned_for_the_next_model(translator):
    """As if somebody had saved the first result, and opened it anew."""
    drawing = draw_photo((150, 90, 230))
    made = translator.translate(drawing, "sketch", "B2A")
    opened = translator.translate(made.output, "red", "A2B").translations[0]
    (chained,) = translator.translate(drawing, "sketch", "B2A", then=[("red", "A2B")]).translations
    assert chained.face is None and np.array_equal(chained.translation, opened.translation)
    # Where there is no face after all, the crop stays where it was.
    plain = translator.translate(texture(200, 200), "sketch", "B2A", then=[("red", "A2B")])
    assert redness(plain.output[60:140, 60:140]) > redness(texture(200, 200)[60:140, 60:140]) + 60


# Mistakes are found before any work is done


@pytest.mark.parametrize(
    "model, direction, then, error, message",
    [
        ("anime", "A2B", (), UnknownModelError,
         'There is no model "anime". Known models: blue, paint, red, same, sketch.'),
        ("red", "AB", (), UnknownDirectionError, 'There is no direction "AB". Choose A2B or B2A.'),
        ("broken", "A2B", (), BadCheckpointError, 'The model "broken" has no config.json.'),
        ("red", "A2B", [("anime", "A2B")], UnknownModelError,
         'There is no model "anime". Known models: blue, paint, red, same, sketch.'),
        ("red", "A2B", [("same", "B2B")], UnknownDirectionError, 'There is no direction "B2B". Choose A2B or B2A.'),
        ("red", "A2B", [("broken", "A2B")], BadCheckpointError, 'The model "broken" has no config.json.'),
    ],
)  # fmt: skip
def test_unknown_models_and_directions(blind, model, direction, then, error, message):
    with pytest.raises(error) as caught:
        blind.translate(PHOTO, model, direction, then=then)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "photo, message",
    [
        (np.zeros((8, 200, 3), np.uint8), "The image is 200 x 8 pixels; at least 16 x 16 are needed."),
        (
            np.zeros((64, 64), np.uint8),
            "The image is not an RGB picture with 8 bits per colour. Save it as PNG or JPEG and try again.",
        ),
        (
            np.zeros((64, 64, 3), np.float32),
            "The image is not an RGB picture with 8 bits per colour. Save it as PNG or JPEG and try again.",
        ),
        (
            np.broadcast_to(np.uint8(0), (9000, 12000, 3)),
            "The image is 12000 x 9000 pixels; at most 64 megapixels are accepted. Make it smaller and try again.",
        ),
    ],
)
@pytest.mark.parametrize("call", [Translator.detect, lambda t, photo: t.translate(photo, "red", "A2B")])
def test_bad_pictures(blind, call, photo, message):
    with pytest.raises(BadImageError) as caught:
        call(blind, photo)
    assert str(caught.value) == message


def test_a_device_that_does_not_exist(translator):
    with pytest.raises(DeviceError) as caught:
        Translator(translator.zoo, device="tpu")
    assert str(caught.value) == 'There is no device "tpu". Choose auto, cuda, mps, cpu.'


# Sharing


def test_many_people_share_a_translator(translator):
    """Eight at once, engines not made yet: each gets what the translator gives to one alone."""
    shared = Translator(translator.zoo, device="cpu", detector=NoDetector())  # OpenVINO, as served
    jobs = []
    for i in range(8):
        photo = np.roll(PHOTO, 1, axis=2) if i % 3 else np.ascontiguousarray(PHOTO[::-1])
        jobs.append((photo, "red", ("A2B", "B2A")[i // 4], i % 3))
    start = threading.Barrier(8)

    def work(job):
        photo, model, direction, face = job
        start.wait()
        return [shared.translate(photo, model, direction, faces=face, found=FACES) for _ in range(2)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, jobs))
    for (photo, model, direction, face), attempts in zip(jobs, results, strict=True):
        alone = translator.translate(photo, model, direction, faces=face, found=FACES)
        for result in attempts:
            assert np.abs(result.output.astype(int) - alone.output).max() <= 1
            assert result.translations[0].face is FACES[face]


# The glasses model on real faces

EYES, CHIN = (slice(0.22, 0.48), slice(0.12, 0.88)), (slice(0.82, 0.98), slice(0.3, 0.7))


def mean_change(photo, output, face: Face, part) -> float:
    """Mean change in a part of a face, given as fractions of an upright crop around it."""
    matrix = align.photo_to_crop(face.landmarks, TEMPLATE, 200)
    before, after = (align.crop(image, matrix, 200).astype(int) for image in (photo, output))
    where = tuple(slice(int(s.start * 200), int(s.stop * 200)) for s in part)
    return float(np.abs(after - before)[where].mean())


@pytest.fixture(scope="session")
def shipped() -> Translator:
    return Translator(Zoo(), device="cpu")


@pytest.mark.parametrize(
    "name, direction",
    [
        ("dlib_2008_002506.jpg", "A2B"),
        ("facenet_multiface.jpg", "A2B"),
        ("facerec_obama_small.jpg", "A2B"),
        ("deepface_img24_glasses.jpg", "B2A"),
    ],
)
def test_glasses_change_the_eyes_more_than_the_chin(shared_faces, shipped, name, direction):
    photo, faces = shared_faces(name)
    result = shipped.translate(photo, "glasses", direction, found=faces)
    eyes, chin = (np.array([mean_change(photo, result.output, face, part) for face in faces]) for part in (EYES, CHIN))
    assert (eyes > chin).mean() > 0.6 and eyes.mean() > chin.mean()
    assert eyes.mean() > 4  # grey levels: a person sees it
    assert all(each.cycle_l1 < 0.15 for each in result.translations)
    boxes = np.zeros(photo.shape[:2], bool)
    for each in result.translations:
        left, top, right, bottom = (int(value) for value in each.box)
        boxes[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = True
    assert np.array_equal(result.output[~boxes], photo[~boxes])
