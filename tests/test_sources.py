"""`train.sources`: which files a person means by folders, by a query or by a table."""

import csv
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan.errors import CycleGANError
from train.errors import TrainingError
from train.sources import QUERIES, SOURCES, Source, parse_query

OUT = Path("out")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def refusal(source: Source, out: Path = OUT) -> str:
    with pytest.raises(TrainingError) as caught:
        source.find(out)
    assert isinstance(caught.value, CycleGANError)
    return str(caught.value)


def names(found) -> dict[str, set[str]]:
    return {part: set(files) for part, files in found.items()}


@pytest.fixture
def domains(tmp_path) -> Source:
    for letter in "ab":
        touch(tmp_path / letter, *(f"{letter}{number}.jpg" for number in range(3)))
    return Source(a=str(tmp_path / "a"), b=str(tmp_path / "b"), test_share=0)


@pytest.fixture
def forbidding():
    """A folder where permissions count, for root too: (folder, function that takes them away)."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)

        def forbid(path: Path, mode: int = 0) -> None:
            path.chmod(mode)
            if user == 0:
                os.seteuid(65534)

        user = os.geteuid()
        yield Path(folder), forbid
        os.seteuid(user)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755)


# Which form. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"a": "x"},
        {"data": Path("x"), "a": "x", "b": "y"},
        {"data": Path("x"), "utkface": Path("x")},
        {"utkface": Path("x")},
        {"utkface": Path("x"), "a": "age 20"},
        {"csv": Path("x"), "label": "y", "a": "0", "b": "1"},
        {"csv": Path("x"), "images": Path("y"), "label": "z", "image": "{id}.png"},
    ],
)
def test_flags_that_make_no_source_list_the_four_forms(flags):
    assert refusal(Source(**flags)) == SOURCES
    for flag in ("--data DIR", "--a DIR --b DIR", "--utkface DIR", "--csv FILE"):
        assert f"\n  {flag}" in SOURCES


@pytest.mark.parametrize("share", [-0.1, 1.0, 5, float("nan")])
def test_a_share_that_is_none(domains, share):
    source = Source(a=domains.a, b=domains.b, test_share=share)
    assert refusal(source) == f"--test-share must be at least 0 and below 1, not {share}."


# Four folders, two folders. ------------------------------------------------------------------------------------------


def test_four_folders_are_taken_as_they_are(tmp_path):
    for part, count in (("trainA", 4), ("trainB", 5), ("testB", 3), ("other", 2)):
        touch(tmp_path / part, *(f"{number}.png" for number in range(count)))
    (tmp_path / "testA").mkdir()
    found = Source(data=tmp_path, test_share=0.5).find(OUT)
    assert {part: len(files) for part, files in found.items()} == {"trainA": 4, "trainB": 5, "testB": 3}
    assert found["trainB"]["4.png"] == tmp_path / "trainB" / "4.png"


def test_missing_and_empty_folders(tmp_path, domains):
    missing = tmp_path / "nowhere"
    assert refusal(Source(a=str(missing), b=domains.b)) == f"There is no folder {missing}."
    assert refusal(Source(data=missing)) == f"There are no files for trainA. {SOURCES}"
    touch(tmp_path / "half" / "trainA", "x.png")
    (tmp_path / "half" / "trainB").mkdir()
    assert refusal(Source(data=tmp_path / "half")) == f"There are no files for trainB. {SOURCES}"


def test_subfolders_are_searched_and_hidden_files_are_not_taken(tmp_path):
    for letter in "ab":
        touch(tmp_path / letter, "one/deep/face.jpg", "two/face.jpg", ".hidden.jpg", ".thumbnails/face.jpg")
        os.mkfifo(tmp_path / letter / "pipe.jpg")
        (tmp_path / letter / "broken.jpg").symlink_to("nowhere")
    found = Source(a=str(tmp_path / "a"), b=str(tmp_path / "b"), test_share=0).find(OUT)
    assert names(found)["trainA"] == {"one__deep__face.jpg", "two__face.jpg"}


def test_folders_that_are_links_are_searched_once(tmp_path):
    touch(tmp_path / "elsewhere", "x.jpg")
    for letter in "ab":
        touch(tmp_path / letter, f"{letter}.jpg")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "more again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a")
    found = Source(a=str(tmp_path / "a"), b=str(tmp_path / "b"), test_share=0).find(OUT)
    assert names(found)["trainA"] == {"a.jpg", "more__x.jpg"}


def test_two_files_never_become_one_crop(tmp_path, domains):
    touch(Path(domains.a), "x/y.jpg", "x__y.jpg")
    message = refusal(domains)
    assert message.endswith(" would become the same crop. Rename one of them.")
    assert str(Path(domains.a, "x/y.jpg")) in message and str(Path(domains.a, "x__y.jpg")) in message


def test_two_folders_are_split_by_name_and_stay_so(tmp_path):
    source = Source(a=str(tmp_path / "a"), b=str(tmp_path / "b"), test_share=0.2)
    for letter in "ab":
        touch(tmp_path / letter, *(f"{number}.jpg" for number in range(0, 400, 2)))
    before = names(source.find(OUT))
    assert not before["trainA"] & before["testA"] and len(before["trainA"] | before["testA"]) == 200
    assert 20 < len(before["testA"]) < 60
    touch(tmp_path / "a", *(f"{number}.jpg" for number in range(1, 400, 2)))  # as many again, in between
    for gone in sorted(before["testA"])[:3]:
        (tmp_path / "a" / gone).unlink()
    after = names(source.find(OUT))
    assert before["trainA"] < after["trainA"]
    assert before["testA"] - set(sorted(before["testA"])[:3]) < after["testA"]


def test_no_test_images_when_none_are_wanted(domains):
    assert set(domains.find(OUT)) == {"trainA", "trainB"}


# The same images twice. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["same folder", "linked folder", "linked files", "hard links"])
def test_a_domain_is_not_its_own_counterpart(tmp_path, how):
    a, b = touch(tmp_path / "a", "1.jpg", "2.jpg"), tmp_path / "b"
    if how == "same folder":
        b = tmp_path / "x" / ".." / "a"
        (tmp_path / "x").mkdir()
    elif how == "linked folder":
        b.symlink_to(a)
    else:
        b.mkdir()
        for path in a.iterdir():
            (b / f"other {path.name}").symlink_to(path) if how == "linked files" else os.link(path, b / path.name)
    assert refusal(Source(a=str(a), b=str(b))) == "A and B are the same files. Give each domain its own."


def test_shared_files_are_counted(tmp_path, capsys):
    a, b = touch(tmp_path / "a", "1.jpg", "2.jpg"), touch(tmp_path / "b", "3.jpg")
    (b / "4.jpg").symlink_to(a / "1.jpg")
    assert set(Source(a=str(a), b=str(b), test_share=0).find(OUT)["trainB"]) == {"3.jpg", "4.jpg"}
    assert capsys.readouterr().err.startswith("1 files are in both domains.")


@pytest.mark.parametrize("where", ["", "crops", "deep/crops"])
def test_crops_do_not_become_images_of_the_next_run(domains, where):
    out = Path(domains.a, where)
    assert refusal(domains, out) == (
        f"The crops would go to {out}, which lies in {domains.a}, where images are looked for: the next run would take "
        "them for images. Choose another --out."
    )


def test_crops_do_not_replace_the_images_of_four_folders(tmp_path):
    for letter in "AB":
        touch(tmp_path / f"train{letter}", f"{letter}.jpg")
    assert "would take them for images" in refusal(Source(data=tmp_path), tmp_path)
    Source(data=tmp_path).find(tmp_path / "crops")


# Permissions. --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o000, 0o444])  # it cannot be listed; it can, and its files not be looked at
def test_a_folder_that_may_not_be_read(forbidding, mode):
    folder, forbid = forbidding
    a, b = touch(folder / "a", "1.jpg", "sub/2.jpg"), touch(folder / "b", "3.jpg")
    forbid(a / "sub", mode)
    message = refusal(Source(a=str(a), b=str(b)))
    assert message.startswith(f"{a / 'sub'}") and message.endswith(
        " cannot be read: Permission denied. Change its permissions."
    )


# UTKFace. ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def utkface(tmp_path) -> Path:
    return touch(
        tmp_path / "utk",
        "20_0_0_20170110232624418.jpg",
        "29_1_1_20170109213109287.jpg.chip.jpg",
        "30_1_0_1.jpg",
        "50_0_2_1.jpg",
        "sub/59_1_4_1.jpg",
        "116_1_3_1.jpg",
    )


@pytest.mark.parametrize(
    ("a", "b", "in_a", "in_b"),
    [
        ("age 20-29", "age 50-59", {"20", "29"}, {"50", "sub__59"}),
        ("age 30", "Age 60 - 116", {"30"}, {"116"}),
        ("gender male", "gender 1", {"20", "50"}, {"29", "30", "sub__59", "116"}),
        ("race white", "race black", {"20", "30"}, {"29"}),
        ("race asian,  gender male", "race other", {"50"}, {"sub__59"}),
        ("age 0-40, gender female, race white", "race indian", {"30"}, {"116"}),
    ],
)
def test_people_are_chosen_by_a_query(utkface, a, b, in_a, in_b):
    found = names(Source(utkface=utkface, a=a, b=b, test_share=0).find(OUT))
    assert {name.split("_1_")[0].split("_0_")[0] for name in found["trainA"]} == in_a
    assert {name.split("_1_")[0].split("_0_")[0] for name in found["trainB"]} == in_b


@pytest.mark.parametrize(
    "query",
    [
        "",
        "age",
        "age old",
        "age 29-20",
        "age 1000",
        "male",
        "gender 2",
        "race 5",
        "race blue",
        "age 20, age 30",
        "age 2,",
    ],
)
def test_a_query_that_cannot_be_read_shows_how_to_write_one(utkface, query):
    assert refusal(Source(utkface=utkface, a=query, b="age 50")) == f'The query "{query}" cannot be read. {QUERIES}'


def test_a_query_for_nobody(utkface):
    message = refusal(Source(utkface=utkface, a="age 1-5", b="age 50"))
    assert message == f'None of 6 UTKFace-named files matches "age 1-5". {QUERIES}'


def test_two_queries_for_the_same_people(utkface, capsys):
    assert "the same files" in refusal(Source(utkface=utkface, a="age 0-40", b="age 20-30"))
    Source(utkface=utkface, a="age 20-30", b="gender female", test_share=0).find(OUT)
    assert capsys.readouterr().err.startswith("2 files are in both domains.")


def test_files_of_other_names_are_counted(utkface, capsys):
    touch(utkface, "39_1_20170116174525125.jpg.chip.jpg", "notes.txt")  # the first is one of UTKFace's own mistakes
    Source(utkface=utkface, a="age 20-30", b="age 50-60").find(OUT)
    assert capsys.readouterr().err == (
        "2 of 8 files are not named [age]_[gender]_[race]_[date].jpg and were left out, the first: "
        "39_1_20170116174525125.jpg.chip.jpg\n"
    )


@given(st.integers(0, 150), st.integers(0, 150), st.integers(0, 150), st.integers(0, 1), st.integers(0, 4))
def test_a_query_means_what_it_says(age, one, other, gender, race):
    low, high = sorted((one, other))
    person = {"age": age, "gender": gender, "race": race}
    assert parse_query(f"age {low}-{high}")(person) == (low <= age <= high)
    words = ("male", "female")[gender], ("white", "black", "asian", "indian", "other")[race]
    assert parse_query(f"race {words[1]}, gender {words[0]}, age {age}")(person)
    assert not parse_query(f"gender {1 - gender}")(person)


# A table. ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kaggle(tmp_path) -> Source:
    """The form of the Kaggle glasses data: train.csv with an id, hundreds of numbers and a label."""
    touch(tmp_path / "faces", *(f"face-{number}.png" for number in range(1, 9)))
    with open(tmp_path / "train.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", *(f"v{i}" for i in range(1, 513)), "glasses"])
        rows.writerows([number, *[0.25] * 512, int(number % 3 == 0)] for number in range(1, 9))
    return Source(
        csv=tmp_path / "train.csv",
        images=tmp_path / "faces",
        label="glasses",
        image="face-{id}.png",
        a="0",
        b="1",
        test_share=0,
    )


def changed(source: Source, **changes) -> Source:
    return Source(**(vars(source) | changes))


def test_rows_of_a_table_are_chosen_by_their_label(kaggle):
    found = kaggle.find(OUT)
    assert names(found) == {
        "trainA": {f"face-{number}.png" for number in (1, 2, 4, 5, 7, 8)},
        "trainB": {"face-3.png", "face-6.png"},
    }
    assert found["trainB"]["face-3.png"] == kaggle.images / "face-3.png"


def test_images_of_a_table_may_lie_in_folders_and_beside_the_way_here(tmp_path, kaggle):
    touch(tmp_path / "faces", "x/1.png", "y/2.png")
    table = tmp_path / "t.csv"
    table.write_text("\ufeffkind, file\nday,x/1\nnight, y/2 \n".replace(", file", ",file"), encoding="utf-8")
    images = tmp_path / "faces" / "x" / ".."
    source = changed(kaggle, csv=table, images=images, label="kind", image="{file}.png", a="day", b="night")
    assert names(source.find(OUT)) == {"trainA": {"x__1.png"}, "trainB": {"y__2.png"}}


def test_missing_files_of_a_table_are_counted(kaggle, capsys):
    (kaggle.images / "face-3.png").unlink()
    assert names(kaggle.find(OUT))["trainB"] == {"face-6.png"}
    assert capsys.readouterr().err == f"1 of 8 files named in {kaggle.csv} are missing, the first: face-3.png\n"


def test_a_table_cannot_name_files_elsewhere(tmp_path, kaggle, capsys):
    secret = touch(tmp_path, "secret.png") / "secret.png"
    table = tmp_path / "t.csv"
    table.write_text(f"file,glasses\n{secret},0\n../secret.png,1\nface-1.png,0\nface-2.png,1\n")
    found = changed(kaggle, csv=table, image="{file}").find(OUT)
    assert names(found) == {"trainA": {"face-1.png"}, "trainB": {"face-2.png"}}
    assert capsys.readouterr().err.startswith(f"2 of 4 files named in {table} are missing, the first: /")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "{x}.png"}, "{csv} has no column x. Its columns are: id, v1, v2, v3, v4, v5, v6, v7, ... (514"),
        ({"label": "Glasses"}, "{csv} has no column Glasses. Its columns are:"),
        ({"a": "yes"}, 'No row of {csv} has "glasses" yes. Its values are: 0 (6), 1 (2).'),
        ({"image": "{id}.jpg"}, "None of the 8 files named in {csv} is there; the first would be {images}/1.jpg."),
        ({"image": "face-1.png"}, "A and B are the same files."),
        ({"b": "0"}, "A and B are the same files."),
    ],
)  # fmt: skip
def test_what_a_table_lacks_is_named(kaggle, changes, message):
    assert refusal(changed(kaggle, **changes)).startswith(
        message.replace("{csv}", str(kaggle.csv)).replace("{images}", str(kaggle.images))
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "{csv} cannot be read: No such file or directory."),
        ("", "{csv} has no column glasses, id. Its columns are: ."),
        ("id,glasses\n1,0\n2,0\n", 'All rows of {csv} have the same "glasses". Two domains need two values.'),
        ("id,glasses\n" + "x" * 200_000, "{csv} is not a table of comma-separated values:"),
    ],
)
def test_a_table_that_cannot_be_used(kaggle, content, message):
    kaggle.csv.unlink() if content is None else kaggle.csv.write_text(content)
    assert refusal(kaggle).startswith(message.replace("{csv}", str(kaggle.csv)))


def test_rows_that_are_cut_short_have_no_label(kaggle):
    with open(kaggle.csv, "a") as file:
        file.write("9,0.1\n\n\xff\xfe,\n")
    assert len(kaggle.find(OUT)["trainA"]) == 6
