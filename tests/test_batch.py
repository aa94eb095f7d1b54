"""Batches: what goes in, what comes out, what stops and what does not."""

import io
import json
import os
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake_translator import FakeTranslator
from helpers import texture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cyclegan import batch
from cyclegan.batch import Batch, file_name, gather, pack
from cyclegan.errors import CycleGANError, UnknownDirectionError, UnknownModelError
from cyclegan.images import encode_png, load_image
from cyclegan.translator import NO_FACE

CHAIN = [("glasses", "A2B")]
PHOTO = encode_png(texture(60, 80))
BLACK = encode_png(np.zeros((60, 80, 3), np.uint8))


@pytest.fixture
def translator():
    return FakeTranslator()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def write(folder: Path, **files: bytes) -> list[Path]:
    """Write files named like ``a_png``, in the order given."""
    folder.mkdir(exist_ok=True)
    paths = [folder / name.replace("_", ".") for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_bytes(content)
    return paths


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def run(translator, paths, out, **options) -> dict:
    """Run a batch to its end; its manifest, as it lies in the folder."""
    for _ in Batch(translator, gather(paths), out, CHAIN, **options).run():
        pass
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def errors(manifest: dict) -> dict[str, str]:
    return {row["photo"]: row["error"] for row in manifest["files"] if "error" in row}


def test_every_photo_is_translated_and_says_so(translator, tmp_path, out):
    manifest = run(translator, write(tmp_path, a_png=PHOTO, b_png=PHOTO), out)
    assert sorted(os.listdir(out)) == ["a.png", "b.png", "manifest.json"]
    entry = translator.zoo.entry("glasses")
    step = {"model": "glasses", "revision": entry.sha256[:12], "direction": "A2B", "label": "Add glasses"}
    assert manifest["steps"] == [step] and manifest["comment"] == "AI-generated"
    assert [row["output"] for row in manifest["files"]] == ["a.png", "b.png"]
    for row in manifest["files"]:
        assert row["size"] == [80, 60] and [face["cycle_l1"] for face in row["faces"]] == [0.032, 0.032]
        assert row["faces"][0]["box"] == [8, 12, 32, 42]
        picture = Image.open(out / row["output"])
        assert picture.text["Comment"] == "AI-generated" and picture.text["Revision"] == entry.revision
        assert np.array_equal(load_image(out / row["output"])[12:42, 8:32], 255 - load_image(PHOTO)[12:42, 8:32])


def test_a_bad_file_is_listed_with_its_reason_and_stops_nothing(translator, tmp_path, out):
    paths = write(tmp_path, a_png=b"Dear diary", b_png=PHOTO[:700], c_png=BLACK, d_zip=b"PK?", e_png=PHOTO, f_mp4=b"")
    manifest = run(translator, [*paths, tmp_path / "gone.png"], out)
    reasons = errors(manifest)
    assert list(reasons) == ["a.png", "b.png", "c.png", "d.zip", "f.mp4", "gone.png"]
    assert reasons["a.png"].startswith("The file is not an image") and reasons["b.png"].endswith("try once more.")
    assert reasons["c.png"] == NO_FACE and "zip file is cut off" in reasons["d.zip"]
    assert "empty" in reasons["f.mp4"] and "not found" in reasons["gone.png"]
    assert sorted(os.listdir(out)) == ["e.png", "manifest.json"]
    assert str(tmp_path) not in json.dumps(manifest)


def test_a_fault_of_ours_costs_one_file_and_tells_no_secrets(translator, tmp_path, out, caplog):
    paths = write(tmp_path, a_png=PHOTO, b_png=PHOTO)
    steps = Batch(translator, gather(paths), out, CHAIN).run()
    next(steps)
    translator.fail_with = RuntimeError("/srv/secret exploded")
    next(steps)
    translator.fail_with = None
    assert [*steps][-1].done == 2
    manifest = json.loads((out / "manifest.json").read_text())
    assert errors(manifest) == {"a.png": "Something went wrong on our side."}
    assert "/srv/secret exploded" in caplog.text


def test_progress_counts_files_and_estimates_what_is_left(translator, tmp_path, out):
    paths = write(tmp_path, a_png=PHOTO, b_png=b"", c_png=PHOTO)
    seen = list(Batch(translator, gather(paths), out, CHAIN).run())
    assert [(p.done, p.current) for p in seen] == [
        (0, "a.png"), (1, None), (1, "b.png"), (2, None), (2, "c.png"), (3, None),
    ]  # fmt: skip
    assert seen[0].seconds_left is None and seen[-1].seconds_left == 0
    assert seen[1].seconds_left > seen[3].seconds_left > 0


def test_stop_keeps_what_is_done_and_names_the_rest(translator, tmp_path, out):
    paths = write(tmp_path, a_png=PHOTO, b_png=PHOTO, c_png=PHOTO)
    job = Batch(translator, gather(paths), out, CHAIN)
    for progress in job.run():
        if progress.done == 1:
            job.stop()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["stopped"] and manifest["not_started"] == ["b.png", "c.png"]
    assert sorted(os.listdir(out)) == ["a.png", "manifest.json"]


def test_results_beyond_the_limit_are_left_out(translator, tmp_path, out):
    manifest = run(translator, write(tmp_path, a_png=PHOTO, b_png=PHOTO), out, max_bytes=1000)
    assert list(errors(manifest)) == ["b.png"] and "Left out" in errors(manifest)["b.png"]


def test_crops_are_written_on_request(translator, tmp_path, out):
    manifest = run(translator, write(tmp_path, a_png=PHOTO), out, crops=True)
    files = [name for face in manifest["files"][0]["faces"] for name in face["files"].values()]
    assert files[:3] == ["a.face1.input.png", "a.face1.translation.png", "a.face1.reconstruction.png"]
    assert sorted(os.listdir(out)) == sorted([*files, "a.png", "manifest.json"])


def test_no_result_overwrites_another(translator, tmp_path, out):
    names = ["a.png", "A.jpg", "a.face1.input.png", "a-2.png"]
    paths = [write(tmp_path / str(i), x_png=PHOTO)[0].rename(tmp_path / str(i) / n) for i, n in enumerate(names)]
    manifest = run(translator, paths, out, crops=True)
    outputs = [row["output"] for row in manifest["files"]]
    crops = [name for row in manifest["files"] for face in row["faces"] for name in face["files"].values()]
    assert len({name.casefold() for name in [*outputs, *crops]}) == 4 + 4 * 2 * 3 == len(os.listdir(out)) - 1


def test_files_that_are_no_results_are_never_overwritten(translator, tmp_path, out):
    (a, b) = write(tmp_path, a_png=PHOTO, b_png=PHOTO)
    write(out, a_png=PHOTO, b_mp4=b"my film")
    manifest = run(translator, [a, b], out)
    assert errors(manifest) == {"a.png": "The result would overwrite a.png. Choose another folder with --out."}
    assert (out / "a.png").read_bytes() == PHOTO and (out / "b.mp4").read_bytes() == b"my film"


def test_earlier_results_are(translator, tmp_path, out):
    paths = write(tmp_path, a_png=PHOTO)
    run(translator, paths, out, crops=True)
    before = (out / "a.png").stat().st_mtime_ns
    assert not errors(run(translator, paths, out, crops=True))
    assert (out / "a.png").stat().st_mtime_ns > before


@pytest.mark.parametrize("content", ["", "{}", '{"name": "My app"}', "[]", "\0"])
def test_the_manifest_of_something_else_stays(translator, tmp_path, out, content):
    out.mkdir()
    (out / "manifest.json").write_text(content)
    with pytest.raises(CycleGANError, match="of something else. Choose another folder with --out"):
        run(translator, write(tmp_path, a_png=PHOTO), out)
    assert (out / "manifest.json").read_text() == content and len(list(out.iterdir())) == 1


def test_the_photo_itself_is_never_overwritten(translator, tmp_path):
    manifest = run(translator, write(tmp_path, a_png=PHOTO), tmp_path)
    assert "overwrite a.png" in errors(manifest)["a.png"]
    assert (tmp_path / "a.png").read_bytes() == PHOTO


def test_no_other_file_of_the_batch_is_overwritten(translator, tmp_path):
    other = encode_png(texture(60, 80))
    paths = write(tmp_path, a_jpg=PHOTO, a_png=other, **{"a.face1.input_png": other})
    manifest = run(translator, paths, tmp_path, crops=True)
    assert errors(manifest).keys() == {"a.jpg"}
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "a.face1.input.png").read_bytes() == other
    assert (tmp_path / "a-2.png").exists()


def test_only_generated_pictures_say_that_they_are(translator, tmp_path, out):
    run(translator, write(tmp_path, a_png=PHOTO), out, crops=True)
    said = {path.name: "AI-generated" in Image.open(path).info.values() for path in out.glob("*.png")}
    assert not said.pop("a.face1.input.png") and not said.pop("a.face2.input.png")
    assert len(said) == 5 and all(said.values())


def test_names_that_are_no_text_do_not_stop_a_folder(translator, tmp_path, out):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / b"caf\xe9.png".decode("utf-8", "surrogateescape")).write_bytes(PHOTO)
    manifest = run(translator, [folder], out)
    assert [row["photo"] for row in manifest["files"]] == ["caf?.png"] and not errors(manifest)


def test_unknown_models_and_directions_are_refused_at_once(translator, out):
    with pytest.raises(UnknownModelError):
        Batch(translator, [], out, [("beard", "A2B")])
    with pytest.raises(UnknownDirectionError):
        Batch(translator, [], out, [("glasses", "A2B"), ("glasses", "sideways")])
    assert not out.exists()


def test_pack_gives_a_zip_of_the_folder(translator, tmp_path, out):
    run(translator, write(tmp_path, a_png=PHOTO), out)
    pack(out, tmp_path / "results.zip")
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert archive.namelist() == ["a.png", "manifest.json"] and archive.testzip() is None
        assert archive.read("a.png") == (out / "a.png").read_bytes()


# --- Folders and zips ---


def test_a_folder_gives_its_pictures_and_videos_in_order(tmp_path):
    write(tmp_path, b_JPG=b"", a_png=b"", notes_txt=b"", c_mp4=b"")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "deeper.png").mkdir()
    assert [source.name for source in gather([tmp_path])] == ["a.png", "b.JPG", "c.mp4"]


def test_a_zip_gives_its_pictures_and_videos(translator, tmp_path, out):
    members = [
        ("trip/a.png", PHOTO),
        ("__MACOSX/trip/._a.png", b""),
        ("trip/notes.txt", b"x"),
        ("trip/day/a.png", PHOTO),
    ]
    manifest = run(translator, [zipped(tmp_path / "trip.zip", *members)], out)
    assert [(r["photo"], r["output"]) for r in manifest["files"]] == [
        ("trip/a.png", "a.png"), ("trip/day/a.png", "a-2.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["../../evil.png", "/etc/evil.png", "..\\..\\evil.png", "C:\\evil.png", "a/../../../evil.png", "....//evil.png"],
)
def test_a_zip_cannot_write_outside_the_folder(translator, tmp_path, out, name):
    before = set(tmp_path.parent.rglob("*"))
    run(translator, [zipped(tmp_path / "slip.zip", (name, PHOTO))], out)
    new = set(tmp_path.parent.rglob("*")) - before - {tmp_path / "slip.zip", out}
    assert len(new) == 2 and all(path.parent == out for path in new)
    assert not Path("/etc/evil.png").exists()


def test_a_link_in_a_zip_is_not_followed(translator, tmp_path, out):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PHOTO)
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    manifest = run(translator, [zipped(tmp_path / "link.zip", (link, str(secret).encode()))], out)
    assert "not an image" in errors(manifest)["link.png"]


def test_a_zip_that_unpacks_to_gigabytes_is_refused(translator, tmp_path, out, monkeypatch):
    monkeypatch.setattr(batch, "MAX_ZIP_BYTES", 10**6)
    bomb = zipped(tmp_path / "bomb.zip", *((f"{i}.png", bytes(200_000)) for i in range(6)))
    manifest = run(translator, [bomb], out)
    assert "Unpacked, this zip would take more than" in errors(manifest)["bomb.zip"]


def test_a_file_of_a_zip_is_not_unpacked_beyond_the_limit(translator, tmp_path, out, monkeypatch):
    monkeypatch.setattr(batch, "MAX_BYTES", 100_000)
    bomb = zipped(tmp_path / "bomb.zip", ("a.png", PHOTO), ("zeros.png", bytes(5_000_000)))
    assert "Unpacked, the file is larger" in errors(run(translator, [bomb], out))["zeros.png"]


def test_a_zip_that_lies_of_its_sizes_is_refused(translator, tmp_path, out):
    path = zipped(tmp_path / "liar.zip", ("a.png", bytes(5_000_000)))
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(signature) + at, 64)
    path.write_bytes(data)
    assert "damaged" in errors(run(translator, [path], out))["a.png"]


def test_a_zip_with_too_many_files_is_refused(translator, tmp_path, out):
    path = zipped(tmp_path / "many.zip", *((f"{i}.png", b"") for i in range(batch.MAX_ZIP_FILES + 1)))
    assert "at most 1000" in errors(run(translator, [path], out))["many.zip"]


def test_an_encrypted_zip_says_so(translator, tmp_path, out):
    path = zipped(tmp_path / "locked.zip", ("a.png", PHOTO))
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(signature) + at] |= 1
    path.write_bytes(data)
    assert "encrypted" in errors(run(translator, [path], out))["a.png"]


def test_a_zip_of_an_unknown_compression_says_so(translator, tmp_path, out):
    """As Windows makes them for very large files: Deflate64."""
    path = zipped(tmp_path / "large.zip", ("a.png", PHOTO))
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        struct.pack_into("<H", data, data.index(signature) + at, 9)
    path.write_bytes(data)
    assert "compressed in a way that cannot be read" in errors(run(translator, [path], out))["a.png"]


def test_zips_in_zips_and_empty_zips_hold_nothing(translator, tmp_path, out):
    inner = io.BytesIO()
    zipfile.ZipFile(inner, "w").close()
    nested = zipped(tmp_path / "nested.zip", ("inner.zip", inner.getvalue()))
    assert errors(run(translator, [nested], out)) == {"nested.zip": "There are no photos or videos in this zip file."}


@given(st.text())
def test_any_name_becomes_a_file_name_of_every_system(words):
    name = file_name(words)
    assert name and name == name.strip(" .") and len(name.encode()) <= 201
    assert not set(name) & set('<>:"/\\|?*\0\n') and name.upper() not in ("CON", "NUL", "COM1")
    assert file_name(name) == name


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_damaged_zip_is_an_error_and_nothing_worse(tmp_path_factory, noise, at):
    folder = tmp_path_factory.mktemp("zips")
    path = zipped(folder / "a.zip", ("a.png", PHOTO[:200]))
    data = bytearray(path.read_bytes())
    data[at : at + len(noise)] = noise
    path.write_bytes(data)
    manifest = run(FakeTranslator(), [path], folder / "out")
    assert errors(manifest) and "Something went wrong" not in str(manifest)
