"""`train.prepare`: raw folders, with whatever lies in them, to crops that are cut as the app cuts them."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import make_config, make_model
from train_fixtures import (  # noqa: F401
    ROOT,
    SHARED,
    needs_real_images,
    one_thread,
    write_image,
    write_noise,
)

from cyclegan.errors import BadImageError
from cyclegan.faces.align import photo_to_crop
from cyclegan.faces.detect import Face, FaceDetector
from cyclegan.images import load_image
from cyclegan.translator import Translator
from cyclegan.zoo import Zoo
from train import prepare as module
from train.errors import TrainingError
from train.prepare import (
    BAD_SIZE,
    FORBIDDEN,
    LONG_NAME,
    NO_FACE,
    TEMPLATES,
    UNREADABLE,
    Geometry,
    cut,
    prepare,
    read_geometry,
)
from train.sources import Images, Source

pytestmark = pytest.mark.usefixtures("one_thread")

FRONTAL = (
    "deepface_img10.jpg",
    "deepface_img24_glasses.jpg",
    "dlib_2008_001009.jpg",
    "faceapi_surprised.jpg",
    "facerec_32bit.png",
    "facerec_obama_small.jpg",
)
SQUARE = Geometry(size=32, faces=("square", "square"))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def training_faces(folder: str, count: int) -> list[Path]:
    with open(SHARED / "data" / "domains.csv", newline="") as rows:
        names = [row["image"] for row in csv.DictReader(rows) if (row["task"], row["folder"]) == ("glasses", folder)]
    return [SHARED / "data" / name for name in names[:count]]


def found(raw: Path) -> Images:
    return Source(data=raw).find(raw / "out")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_junk(folder: Path) -> None:
    """Everything that people's folders hold beside photos: five files that cannot be read, one too small, three
    without a face."""
    photo = (SHARED / "photos" / "facerec_obama_small.jpg").read_bytes()
    (folder / "notes.txt").write_text("to do: sort these")
    (folder / "cut off.jpg").write_bytes(photo[: len(photo) // 2])
    (folder / "logo.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>')
    (folder / "empty.png").touch()
    write_image(folder / "dot.png", np.zeros((1, 1, 3), np.uint8))
    os.mkfifo(folder / "pipe.jpg")  # not a file: neither read nor counted
    (folder / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).write_bytes(b"not unicode")
    shutil.copy(SHARED / "photos" / "dlib_dogs.jpg", folder / "dogs.jpg")
    write_image(folder / "icon.png", np.full((16, 16, 3), 90, np.uint8))
    write_image(folder / "banner.png", np.full((20, 4000, 3), 90, np.uint8))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "photo.jpg").write_bytes(photo)
    (folder / "empty folder").mkdir()


JUNK, TINY, FACELESS = 5, 1, 3  # of `write_junk`


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two folders of junk and real faces, prepared once: (images, out, geometry, report)."""
    root = tmp_path_factory.mktemp("mixed")
    raw_a, raw_b, out = root / "a", root / "b", root / "out"
    for folder in (raw_a / "one" / "deep", raw_a / "two", raw_b):
        folder.mkdir(parents=True)
    first, second, *others = training_faces("testA", 4)
    shutil.copy(first, raw_a / "one" / "deep" / "face.jpg")
    shutil.copy(second, raw_a / "two" / "face.jpg")
    for path in others:
        shutil.copy(path, raw_a)
    for path in training_faces("testB", 2):
        shutil.copy(path, raw_b)
    for name in FRONTAL:
        shutil.copy(SHARED / "photos" / name, raw_b)
    write_junk(raw_a)
    images = Source(a=str(raw_a), b=str(raw_b), test_share=0).find(out)
    geometry = Geometry(size=128)
    return images, out, geometry, prepare(images, out, geometry)


@needs_real_images
def test_junk_is_counted_by_reason_and_stops_nothing(mixed):
    _, out, _, report = mixed
    assert report.crops == {"trainA": 4, "trainB": 2 + len(FRONTAL)}
    assert report.rejected == {UNREADABLE: JUNK, BAD_SIZE: TINY, NO_FACE: FACELESS}
    assert str(report) == (
        "trainA        4 crops\n"
        "trainB        8 crops\n"
        "rejected      3 no face found\n"
        "rejected      5 not a readable image\n"
        "rejected      1 too small or too large"
    )


@needs_real_images
def test_every_rejected_image_is_listed_with_its_reason(mixed):
    _, out, _, _ = mixed
    with open(out / "rejected.csv", newline="", encoding="utf-8", errors="surrogateescape") as rows:
        listed = {name: reason for folder, name, reason in csv.reader(rows) if folder == "trainA"}
    assert {name for name, reason in listed.items() if reason == "no face found"} == {
        "dogs.jpg",
        "icon.png",
        "banner.png",
    }
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    unreadable = {name for name, reason in listed.items() if reason == "not a readable image"}
    assert unreadable == {"notes.txt", "cut off.jpg", "logo.svg", "empty.png", odd}
    assert listed["dot.png"] == "too small or too large"


@needs_real_images
def test_equal_names_in_two_folders_stay_two_crops(mixed):
    _, out, _, _ = mixed
    names = {path.name for path in (out / "trainA").iterdir()}
    assert {"one__deep__face.jpg.jpg", "two__face.jpg.jpg"} <= names
    assert len(names) == 4


@needs_real_images
def test_crops_have_the_eyes_where_the_template_wants_them(mixed, detector):
    _, out, geometry, _ = mixed
    wanted = geometry.template.points(geometry.size)
    for name in FRONTAL:
        crop = load_image(out / "trainB" / f"{name}.jpg")
        assert crop.shape == (128, 128, 3)
        found = detector.detect(crop)[0].landmarks
        photo = detector.detect(load_image(SHARED / "photos" / name))[0].landmarks
        matrix = photo_to_crop(photo, geometry.template, geometry.size)
        moved = photo @ matrix[:, :2].T + matrix[:, 2]
        assert np.abs(found - moved).max() < 0.03 * 128, name  # as near as a second look comes
        assert np.abs(moved[:2] - wanted[:2]).max() < 0.04 * 128, name
        assert np.abs(found - wanted).max() < 0.08 * 128, name  # nose and mouth are a matter of pose


@needs_real_images
def test_the_second_run_does_nothing_and_reports_the_same(mixed, monkeypatch):
    images, out, geometry, report = mixed
    before, stamps = content(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}

    def detect(*_):
        raise AssertionError("a face was looked for again")

    monkeypatch.setattr(FaceDetector, "detect", detect)
    assert prepare(images, out, geometry) == report
    after = content(out)
    for files in (before, after):  # the files that are tried again move to the end of the list
        files["rejected.csv"] = sorted(files["rejected.csv"].splitlines())
    assert after == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")} == stamps


@needs_real_images
def test_the_crop_of_training_is_the_crop_of_the_app(mixed, detector, tmp_path):
    """Through everything between them: prepare.json, the model's config.json, the zoo, the translator."""
    _, out, _, _ = mixed
    geometry = read_geometry(out)
    _write_model(tmp_path / "tiny", geometry)
    translator = Translator(Zoo(tmp_path), "cpu", engine="torch", detector=detector)
    for path in [SHARED / "photos" / name for name in FRONTAL[:2]] + training_faces("testA", 2):
        photo = load_image(path)
        trained = cut(photo, geometry, detector)
        served = translator.translate(photo, "tiny", "A2B", faces="largest").translations[0].input
        assert np.array_equal(trained, served), path.name
    # And the crop on disk is that crop, but for JPEG.
    stored = load_image(out / "trainB" / f"{FRONTAL[0]}.jpg")
    trained = cut(load_image(SHARED / "photos" / FRONTAL[0]), geometry, detector)
    assert np.abs(stored.astype(int) - trained).mean() < 2


def test_the_square_of_training_is_the_square_of_the_app(tmp_path):
    geometry = Geometry(size=32, faces=("mtcnn", "square"))
    _write_model(tmp_path / "tiny", geometry)
    drawing = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    served = Translator(Zoo(tmp_path), "cpu", engine="torch").translate(drawing, "tiny", "B2A").translations[0].input
    assert np.array_equal(cut(drawing, geometry, None), served)
    assert np.abs(served.astype(int) - 128).mean() > 5  # not an even grey by accident


def _write_model(folder: Path, geometry: Geometry) -> None:
    """A model with the geometry that `fit` would give it."""
    config = make_config(image_size=geometry.size, template=geometry.template, faces=geometry.faces)
    make_model(config).save_pretrained(folder)


@needs_real_images
def test_the_largest_face_is_cut(detector):
    photo = load_image(SHARED / "photos" / "facerec_obama_and_biden.jpg")
    both = detector.detect(photo)

    class Found:
        def __init__(self, *faces: Face):
            self.faces = list(faces)

        def detect(self, _):
            return self.faces

    crops = [cut(photo, Geometry(size=64), Found(face)) for face in both[:2]]
    assert not np.array_equal(*crops)
    assert np.array_equal(cut(photo, Geometry(size=64), detector), crops[0])


# Without faces: synthetic pictures. ---------------------------------------------------------------------------------


@pytest.fixture
def raw(tmp_path):
    for letter, seed in (("A", 1), ("B", 2)):
        write_noise(tmp_path / "raw" / f"train{letter}", 4, side=48, seed=seed)
    return tmp_path / "raw"


def test_drawings_need_no_detector(raw, tmp_path, monkeypatch):
    def no_detector(*_):
        raise AssertionError("the detector was loaded")

    module._detector.cache_clear()
    monkeypatch.setattr(module, "FaceDetector", no_detector)
    report = prepare(found(raw), tmp_path / "out", SQUARE)
    assert report.crops == {"trainA": 4, "trainB": 4} and report.rejected == {}
    crops = list((tmp_path / "out").rglob("*.jpg"))
    assert len(crops) == 8 and {load_image(path).shape for path in crops} == {(32, 32, 3)}


def test_a_name_too_long_for_a_crop_is_rejected_and_stops_nothing(tmp_path):
    raw = tmp_path / "raw"
    for letter in "AB":
        for name in (f"{letter}.png", "x" * 251 + ".png"):  # the folders' part of a name comes on top
            write_image(raw / f"train{letter}" / name, np.full((40, 40, 3), ord(letter), np.uint8))
    for _ in range(2):  # a second run is as good as the first
        report = prepare(found(raw), tmp_path / "out", SQUARE)
        assert report.crops == {"trainA": 1, "trainB": 1} and report.rejected == {LONG_NAME: 2}
    assert not [path for path in (tmp_path / "out").rglob(".*")]


def test_pictures_that_prepare_refuses_do_not_become_crops(tmp_path):
    """Else `fit` would take a person's own pictures for aligned faces."""
    for letter in "AB":
        write_image(tmp_path / "raw" / letter / f"{letter}.png", np.full((40, 40, 3), 90, np.uint8))
        write_image(tmp_path / "mine" / f"train{letter}" / "own.jpg", np.full((40, 40, 3), 90, np.uint8))
    images = Source(a=str(tmp_path / "raw" / "A"), b=str(tmp_path / "raw" / "B"), test_share=0).find(tmp_path / "mine")
    with pytest.raises(TrainingError, match="holds 2 crops that these images do not give"):
        prepare(images, tmp_path / "mine", Geometry())
    assert not (tmp_path / "mine" / "prepare.json").exists()


@needs_real_images
def test_each_domain_has_its_own_way_of_finding_faces(tmp_path):
    """Photographs to drawings: a picture without a face is rejected among photographs and cut among drawings."""
    face = training_faces("testA", 1)[0]
    for letter in "AB":
        write_image(tmp_path / "raw" / f"train{letter}" / "plain.png", np.full((64, 64, 3), 90, np.uint8))
        shutil.copy(face, tmp_path / "raw" / f"train{letter}" / "face.jpg")
    geometry = Geometry(size=32, faces=("mtcnn", "square"))
    report = prepare(found(tmp_path / "raw"), tmp_path / "out", geometry)
    assert report.crops == {"trainA": 1, "trainB": 2}
    assert report.rejected == {NO_FACE: 1}


@pytest.mark.parametrize("half_written", [True, False])
def test_an_interrupted_run_leaves_only_whole_crops_and_continues(raw, tmp_path, monkeypatch, half_written):
    images = found(raw)
    prepare(images, tmp_path / "whole", SQUARE)
    expected = content(tmp_path / "whole")

    out, written = tmp_path / "out", []
    write = Path.write_bytes

    def interrupted(path, content):
        if "train" in str(path.relative_to(out)):
            written.append(path)
        if len(written) == 6:
            write(path, content[:300] if half_written else content)
            raise KeyboardInterrupt
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(images, out, SQUARE)
    # Whatever `fit` or a person would take for a crop is one.
    visible = [path for path in out.glob("train?/*") if not path.name.startswith(".")]
    assert len(visible) == 5
    assert all(path.read_bytes() == expected[str(path.relative_to(out))] for path in visible)

    report = prepare(images, out, SQUARE)
    assert report.crops == {"trainA": 4, "trainB": 4}
    assert content(out) == expected


def test_several_processes_make_the_same_crops_in_the_same_order(tmp_path):
    for letter, seed in (("A", 1), ("B", 2)):
        write_noise(tmp_path / "raw" / f"train{letter}", 60, side=24, seed=seed)
        for name in ("010x.png", "030x.png"):
            (tmp_path / "raw" / f"train{letter}" / name).write_text("hello")
    images = found(tmp_path / "raw")
    alone, together = (prepare(images, tmp_path / f"out{n}", SQUARE, workers=n) for n in (1, 2))
    assert together == alone and alone.rejected == {UNREADABLE: 4}
    assert content(tmp_path / "out2") == content(tmp_path / "out1")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds child processes in /proc")
def test_killed_at_any_moment_it_leaves_no_process_behind_and_continues(tmp_path):
    for letter, seed in (("A", 1), ("B", 2)):
        write_noise(tmp_path / "raw" / f"train{letter}", 400, side=24, seed=seed)
    images, out = found(tmp_path / "raw"), tmp_path / "out"
    command = [sys.executable, "-m", "train", "prepare", "--data", tmp_path / "raw", "--out", out, "--workers", "2"]
    command += ["--size", "32", "--faces", "square", "square"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.DEVNULL)
    _wait_until(lambda: list(out.glob("trainA/*.jpg")) or process.poll() is not None)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(children) >= 2
    _wait_until(lambda: not any(_runs(child) for child in children))

    assert 0 < len(list(out.glob("train?/*.jpg"))) < 800
    prepare(images, tmp_path / "whole", SQUARE)
    prepare(images, out, SQUARE)
    assert {name: data for name, data in content(out).items() if not name.endswith(".partial")} == content(
        tmp_path / "whole"
    )


def _wait_until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _end(_):
    os._exit(9)  # as the system ends a process that takes too much memory


def test_a_process_that_the_system_ends_is_explained():
    with pytest.raises(
        TrainingError, match="mostly for lack of memory. Lower --workers and run the same command again"
    ):
        list(module._in_processes(_end, [(Path("x"), "square")], 2))


def test_new_images_are_added_by_the_next_run(raw, tmp_path):
    out = tmp_path / "out"
    prepare(found(raw), out, SQUARE)
    write_noise(raw / "testA", 2, side=48, seed=3)
    (raw / "trainB" / "notes.txt").write_text("hello")
    report = prepare(found(raw), out, SQUARE)
    assert report.crops == {"trainA": 4, "trainB": 4, "testA": 2}
    assert report.rejected == {UNREADABLE: 1}


def test_a_repaired_image_is_cut_by_the_next_run(raw, tmp_path):
    broken, out = raw / "trainA" / "001.png", tmp_path / "out"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])  # a corrupt image in the middle
    for _ in range(2):
        report = prepare(found(raw), out, SQUARE)
        assert report.crops == {"trainA": 3, "trainB": 4} and report.rejected == {UNREADABLE: 1}
        assert (out / "rejected.csv").read_text().splitlines() == [f"trainA,001.png,{UNREADABLE}"]
    broken.write_bytes(whole)
    report = prepare(found(raw), out, SQUARE)
    assert report.crops == {"trainA": 4, "trainB": 4} and report.rejected == {}
    assert (out / "rejected.csv").read_text() == ""


def test_an_image_that_may_not_be_read_is_counted_as_such(raw, tmp_path, monkeypatch):
    def load(path):
        if path.name == "001.png":
            raise BadImageError("x") from PermissionError(13, "Permission denied")
        return load_image(path)

    monkeypatch.setattr(module, "load_image", load)
    report = prepare(found(raw), tmp_path / "out", SQUARE)
    assert report.rejected == {FORBIDDEN: 2} and report.crops == {"trainA": 3, "trainB": 3}


def test_another_division_into_training_and_test_is_not_mixed_with_the_first(raw, tmp_path):
    sources = [Source(a=str(raw / "trainA"), b=str(raw / "trainB"), test_share=share) for share in (0, 0.9)]
    out = tmp_path / "out"
    prepare(sources[0].find(out), out, SQUARE)
    before = content(out)
    images = sources[1].find(out)
    moved = len(images.get("testA", ())) + len(images.get("testB", ()))
    with pytest.raises(TrainingError) as caught:
        prepare(images, out, SQUARE)
    assert str(caught.value).startswith(f"{out} holds {moved} crops that these images do not give, the first: trainA/")
    assert content(out) == before


@pytest.mark.parametrize(
    "other",
    [
        Geometry(size=64, faces=("square", "square")),
        Geometry(size=32, faces=("square", "mtcnn")),
        Geometry(size=32, faces=("square", "square"), template=TEMPLATES["portrait"]),
    ],
)
def test_crops_of_other_settings_are_not_mixed(raw, tmp_path, other):
    images, out = found(raw), tmp_path / "out"
    prepare(images, out, SQUARE)
    before = content(out)
    with pytest.raises(TrainingError) as caught:
        prepare(images, out, other)
    assert str(caught.value) == f"{out} holds crops cut with other settings. Choose another --out."
    assert content(out) == before


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        '{"size": 32}',
        "{",
        "[" * 100_000,
        '{"size": NaN}',
        '{"size": 8, "faces": ["square", "square"]}',
        b"\xff",
    ],
)
def test_a_damaged_prepare_json(raw, tmp_path, damage):
    out = tmp_path / "out"
    prepare(found(raw), out, SQUARE)
    (out / "prepare.json").write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    for read in (lambda: prepare(found(raw), out, SQUARE), lambda: read_geometry(out)):
        with pytest.raises(TrainingError) as caught:
            read()
        assert str(caught.value) == f"prepare.json of {out} is damaged. Delete {out} and run prepare again."


@pytest.mark.parametrize(
    "change", [{"size": 4}, {"faces": ["square"]}, {"faces": ["square", "round"]}, {"template": 1}]
)
def test_a_geometry_that_cannot_be(tmp_path, change):
    (tmp_path / "prepare.json").write_text(json.dumps(SQUARE.to_json() | change))
    with pytest.raises(TrainingError, match="is damaged"):
        read_geometry(tmp_path)


def test_pictures_that_were_not_prepared_are_served_as_squares(raw):
    assert read_geometry(raw).faces == ("square", "square")


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_geometry_survives_its_file(raw, tmp_path, template):
    geometry = Geometry(size=48, template=TEMPLATES[template], faces=("square", "square"))
    prepare(found(raw), tmp_path / "out", geometry)
    assert read_geometry(tmp_path / "out") == geometry
    assert json.loads((tmp_path / "out" / "prepare.json").read_text()) == geometry.to_json()


def test_a_crop_too_small_to_be_read_again_is_refused():
    with pytest.raises(TrainingError) as caught:
        Geometry(size=8)
    assert str(caught.value) == "Crops must have a side of at least 16 pixels, not 8."


def test_an_output_folder_that_cannot_be_written(raw, tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(TrainingError) as caught:
        prepare(found(raw), tmp_path / "out", SQUARE)
    assert str(caught.value) == f"The crops cannot be written to {tmp_path / 'out'}: File exists."


def test_a_full_disk_is_said_and_what_is_there_stays(raw, tmp_path, monkeypatch):
    out, write = tmp_path / "out", Path.write_bytes

    def full(path, content):
        if "003.png" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(TrainingError) as caught:
            prepare(found(raw), out, SQUARE)
    assert str(caught.value) == f"The crops cannot be written to {out}: No space left on device."
    assert len(list(out.glob("trainA/*.jpg"))) == 3
    assert prepare(found(raw), out, SQUARE).crops == {"trainA": 4, "trainB": 4}
