"""`train.crops`: a folder and a pack hold the same, and a pack from a stranger harms nobody."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import draw_face
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from train_fixtures import one_thread, write_image, write_noise  # noqa: F401

from cyclegan.errors import BadImageError
from cyclegan.images import MAX_BYTES, load_image
from train.crops import Crops, write_pack
from train.data import Pairs, load_part
from train.errors import TrainingError
from train.prepare import Geometry, prepare, read_geometry

pytestmark = pytest.mark.usefixtures("one_thread")

SQUARE = Geometry(size=64, faces=("square", "square"))
ODD_NAME = b"caf\xe9.png".decode("utf-8", "surrogateescape")


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> Path:
    """Drawn faces, as `prepare` leaves them: 30 and 24 to train on, 3 to test."""
    root = tmp_path_factory.mktemp("crops")
    images = {}
    for part, count in (("trainA", 30), ("trainB", 24), ("testA", 3)):
        faces = [draw_face(96, seed) for seed in range(count)]
        named = {(ODD_NAME if i == 5 else f"{i}.png"): face for i, face in enumerate(faces)}
        bright = 60 if part == "trainB" else 0
        images[part] = {
            name: write_image(root / part / name, (face.astype(int) + bright).clip(0, 255).astype(np.uint8))
            for name, face in named.items()
        }
    prepare(images, root / "out", SQUARE)
    return root / "out"


@pytest.fixture(scope="module")
def pack(crops) -> Path:
    return write_pack(crops, crops.parent / "faces.tar").file


# A pack is the folder. -----------------------------------------------------------------------------------------------


def test_a_pack_holds_what_the_folder_holds(crops, pack):
    there, here = Crops.open(crops), Crops.open(pack)
    for part in ("trainA", "trainB", "testA"):
        assert here.names(part) == there.names(part) and len(here.names(part)) >= 3
    assert f"{ODD_NAME}.jpg" in here.names("trainA")
    assert "testB" not in here and "testB" not in there
    assert read_geometry(pack) == read_geometry(crops) == SQUARE


def test_fit_reads_the_same_pixels_but_for_jpeg(crops, pack):
    for part in ("trainA", "trainB", "testA"):
        (there, names), (here, packed_names) = load_part(crops, part, 64, 64), load_part(pack, part, 64, 64)
        assert packed_names == names
        apart = np.abs(there.astype(int) - here).mean(axis=(1, 2, 3))
        assert apart.max() < 3
        others = np.abs(there.astype(int) - np.roll(here, 1, axis=0)).mean(axis=(1, 2, 3))
        assert others.min() > apart.max()  # and each under its own name


def test_a_pack_is_divided_as_its_folder_is(crops, pack):
    there, here = (Pairs.load(data, 64, 64, 3, 64, 0, torch.device("cpu")) for data in (crops, pack))
    for part in ("A", "B", "validation_A", "validation_B"):
        ours, theirs = getattr(here, part), getattr(there, part)
        assert ours.shape == theirs.shape and len(ours) > 0
        assert (ours.int() - theirs.int()).abs().float().mean() < 3
    assert len(here.validation_A) == 3


def test_equal_crops_give_equal_packs(crops, pack, tmp_path):
    copy = tmp_path / "copy"
    for path in reversed(sorted(crops.rglob("*.*"))):  # written in another order, at another time
        (copy / path.parent.name if path.parent != crops else copy).mkdir(parents=True, exist_ok=True)
        target = copy / path.relative_to(crops)
        target.write_bytes(path.read_bytes())
        os.utime(target, (1, 1))
    (copy / "rejected.csv").write_text("trainA,x.jpg,no face found\n")  # no crop
    again = write_pack(copy, tmp_path / "again.tar")
    assert again.file.read_bytes() == pack.read_bytes()


def test_a_pack_says_what_it_holds_and_tells_nothing_of_its_maker(crops, tmp_path):
    packed = write_pack(crops, tmp_path / "new" / "faces.tar")
    size = packed.file.stat().st_size
    assert packed.crops == {"trainA": 30, "trainB": 24, "testA": 3}
    assert str(packed) == f"{packed.file}: 57 crops, {size / 1e6:.1f} MB, {size / 57 / 1e3:.1f} kB a crop"
    with tarfile.open(packed.file) as archive:
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in archive} == {(0, 0, "", "", 0)}
    assert [path.name for path in packed.file.parent.iterdir()] == ["faces.tar"]


def test_files_that_are_no_images_are_left_out_of_a_pack(crops, tmp_path, capsys):
    folder = tmp_path / "crops"
    write_noise(folder / "trainA", 3)
    write_noise(folder / "trainB", 3)
    (folder / "prepare.json").write_bytes((crops / "prepare.json").read_bytes())
    (folder / "trainB" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    packed = write_pack(folder, tmp_path / "p.tar")
    assert packed.crops == {"trainA": 3, "trainB": 2}
    assert "1 file left out as unreadable, the first: trainB/001.png" in capsys.readouterr().err
    assert Crops.open(packed.file).names("trainB") == ["000.png", "002.png"]


def test_nothing_to_pack(tmp_path):
    write_noise(tmp_path / "trainA", 3)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TrainingError) as caught:
            write_pack(folder, tmp_path / "p.tar")
        assert str(caught.value).startswith(f"There are no crops in {folder} to pack.")
    assert not (tmp_path / "p.tar").exists()


@pytest.mark.parametrize("what", ["disk full", "a folder in its place"])
def test_a_pack_that_cannot_be_written_leaves_the_old_one(crops, tmp_path, monkeypatch, what):
    file = tmp_path / "p.tar"
    if what == "disk full":
        file.write_bytes(b"the old one")

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    else:
        file.mkdir()
    with pytest.raises(TrainingError) as caught:
        write_pack(crops, file)
    assert str(caught.value).startswith(f"The pack cannot be written to {file}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["p.tar"]
    assert file.is_dir() or file.read_bytes() == b"the old one"


# Packs of others. ----------------------------------------------------------------------------------------------------


def picture(seed: int = 0) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, *extra: tarfile.TarInfo, names=("trainA/1.png", "trainA/2.png"), mode="w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name in names:
            add(archive, name)
        for member in extra:
            archive.addfile(member, io.BytesIO(b"\0" * member.size) if member.isreg() else None)
    return path


def add(archive: tarfile.TarFile, name: str) -> None:
    content = picture()
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


HOSTILE = {
    "absolute path": special("/trainA/3.png", tarfile.REGTYPE),
    "path upwards": special("trainA/../../3.png", tarfile.REGTYPE),
    "link": special("trainA/3.png", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": special("trainA/3.png", tarfile.LNKTYPE, "trainA/1.png"),
    "device": special("trainA/3.png", tarfile.CHRTYPE),
    "pipe": special("trainA/3.png", tarfile.FIFOTYPE),
    "linked geometry": special("prepare.json", tarfile.SYMTYPE, "/etc/hostname"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_pack_with_more_than_plain_files_is_refused(tmp_path, what):
    file = write_tar(tmp_path / "p.tar", HOSTILE[what])
    for read in (Crops.open, read_geometry, lambda data: load_part(data, "trainA", 16, 16)):
        with pytest.raises(TrainingError) as caught:
            read(file)
        assert str(caught.value).startswith(f"{file} holds {HOSTILE[what].name}, which is no plain file inside it.")
    assert [path.name for path in tmp_path.iterdir()] == ["p.tar"]


def test_control_characters_of_a_pack_do_not_reach_the_terminal(tmp_path):
    file = write_tar(tmp_path / "p.tar", special("/\x1b[2J", tarfile.REGTYPE))
    with pytest.raises(TrainingError, match=r"holds /\?\[2J,"):
        Crops.open(file)


def test_a_tar_made_by_hand_works(tmp_path):
    """``tar -cf p.tar -C crops .`` has folders, leading dots, hidden files and files of other names."""
    names = ("./trainA/1.png", "./trainA/2.png", "./trainA/.hidden.png", "./rejected.csv", "./trainA/sub/3.png")
    file = write_tar(tmp_path / "p.tar", special("./trainA", tarfile.DIRTYPE), names=names)
    assert Crops.open(file).names("trainA") == ["1.png", "2.png"]
    assert load_part(file, "trainA", 16, 16)[0].shape == (2, 16, 16, 3)


def test_a_huge_member_is_left_out(tmp_path, capsys):
    huge = tarfile.TarInfo("trainA/3.png")
    huge.size = MAX_BYTES + 2**20
    file = tmp_path / "p.tar"
    with tarfile.open(file, "w") as archive:
        add(archive, "trainA/1.png")
        add(archive, "trainA/2.png")
        archive.fileobj.write(huge.tobuf())
        start = archive.fileobj.tell()
    with open(file, "r+b") as sparse:  # the member's content is a hole
        sparse.truncate(start + huge.size + 1024)
    assert len(Crops.open(file).read("trainA", "3.png")) == MAX_BYTES + 1
    assert load_part(file, "trainA", 16, 16)[1] == ["1.png", "2.png"]
    assert "1 file left out as unreadable, the first: 3.png" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100, b"\0" * 511 + b"x", bytes(range(256)) * 8, picture()])
def test_a_file_that_is_not_a_tar(tmp_path, content):
    file = tmp_path / "p.tar"
    file.write_bytes(content)
    with pytest.raises(TrainingError) as caught:
        Crops.open(file)
    assert str(caught.value).startswith(f"{file} is not a pack, or is cut off or damaged.")


def test_a_compressed_tar_is_not_a_pack(tmp_path):
    file = write_tar(tmp_path / "p.tar", mode="w:gz")
    with pytest.raises(TrainingError, match="is not a pack"):
        Crops.open(file)


def test_a_pack_without_a_part(tmp_path):
    file = write_tar(tmp_path / "p.tar")
    with pytest.raises(TrainingError) as caught:
        load_part(file, "trainB", 16, 16)
    assert str(caught.value) == f"{file} holds no trainB. Make it with: python -m train prepare --help"


def test_a_pack_that_is_not_there(tmp_path):
    with pytest.raises(TrainingError) as caught:
        Crops.open(tmp_path / "p.tar")
    assert str(caught.value) == f"There is no file {tmp_path / 'p.tar'}. Make it with: python -m train prepare --help"


def test_a_pack_that_goes_away_while_it_is_read(tmp_path):
    crops = Crops.open(write_tar(tmp_path / "p.tar"))
    (tmp_path / "p.tar").unlink()
    with pytest.raises(BadImageError):
        crops.read("trainA", "1.png")


@given(st.integers(0, 10**9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pack_cut_off_anywhere_is_refused(pack, tmp_path, cut):
    whole = pack.read_bytes()
    with tarfile.open(pack) as archive:
        end = max(m.offset_data + -(-m.size // 512) * 512 for m in archive)
    file = tmp_path / "p.tar"
    file.write_bytes(whole[: cut % (end + 512)])  # the blocks after that are only padding
    with pytest.raises(TrainingError) as caught:
        Crops.open(file)
    assert str(caught.value).startswith(f"{file} is not a pack, or is cut off or damaged.")


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=40), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_refused_or_only_spoils_its_own_pictures(tmp_path, changes, in_headers):
    """Whatever bytes a file has, what comes of it is crops or an error that a person can read."""
    file = write_tar(tmp_path / "p.tar", names=("prepare.json", "trainA/1.png", "trainA/2.png"))
    damaged = bytearray(file.read_bytes())
    with tarfile.open(file) as archive:
        headers = [member.offset for member in archive]
    for position, value in changes:
        where = headers[position % len(headers)] + position % 512 if in_headers else position % len(damaged)
        damaged[where] = value
    file.write_bytes(damaged)
    try:
        crops = Crops.open(file)
    except TrainingError as error:
        assert str(file) in str(error)
        return
    for name in crops.names("trainA") if "trainA" in crops else ():
        try:
            assert load_image(crops.read("trainA", name)).dtype == np.uint8
        except BadImageError:
            pass
