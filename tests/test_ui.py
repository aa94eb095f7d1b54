"""The page without a browser: the photo input, the drawings, the words, and the endpoints over HTTP."""

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported

import gradio as gr
import numpy as np
import pytest
import yaml
from fake_translator import FakeTranslator, config
from gradio.data_classes import ImageData
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

from cyclegan.errors import BadImageError, CycleGANError
from cyclegan.images import load_image
from cyclegan.translator import NO_FACE
from cyclegan.ui import build_demo, launch, warm_up
from cyclegan.ui.components import SORRY, PhotoInput, toasts
from cyclegan.ui.draw import heat_map, outlined, preview, square_box
from cyclegan.ui.examples import FOLDER, Examples
from cyclegan.ui.kept import Answer, Photo
from cyclegan.ui.links import Settings, parse
from cyclegan.ui.results import cycle_words, file_name
from cyclegan.zoo import provenance

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def photo(tmp_path):
    """A smooth picture of 320 x 240 pixels."""
    x, y = np.meshgrid(np.linspace(40, 200, 320), np.linspace(30, 220, 240))
    path = tmp_path / "holiday.png"
    Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def translator():
    return FakeTranslator(problems={"broken": "The weights of broken are cut off. Copy the folder again."})


@pytest.fixture(scope="module")
def client(translator):
    demo = build_demo(translator)
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    demo.close(verbose=False)


def message_of(call, *args, **kwargs) -> str:
    with pytest.raises(AppError) as caught:
        call(*args, **kwargs)
    return caught.value.message


# --- The photo input ---


def read(path, name=None, component=None):
    payload = ImageData(path=str(path), orig_name=name or path.name)
    return (component or PhotoInput()).preprocess(payload)


def cmyk(image, path):
    image.convert("CMYK").save(path)


def grey16(image, path):
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)


def see_through(image, path):
    image.putalpha(60)
    image.save(path)


def lying_on_its_side(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def animated(image, path):
    image.save(path, save_all=True, append_images=[image.rotate(90)])


@pytest.mark.parametrize(
    ("save", "name"),
    [(cmyk, "a.jpg"), (grey16, "a.png"), (see_through, "a.png"), (lying_on_its_side, "a.jpg"), (animated, "a.gif")],
)
def test_photo_input_decodes_every_kind_as_the_command_line_does(photo, tmp_path, save, name):
    save(Image.open(photo), tmp_path / name)
    upload = read(tmp_path / name)
    assert np.array_equal(upload.pixels, load_image(tmp_path / name))
    assert upload.pixels.shape == ((320, 240, 3) if save is lying_on_its_side else (240, 320, 3))


def test_photo_input_explains_bad_files_with_the_message_of_load_image(photo, tmp_path):
    bad = {
        "notes.jpg": b"Dear diary",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "half.png": photo.read_bytes()[:-400],
        "empty.png": b"",
    }
    for name, content in bad.items():
        path = tmp_path / f"in-our-cache-{name}"
        path.write_bytes(content)
        with pytest.raises(BadImageError) as expected:
            load_image(content, name)
        with pytest.raises(gr.Error) as shown:
            read(path, name)
        assert shown.value.message == str(expected.value)
        assert name in shown.value.message and "cache" not in shown.value.message


def test_photo_input_reads_data_urls_and_refuses_broken_ones(photo):
    component = PhotoInput()
    url = "data:image/png;base64," + base64.b64encode(photo.read_bytes()).decode()
    assert np.array_equal(component.preprocess(ImageData(url=url)).pixels, load_image(photo))
    with pytest.raises(gr.Error, match="base64"):
        component.preprocess(ImageData(url="data:image/png;base64,%%%"))
    with pytest.raises(gr.Error, match="No photo was sent"):
        component.preprocess(ImageData())


def test_a_file_name_cannot_put_markup_into_a_toast(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"Dear diary")
    with pytest.raises(gr.Error) as shown:
        read(path, "<img src=x onerror=alert(1)>.png")
    assert "<" not in shown.value.message


def test_unexpected_errors_are_logged_and_never_shown(caplog):
    with pytest.raises(gr.Error) as shown, toasts():
        raise RuntimeError("/srv/secret/weights.bin exploded")
    assert shown.value.message == SORRY
    assert "/srv/secret/weights.bin exploded" in caplog.text


def test_our_errors_are_shown_word_for_word(caplog):
    with pytest.raises(gr.Error) as shown, toasts():
        raise CycleGANError("Do this instead.")
    assert shown.value.message == "Do this instead."
    assert not caplog.records


# --- Drawings and words ---


def seen(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_outline_marks_chosen_faces_and_leaves_the_rest_of_the_photo():
    grey = preview(np.full((768, 1024, 3), 90, np.uint8))
    none, one, other = (seen(outlined(grey, [(100, 200, 400, 600), (600, 200, 900, 600)], c)) for c in ([], [0], [1]))
    assert not np.array_equal(one, none) and not np.array_equal(one, other)

    def colourful(picture, left):
        return np.ptp(picture[400, left : left + 5].astype(int), axis=-1).max() > 60

    assert colourful(one, 100) and not colourful(one, 600)
    assert colourful(other, 600) and not colourful(other, 100)
    for untouched in (one[220:580, 120:380], one[640:]):
        assert np.abs(untouched.astype(int) - 90).max() <= 3


@pytest.mark.parametrize("box", [(-40, -30, 20, 15), (390, 290, 480, 350), (10, 10, 11, 11)])
def test_outline_survives_boxes_that_leave_the_photo_or_are_tiny(box):
    assert seen(outlined(preview(np.zeros((300, 400, 3), np.uint8)), [box] * 12, [11])).shape == (768, 1024, 3)


@pytest.mark.parametrize(("height", "width"), [(3000, 4000), (90, 120), (4000, 16)])
def test_every_preview_has_the_same_length(height, width):
    shown = Image.open(io.BytesIO(preview(np.zeros((height, width, 3), np.uint8))))
    assert max(shown.size) == 1024
    assert min(shown.size) == pytest.approx(1024 * min(height, width) / max(height, width), abs=1)


def test_the_square_is_centred_at_first_and_always_inside():
    assert square_box(400, 300, 100, 50, 50) == (50, 0, 350, 300)
    assert square_box(400, 300, 50, 0, 100) == (0, 150, 150, 300)
    for size, across, down in [(10, 100, 100), (100, 100, 0), (33, 7, 93)]:
        left, top, right, bottom = square_box(401, 299, size, across, down)
        assert 0 <= left < right <= 401 and 0 <= top < bottom <= 299
        assert right - left == pytest.approx(bottom - top)


def test_cycle_error_has_words_from_excellent_to_poor():
    assert [cycle_words(x)[0] for x in (0.0, 0.032, 0.07, 0.4)] == ["excellent", "faithful", "fair", "poor"]


def test_heat_maps_go_from_black_to_bright():
    one = np.full((64, 64, 3), 100, np.uint8)
    other = one.copy()
    other[:32] += 100
    shown = seen(heat_map(one, other)).astype(int)
    assert shown[40:].max() < 25 and shown[:24].min() > 120
    assert np.array_equal(heat_map(one, other), heat_map(other, one))


def test_file_names_are_made_of_the_photo_and_what_was_done():
    assert file_name("Holiday 1.jpeg", "Glasses: Add glasses") == "holiday-1-add-glasses.png"
    assert file_name(None, "Make older, then Add glasses") == "photo-make-older-then-add-glasses.png"
    assert "/" not in file_name("../../etc/passwd", "Glasses: Add/remove")


# --- What the server remembers of a visit ---


@pytest.fixture
def answer(translator, photo):
    upload = read(photo)
    kept = Photo.of(upload, translator.detect(upload.pixels))
    result = translator.translate(upload.pixels, "glasses", "A2B", faces=1, found=kept.faces)
    return Answer.of(kept, result, translator.zoo, (("glasses", "A2B"),), gr.File()), result


def test_an_answer_is_kept_as_the_part_that_changed(answer):
    kept, result = answer
    assert np.array_equal(kept.picture(), result.output)
    assert np.array_equal(kept.picture(0), result.photo)
    half = (result.photo.astype(float) + result.output) / 2
    assert np.abs(kept.picture(0.5) - half).max() <= 0.5
    assert Image.open(kept.patch).size == (64, 72)  # the second face of the fake translator


@pytest.mark.parametrize("side", [0, 3])
def test_answers_of_small_changes_are_kept_too(answer, translator, side):
    result = answer[1]
    output = result.photo.copy()
    output[5 : 5 + side, 7 : 7 + side] ^= 255
    changed = dataclasses.replace(result, output=output)
    kept = Answer.of(answer[0].photo, changed, translator.zoo, answer[0].chain, gr.File(render=False))
    assert np.array_equal(kept.picture(), output)


def test_a_file_says_what_it_is(answer, translator):
    data, name = answer[0].file()
    text = Image.open(io.BytesIO(data)).text
    assert name == "holiday-add-glasses.png"
    assert text["Comment"] == "AI-generated" and text["Model"] == "glasses" and "A2B" in text["Direction"]
    assert text["Revision"] == translator.zoo.entries["glasses"].sha256[:12]
    assert "Strength" not in text and Image.open(io.BytesIO(answer[0].file(0.3)[0])).text["Strength"] == "30%"


def test_deleted_files_are_missed_in_words(answer, photo):
    os.remove(answer[0].patch)
    os.remove(answer[0].cards)
    for ask in (answer[0].picture, answer[0].words):
        with pytest.raises(BadImageError, match="no longer on the server"):
            ask()
    photo.unlink()
    with pytest.raises(BadImageError, match="no longer on the server"):
        answer[0].photo.pixels()


# --- Links ---


def test_links_restore_settings(translator):
    zoo = translator.zoo
    assert parse("", zoo) is None and parse("?__theme=dark", zoo) is None
    assert parse("?model=anime", zoo) == Settings((("anime", "A2B"),), 100)
    link = "?model=glasses&direction=B2A&strength=40&then=anime%3AA2B&then=glasses%3AA2B&then=glasses%3AB2A"
    assert parse(link, zoo) == Settings((("glasses", "B2A"), ("anime", "A2B"), ("glasses", "A2B")), 40)


@pytest.mark.parametrize("strength", ["", "-3", "1e9", "²", "nan", "9" * 5000])
def test_nonsense_in_a_link_is_ignored(translator, strength):
    assert parse(f"?model=glasses&strength={strength}", translator.zoo).strength == 100
    assert parse("?model=glasses&strength=999", translator.zoo).strength == 100


@pytest.mark.parametrize(
    "query", ["model=beard", "model=glasses&direction=up", "model=glasses&then=glasses", "model=../x"]
)
def test_links_to_what_does_not_exist_are_refused(translator, query):
    with pytest.raises(CycleGANError, match="There is no"):
        parse(f"?{query}", translator.zoo)


# --- Examples ---


def test_examples_ship_with_their_terms_and_have_faces(detector):
    terms = (FOLDER / "README.md").read_text()
    names = [path.name for path in FOLDER.iterdir() if path.suffix != ".md"]
    assert len(names) >= 5
    for name in names:
        assert name in terms or (name.startswith("generated-") and "generated-*.jpg" in terms)
        assert len(detector.detect(load_image(FOLDER / name))) == 1


def test_examples_are_translated_once_and_other_photos_never_remembered(photo):
    translator = FakeTranslator()
    examples = Examples(translator)
    assert not translator.calls
    chain = (("glasses", "A2B"),)
    first = examples.translate(examples.photo(0), chain, "all", None)
    assert examples.translate(examples.photo(0), chain, "all", None) is first
    assert examples.translate(examples.photo(0), chain, 1, None) is not first
    assert len(translator.calls) == 2
    upload = read(photo)
    assert examples.translate(Photo.of(upload, []), chain, "all", None) is None


# --- The page that is built ---


def text_of(demo) -> str:
    return " ".join(str(c["props"].get("value", "")) for c in demo.get_config_file()["components"])


def test_without_any_model_the_page_says_how_to_add_one():
    text = text_of(build_demo(FakeTranslator(configs=[], problems={"anime": "The weights of anime are missing."})))
    assert "checkpoints/" in text and "python -m train" in text
    assert "The weights of anime are missing." in text


def test_models_that_cannot_be_loaded_are_named_and_escaped():
    text = text_of(build_demo(FakeTranslator(problems={"<b>odd": "The weights are missing."})))
    assert "1 model could not be loaded" in text and "&lt;b&gt;odd" in text


def test_human_words_come_from_the_config():
    demo = build_demo(FakeTranslator(configs=[config("age", "Age", "Make older", "Make younger")]))
    choices = [c["props"].get("choices") for c in demo.get_config_file()["components"]]
    assert [("Make older", "A2B"), ("Make younger", "B2A")] in [[tuple(x) for x in c] for c in choices if c]


def test_warming_up_makes_the_first_translation_and_survives_a_broken_model(caplog):
    translator = FakeTranslator()
    warm_up(translator).join(10)
    assert [call.model for call in translator.calls] == ["glasses"]
    translator.fail_with = RuntimeError("damaged weights")
    warm_up(translator).join(10)
    assert "damaged weights" in caplog.text


# --- The endpoints ---


def test_only_the_four_endpoints_are_public(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert set(api["named_endpoints"]) == {"/models", "/detect", "/translate", "/batch"}
    assert not api["unnamed_endpoints"]
    names = {name: [p["parameter_name"] for p in e["parameters"]] for name, e in api["named_endpoints"].items()}
    assert names["/translate"] == ["photo", "model", "direction", "face"]
    assert names["/batch"] == ["files", "model", "direction", "face"]
    assert all(e.get("description") for e in api["named_endpoints"].values())


def test_models_endpoint_lists_the_zoo(client, translator):
    assert client.predict(api_name="/models") == translator.zoo.describe()


def test_detect_endpoint_gives_boxes_landmarks_and_scores(client, photo):
    answer = client.predict(handle_file(photo), api_name="/detect")
    assert answer["size"] == [320, 240]
    assert [set(face) for face in answer["faces"]] == [{"box", "landmarks", "score"}] * 2
    assert answer["faces"][0]["box"] == [32, 48, 128, 168]


def test_translate_endpoint_gives_the_photo_and_its_faces(client, photo, translator):
    path, report = client.predict(handle_file(photo), "glasses", "B2A", "2", api_name="/translate")
    assert (report["model"], report["direction"], report["size"]) == ("glasses", "B2A", [320, 240])
    assert [(face["face"], face["cycle_l1"]) for face in report["faces"]] == [(2, 0.032)]
    picture = Image.open(path)
    assert picture.format == "PNG" and picture.size == (320, 240)
    assert picture.text == provenance(translator.zoo, [("glasses", "B2A")])
    changed = np.flatnonzero(np.any(np.asarray(picture) != load_image(photo), axis=(0, 2)))
    assert 192 <= changed.min() and changed.max() < 256


def test_translate_endpoint_translates_all_faces_unless_told(client, photo):
    _, report = client.predict(handle_file(photo), api_name="/translate")
    assert [face["face"] for face in report["faces"]] == [1, 2]
    _, report = client.predict(handle_file(photo), face="largest", api_name="/translate")
    assert [face["face"] for face in report["faces"]] == [1]


def test_endpoint_errors_carry_our_messages(client, photo, tmp_path):
    black = tmp_path / "black.png"
    Image.new("RGB", (64, 64)).save(black)
    notes = tmp_path / "notes.jpg"
    notes.write_text("Dear diary")
    call = client.predict
    assert message_of(call, handle_file(black), api_name="/translate") == NO_FACE
    assert message_of(call, handle_file(notes), api_name="/detect").startswith("notes.jpg is not an image")
    assert "glasses, anime" in message_of(call, handle_file(photo), "beard", api_name="/translate")
    assert "A2B or B2A" in message_of(call, handle_file(photo), "glasses", "sideways", api_name="/translate")
    assert "face 9" in message_of(call, handle_file(photo), face="9", api_name="/translate")
    for face in ("0", "-1", "left one", "²"):
        assert "number from 1" in message_of(call, handle_file(photo), face=face, api_name="/translate")


def test_endpoint_without_a_photo_says_so(client):
    for name in ("/detect", "/translate"):
        assert message_of(client.predict, None, api_name=name) == "No photo was sent. Choose a photo and try again."


def test_endpoint_hides_unexpected_errors(client, photo, translator):
    translator.fail_with = RuntimeError("/srv/secret exploded")
    try:
        assert message_of(client.predict, handle_file(photo), api_name="/translate") == SORRY
    finally:
        translator.fail_with = None


def test_batch_endpoint_gives_a_zip_and_its_manifest(client, photo, tmp_path, translator):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(photo, "inside.png")
        archive.writestr("notes.png", b"Dear diary")
    files = [handle_file(photo), handle_file(tmp_path / "more.zip")]
    path, manifest = client.predict(files, "glasses", "A2B", "largest", api_name="/batch")
    assert [row["photo"] for row in manifest["files"]] == ["holiday.png", "inside.png", "notes.png"]
    assert "not an image" in manifest["files"][2]["error"]
    assert manifest["steps"][0]["revision"] == translator.zoo.entry("glasses").revision
    assert Path(path).name == "add-glasses.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["holiday.png", "inside.png", "manifest.json"]
        assert json.loads(archive.read("manifest.json")) == manifest
        picture = Image.open(io.BytesIO(archive.read("holiday.png")))
    assert picture.text["Comment"] == "AI-generated" and len(manifest["files"][0]["faces"]) == 1


def test_batch_endpoint_says_how_far_it_is(client, photo):
    job = client.submit([handle_file(photo)] * 3, "glasses", "A2B", "all", api_name="/batch")
    job.result(60)
    *early, (path, _) = job.outputs()
    assert path and all(archive is None for archive, _ in early)
    assert {report["done"] for _, report in early} >= {0, 1, 2} and early[0][1]["total"] == 3


def test_batch_endpoint_errors_carry_our_messages(client, photo):
    call = client.predict
    assert "no files yet" in message_of(call, [], api_name="/batch")
    assert "glasses, anime" in message_of(call, [handle_file(photo)], "beard", api_name="/batch")
    assert "A2B or B2A" in message_of(call, [handle_file(photo)], "glasses", "sideways", api_name="/batch")
    assert "number from 1" in message_of(call, [handle_file(photo)], face="first", api_name="/batch")


# --- The README ---


def readme_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Over HTTP") : text.index("## On a Hugging Face Space")]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def readme(client, photo, tmp_path, monkeypatch):
    """A function from a language to its example for this server, in a folder with the files it speaks of."""
    monkeypatch.chdir(tmp_path)
    Image.open(photo).save("photo.jpg")
    with zipfile.ZipFile("more.zip", "w") as archive:
        archive.write("photo.jpg")
    return lambda language: "".join(readme_blocks(language)).replace("http://127.0.0.1:7860", client.src.rstrip("/"))


def test_the_python_example_of_the_readme_works(readme, capsys):
    exec(compile(readme("python"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert "glasses {'A2B': 'Add glasses'" in "\n".join(lines) and "[320, 240]" in "\n".join(lines)
    assert lines[-1].endswith("['done', 'done']")


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="There is no curl or no bash.")
def test_the_curl_example_of_the_readme_works(readme):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", readme("bash")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert Image.open("result.png").text["Model"] == "glasses"


def test_the_front_matter_of_the_readme_fits_the_requirements():
    front = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
    requirements = (ROOT / "requirements.txt").read_text()
    gradio_line = next(line for line in requirements.splitlines() if line.startswith("gradio"))
    assert Version(front["sdk_version"]) in Requirement(gradio_line).specifier
    assert (front["sdk"], front["license"]) == ("gradio", "apache-2.0") and (ROOT / front["app_file"]).exists()
    assert Version(front["python_version"]) >= Version("3.11") and len(front["short_description"]) <= 60


def test_on_zero_gpu_the_processor_is_used(tmp_path):
    """ZeroGPU's package, which pretends that there is a GPU, is played by a file."""
    (tmp_path / "spaces.py").write_text("def GPU(function): print('asked for', callable(function))")
    script = "import app, sys; sys.argv = ['app.py']; print(app.parse_args().device); app.join_zero_gpu()"
    environment = {**os.environ, "SPACES_ZERO_GPU": "true", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "cpu\nasked for True\n", done.stderr


@pytest.mark.parametrize("name", ["顔" * 80, "лицо" * 30, "a" * 240, "..", None])
def test_names_of_downloads_fit_every_system(name, tmp_path):
    title = "Glasses: " + "Add frames, " * 30
    file = file_name(name and f"{name}.jpg", title)
    assert len(file.encode()) < 255 and "add-frames" in file and file.endswith(".png")
    (tmp_path / file).touch()
