"""``python -m cyclegan``: what a person types, reads and finds in the folder afterwards."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from helpers import copy_model, draw_photo, identity_model, make_config, texture, tinted_red
from PIL import Image

from cyclegan.__main__ import main
from cyclegan.images import encode_png, load_image, save_png
from cyclegan.translator import Translator

ROOT = Path(__file__).resolve().parents[1]
NO_FACE = "No face was found in this photo. Try one where the face is larger, brighter or turned to the camera."
NOT_AN_IMAGE = "The file is not an image we can read. Use a JPEG, PNG, WebP, GIF, BMP or TIFF file."
DAMAGED = "The image is cut off or damaged. Save it again and try once more."
KINDS = ("input", "translation", "reconstruction")
PLACES = ((200, 60, 260), (480, 100, 150))
SMALL = draw_photo((20, 10, 160), width=220, height=180)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys, checkpoints, here, detector, monkeypatch):
    """A function from arguments to (exit code, stdout, stderr) of a command on the models for tests.

    The detector is loaded once for all, and PyTorch starts sooner than OpenVINO; the commands in a process of their
    own and those on photographs run with everything as it is.
    """
    quick = partial(Translator, engine="torch", detector=detector)
    monkeypatch.setattr("cyclegan.__main__.Translator", quick)

    def call(*args: str, models: Path = checkpoints):
        try:
            code = main([args[0], "--checkpoints", str(models), *args[1:]])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        # Nobody should read a traceback, or where things lie on this machine.
        for secret in (str(models), str(here), str(ROOT), "Traceback", "site-packages"):
            assert secret not in err
        return code, out, err

    return call


def translate(run, *args: str, model: str = "red", direction: str = "A2B", **options):
    return run("translate", *args, "--model", model, "--direction", direction, "--device", "cpu", **options)


def files(folder: str = "results") -> list[str]:
    """The pictures and videos; beside them lies the manifest."""
    names = {path.name for path in Path(folder).iterdir()}
    assert "manifest.json" in names
    return sorted(names - {"manifest.json"})


def results(stem: str, *indices: int) -> list[str]:
    return sorted([f"{stem}.png", *(f"{stem}.face{i}.{kind}.png" for i in indices for kind in KINDS)])


# The command itself


def test_as_a_person_types_it(checkpoints, here):
    """In a process of its own: exit codes, and nothing on stderr but the message."""
    save_png("small.png", SMALL)
    Path("junk.jpg").write_bytes(b"no picture")
    command = [sys.executable, "-m", "cyclegan", "translate", "small.png", "junk.jpg", "--model", "red"]
    options = ["--direction", "A2B", "--device", "cpu", "--checkpoints", str(checkpoints)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=here, env=environment)
    assert done.returncode == 1
    assert done.stderr == f"junk.jpg: {NOT_AN_IMAGE}\n"
    assert done.stdout.startswith("results/small.png  1 face, ")
    assert files() == results("small", 1)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["paint"],
        ["translate"],
        ["translate", "a.png"],
        ["translate", "a.png", "--model", "red"],
        ["translate", "--model", "red", "--direction", "A2B"],
        ["translate", "a.png", "--model", "red", "--direction", "A2B", "--device", "tpu"],
        ["models", "--all"],
    ],
    ids=" ".join,
)
def test_wrong_usage(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    assert "usage: python -m cyclegan" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["same", "same:AB", "same:a2b", "A2B", ":", ""])
def test_a_link_that_is_not_one(run, text):
    code, _, err = translate(run, "a.png", "--then", text)
    assert code == 2
    assert err.endswith(f'error: argument --then: "{text}" is not NAME:DIRECTION, as in glasses:A2B\n')


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "first", "", "²"])
def test_a_choice_of_face_that_is_not_one(run, text):
    code, _, err = translate(run, "a.png", f"--face={text}")
    assert code == 2
    assert err.endswith(f'error: argument --face: "{text}" is not all, largest, or a number from 1\n')


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["translate", "--help"])
    assert stop.value.code == 0
    assert "python -m cyclegan translate holiday.jpg --model glasses --direction A2B" in capsys.readouterr().out


# models


def test_models_for_people(run):
    code, out, err = run("models")
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[::3]] == ["red", "same", "sketch"]
    assert lines[0] == "red: Red, 64 px, 0.01 M parameters, 0.00 GMAC"
    assert lines[1:3] == ["  A2B  Change", "  B2A  Change back"]


def test_models_for_programs(run, checkpoints):
    code, out, err = run("models", "--json")
    assert code == 0 and err == ""
    rows = json.loads(out)
    assert [row["name"] for row in rows] == ["red", "same", "sketch"]
    wanted = {"name", "domains", "directions", "image_size", "parameters", "macs", "sha256", "metrics"}
    assert all(wanted <= row.keys() for row in rows)
    assert rows[0]["directions"] == {"A2B": "Change", "B2A": "Change back"}
    for row in rows:
        assert (
            row["sha256"] == hashlib.sha256((checkpoints / row["name"] / "model.safetensors").read_bytes()).hexdigest()
        )


def test_a_bad_model_is_named_and_the_others_are_listed(run, checkpoints, here):
    copy_model(checkpoints / "same", here / "models" / "same")
    weights = copy_model(checkpoints / "same", here / "models" / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    (here / "models" / "empty").mkdir()
    code, out, err = run("models", "--json", models=here / "models")
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == ["same"]
    assert err.splitlines() == [
        'The weights of the model "cut" are cut off or damaged. Fetch model.safetensors again.',
        'The model "empty" has no config.json.',
    ]

    save_png("small.png", SMALL)
    code, _, err = translate(run, "small.png", model="same", models=here / "models")
    assert code == 0 and err == ""
    code, _, err = translate(run, "small.png", model="cut", models=here / "models")
    assert code == 1
    assert err == 'The weights of the model "cut" are cut off or damaged. Fetch model.safetensors again.\n'


def test_no_models_yet(run, here):
    (here / "empty").mkdir()
    code, out, err = run("models", "--json", models=here / "empty")
    assert code == 0 and json.loads(out) == []
    assert err == "There are no models yet. Train one: python -m train --help\n"


def test_a_mistyped_folder_of_models_is_said(run, here):
    code, _, err = run("models", models=here / "nowhere")
    assert code == 2 and err.endswith('there is no folder "nowhere"\n')


# translate


def test_a_photo_with_two_faces(run):
    photo = draw_photo(*PLACES)
    save_png("group.photo.png", photo)
    code, out, err = translate(run, "group.photo.png", "--json")
    assert code == 0 and err == ""
    assert files() == results("group.photo", 1, 2)

    (row,) = [json.loads(line) for line in out.splitlines()]
    assert list(row) == ["photo", "size", "faces", "output", "seconds"]
    assert row["photo"] == "group.photo.png" and row["size"] == [640, 420]
    assert row["output"] == os.path.join("results", "group.photo.png")
    assert row["seconds"] > 0
    assert len(row["faces"]) == 2
    output = load_image(row["output"])
    assert output.shape == photo.shape and not np.array_equal(output, photo)
    for i, (face, (left, top, side)) in enumerate(zip(row["faces"], PLACES, strict=True), 1):
        assert list(face) == ["box", "landmarks", "score", "cycle_l1", "files"]
        assert len(face["box"]) == 4 and np.shape(face["landmarks"]) == (5, 2)
        assert all(left < x < left + side and top < y < top + side for x, y in face["landmarks"])
        assert 0.9 <= face["score"] <= 1
        assert face["files"] == {kind: os.path.join("results", f"group.photo.face{i}.{kind}.png") for kind in KINDS}
        before, after, again = (load_image(face["files"][kind]) for kind in KINDS)
        assert before.shape == after.shape == again.shape == (64, 64, 3)
        assert np.abs(after - tinted_red(before)).max() <= 2
        assert face["cycle_l1"] == pytest.approx(np.abs(before.astype(float) - again).mean() / 255, abs=1e-4)
        assert 0.1 < face["cycle_l1"] < 0.9


def test_results_say_that_they_are_generated(run):
    save_png("small.png", SMALL)
    translate(run, "small.png")
    for name in files():
        text = Image.open(Path("results") / name).text
        if ".input." in name:  # a part of the photo itself
            assert text == {"Software": "cyclegan"}
            continue
        assert text["Comment"] == "AI-generated" and text["Software"] == "cyclegan"
        assert (text["Model"], text["Direction"]) == ("red", "A2B (Change)") and len(text["Revision"]) == 12


@pytest.mark.parametrize(
    "face, indices", [("all", (1, 2)), ("largest", (1,)), ("1", (1,)), ("2", (2,))], ids=["all", "largest", "1", "2"]
)
def test_faces_are_chosen_by_number(run, face, indices):
    save_png("group.png", draw_photo(*PLACES))
    code, out, _ = translate(run, "group.png", "--face", face)
    assert code == 0
    assert files() == results("group", *indices)
    assert f"results/group.png  {'1 face' if len(indices) == 1 else '2 faces'}, " in out


def test_a_face_that_is_not_there(run):
    save_png("small.png", SMALL)
    code, out, err = translate(run, "small.png", "--face", "2")
    assert (code, out) == (1, "")
    assert err == "small.png: There is no face 2 in this photo: only 1 face was found.\n"
    assert files() == []


def test_then_applies_a_further_model(run):
    save_png("small.png", SMALL)
    assert translate(run, "small.png", "--out", "once")[0] == 0
    assert translate(run, "small.png", "--out", "twice", "--then", "same:A2B", "--then", "red:A2B")[0] == 0
    assert translate(run, "small.png", "--out", "never", "--then", "same:B2A", model="same")[0] == 0
    once, twice, never = (load_image(f"{folder}/small.png").astype(int) for folder in ("once", "twice", "never"))
    assert np.array_equal(never, SMALL)
    middle = (slice(60, 120), slice(70, 130))
    assert once[middle][..., 1].mean() < SMALL[middle][..., 1].mean() - 30
    assert twice[middle][..., 1].mean() < once[middle][..., 1].mean() - 15


def test_a_folder_for_the_results_is_made(run):
    save_png("small.png", SMALL)
    code, out, _ = translate(run, "small.png", "--out", "new/deep")
    assert code == 0 and out.startswith("new/deep/small.png  1 face, ")
    assert files("new/deep") == results("small", 1)


def test_a_drawing_has_no_landmarks(run):
    drawing = texture(90, 120)
    save_png("drawing.png", drawing)
    code, out, err = translate(run, "drawing.png", "--json", model="sketch", direction="B2A")
    assert code == 0 and err == ""
    (face,) = json.loads(out)["faces"]
    assert face["landmarks"] is None and face["score"] is None
    assert face["box"] == [15, 0, 105, 90]
    assert files() == results("drawing", 1)


def test_a_photo_with_its_camera_on_its_side(run):
    turned = Image.fromarray(np.rot90(SMALL))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save("turned.jpg", exif=exif, quality=95)
    code, out, _ = translate(run, "turned.jpg", "--json")
    assert code == 0
    row = json.loads(out)
    assert row["size"] == [220, 180] and len(row["faces"]) == 1
    assert load_image(row["output"]).shape == SMALL.shape


# Bad input


def bad_files() -> dict[str, tuple[bytes, str]]:
    """File name -> content and what the person reads."""
    jpeg = cv2.imencode(".jpg", SMALL)[1].tobytes()
    return {
        "wall.png": (encode_png(texture(200, 300)), NO_FACE),
        "notes.txt": (b"buy milk", NOT_AN_IMAGE),
        "notes.jpg": (b"buy milk", NOT_AN_IMAGE),
        "cut.png": (encode_png(SMALL)[:5000], DAMAGED),
        "cut.jpg": (jpeg[: len(jpeg) // 2], DAMAGED),
        "empty.png": (b"", "The file is empty. Choose another file."),
        "dot.png": (
            encode_png(np.zeros((1, 1, 3), np.uint8)),
            "The image is 1 x 1 pixels; at least 16 x 16 are needed.",
        ),
        "wall-to-wall.png": (
            encode_png(np.zeros((9000, 12000, 3), np.uint8)),
            "The image is 12000 x 9000 pixels; at most 64 megapixels are accepted. Make it smaller and try again.",
        ),
        "logo.svg": (
            b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
            "The file is an SVG drawing. Save it as PNG or JPEG and try again.",
        ),
    }


def test_one_bad_photo_does_not_stop_the_others(run):
    bad = bad_files()
    for name, (content, _) in bad.items():
        Path(name.replace("notes.jpg", "notes2.jpg").replace("cut.jpg", "cut2.jpg")).write_bytes(content)
    save_png("good.png", SMALL)
    bad["notes2.jpg"], bad["cut2.jpg"] = bad.pop("notes.jpg"), bad.pop("cut.jpg")
    bad["missing.jpg"] = (b"", "The file was not found. Check the name and try again.")
    names = [*bad, "good.png"]
    code, out, err = translate(run, *names, "--json")
    assert code == 1
    assert err.splitlines() == [f"{name}: {message}" for name, (_, message) in bad.items()]
    assert [json.loads(line)["photo"] for line in out.splitlines()] == ["good.png"]
    assert files() == results("good", 1)


def test_an_absolute_name_is_not_repeated(run, here):
    (here / "notes.txt").write_text("buy milk")
    code, out, err = translate(run, str(here / "notes.txt"), str(here / "missing.png"))
    assert (code, out) == (1, "")
    assert err == (f"notes.txt: {NOT_AN_IMAGE}\nmissing.png: The file was not found. Check the name and try again.\n")


def odd_pictures() -> dict[str, Image.Image]:
    """The same face in every kind of file that is fine."""
    picture = Image.fromarray(SMALL)
    clear = picture.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    return {
        "rgba.png": clear,
        "palette.png": picture.quantize(128),
        "grey.png": picture.convert("L"),
        "sixteen.png": Image.fromarray(cv2.cvtColor(SMALL, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257),
        "cmyk.jpg": picture.convert("CMYK"),
        "animation.gif": picture.convert("P"),
    }


def test_odd_kinds_of_pictures_are_fine(run):
    pictures = odd_pictures()
    for name, picture in pictures.items():
        more = {"save_all": True, "append_images": [Image.new("P", picture.size)]} if name.endswith("gif") else {}
        picture.save(name, **more)
    code, out, err = translate(run, *pictures, "--json", "--face", "largest")
    assert code == 0 and err == ""
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["photo"] for row in rows] == list(pictures)
    assert all(row["size"] == [220, 180] and len(row["faces"]) == 1 for row in rows)


@pytest.mark.parametrize(
    "model, direction, then, message",
    [
        ("glases", "A2B", [], 'There is no model "glases". Known models: red, same, sketch.'),
        ("red", "forwards", [], 'There is no direction "forwards". Choose A2B or B2A.'),
        ("red", "A2B", ["anime:A2B"], 'There is no model "anime". Known models: red, same, sketch.'),
    ],
)
def test_a_wrong_name_is_one_error_for_all_photos(run, model, direction, then, message):
    save_png("a.png", SMALL)
    save_png("b.png", SMALL)
    links = [part for link in then for part in ("--then", link)]
    assert translate(run, "a.png", "b.png", *links, model=model, direction=direction) == (1, "", f"{message}\n")
    assert not Path("results").exists()


def test_a_device_that_is_not_here(run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    args = ("a.png", "--model", "red", "--direction", "A2B", "--device", "cuda")
    message = 'The device "cuda" is not available on this machine. Choose auto or cpu.\n'
    assert run("translate", *args) == (1, "", message)


@pytest.mark.parametrize("photos", [("me.png", "me.jpg"), ("me.png", "other/ME.png"), ("me.png", "me.png")])
def test_photos_of_one_name_do_not_overwrite_each_other(run, photos):
    Path("other").mkdir()
    for photo in photos:
        Path(photo).write_bytes(encode_png(SMALL))
    code, out, _ = translate(run, *photos)
    assert code == 0
    second = "ME-2" if "ME" in photos[1] else "me-2"
    assert [line.split()[0] for line in out.splitlines()] == ["results/me.png", f"results/{second}.png"]
    assert files() == sorted([*results("me", 1), *results(second, 1)])


def test_a_folder_and_a_zip_stand_for_what_is_in_them(run):
    Path("trip").mkdir()
    for name in ("b.png", "a.png", ".hidden.png"):
        save_png(Path("trip") / name, SMALL)
    (Path("trip") / "notes.txt").write_text("buy milk")
    with ZipFile("more.zip", "w") as archive:
        archive.writestr("day one/c.png", encode_png(SMALL))
        archive.writestr("day one/cut.png", encode_png(SMALL)[:5000])
    code, out, err = translate(run, "trip", "more.zip", "--json")
    assert code == 1 and err == f"day one/cut.png: {DAMAGED}\n"
    assert [json.loads(line)["photo"] for line in out.splitlines()] == ["trip/a.png", "trip/b.png", "day one/c.png"]
    assert files() == sorted(name for stem in "abc" for name in results(stem, 1))


def test_an_empty_folder_says_so(run):
    Path("trip").mkdir()
    assert translate(run, "trip") == (1, "", "There are no photos or videos in this folder.\n")


def test_the_manifest_says_what_was_done_with_what(run, checkpoints):
    save_png("small.png", SMALL)
    Path("junk.jpg").write_bytes(b"no picture")
    _, out, _ = translate(run, "small.png", "junk.jpg", "--then", "same:B2A", "--json")
    manifest = json.loads(Path("results/manifest.json").read_text())
    sha256 = hashlib.sha256((checkpoints / "red" / "model.safetensors").read_bytes()).hexdigest()
    assert manifest["comment"] == "AI-generated" and manifest["stopped"] is False and manifest["not_started"] == []
    assert manifest["steps"][0] == {"model": "red", "revision": sha256[:12], "direction": "A2B", "label": "Change"}
    assert [step["direction"] for step in manifest["steps"]] == ["A2B", "B2A"]
    good, bad = manifest["files"]
    assert bad == {"photo": "junk.jpg", "error": NOT_AN_IMAGE}
    # The same row as on stdout, with names that stay right when the folder is moved.
    row = json.loads(out)
    assert row["output"] == os.path.join("results", good["output"])
    assert [(face["box"], face["cycle_l1"]) for face in row["faces"]] == [
        (face["box"], face["cycle_l1"]) for face in good["faces"]
    ]


def test_ctrl_c_keeps_what_is_done(checkpoints, here):
    """In a process of its own, where the signal arrives as it does in a terminal."""
    Path("trip").mkdir()
    for number in range(200):
        save_png(Path("trip") / f"{number:03}.png", SMALL)
    command = [sys.executable, "-u", "-m", "cyclegan", "translate", "trip", "--model", "red", "--direction", "A2B"]
    options = ["--device", "cpu", "--checkpoints", str(checkpoints)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here, env=environment
    ) as process:
        process.stdout.readline()  # the first photo is done
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    manifest = json.loads(Path("results/manifest.json").read_text())
    done = len(manifest["files"])
    assert process.returncode == 1 and 0 < done < 200
    assert err == f"Stopped: {200 - done} of 200 files were not begun.\n"
    assert manifest["stopped"] is True and len(manifest["not_started"]) == 200 - done
    assert all(Path("results", row["output"]).exists() for row in manifest["files"])


@pytest.mark.parametrize("out", [".", "sub/.."])
def test_a_photo_is_never_overwritten(run, out):
    Path("sub").mkdir()
    save_png("me.png", SMALL)
    message = "me.png: The result would overwrite me.png. Choose another folder with --out.\n"
    assert translate(run, "me.png", "--out", out) == (1, "", message)
    assert np.array_equal(load_image("me.png"), SMALL)
    assert not list(Path().glob("*face*"))


def test_the_folder_for_the_results_is_a_file(run):
    save_png("small.png", SMALL)
    Path("taken").write_text("here first")
    code, out, err = translate(run, "small.png", "--out", "taken")
    assert (code, out) == (1, "")
    assert err == "The results cannot be written: File exists.\n"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_the_folder_for_the_results_may_not_be_written_to(run):
    save_png("small.png", SMALL)
    Path("locked").mkdir(mode=0o555)
    code, out, err = translate(run, "small.png", "--out", "locked")
    assert (code, out) == (1, "")
    assert err == "small.png: The results cannot be written: Permission denied.\n"


def test_a_model_folder_is_enough(run, here):
    """No code changes for a new model: its folder is there, its name works."""
    identity_model(make_config("brand-new")).save_pretrained(here / "models" / "brand-new")
    save_png("small.png", SMALL)
    code, _, _ = translate(run, "small.png", model="brand-new", models=here / "models")
    assert code == 0
    assert np.array_equal(load_image("results/small.png"), SMALL)


# With the models of this repository, and photographs


def test_the_shipped_glasses_are_listed_with_their_hash(capsys):
    assert main(["models", "--json"]) == 0
    out, err = capsys.readouterr()
    (row,) = (row for row in json.loads(out) if row["name"] == "glasses")
    weights = ROOT / "checkpoints" / "glasses" / "model.safetensors"
    assert row["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert err == ""


def test_glasses_on_photographs(shared_photos, capsys):
    names = ["dlib_2008_002506.jpg", "dlib_dogs.jpg", "facerec_32bit.png"]
    photos = [str(shared_photos / name) for name in names]
    assert main(["translate", *photos, "--model", "glasses", "--direction", "A2B", "--device", "cpu", "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == f"dlib_dogs.jpg: {NO_FACE}\n"
    rows = [json.loads(line) for line in out.splitlines()]
    assert [len(row["faces"]) for row in rows] == [3, 1]
    assert files() == sorted(results("dlib_2008_002506", 1, 2, 3) + results("facerec_32bit", 1))
    for row in rows:
        photo, output = load_image(row["photo"]), load_image(row["output"])
        assert output.shape == photo.shape and not np.array_equal(output, photo)
