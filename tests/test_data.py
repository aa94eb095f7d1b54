"""`train.data`: which images a training sees, in which order and how mirrored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from train_fixtures import one_thread, write_domains, write_image, write_noise  # noqa: F401

from train import data
from train.data import Pairs, augment, load_part, load_split, resize
from train.errors import TrainingError

CPU = torch.device("cpu")
SIZE = (16, 16)

pytestmark = pytest.mark.usefixtures("one_thread")


def numbered_pairs(count_A: int, count_B: int, seed: int = 0) -> Pairs:
    """Image number i of a domain is filled with the value i."""
    A, B = (
        torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 16, 16, 3).contiguous()
        for count in (count_A, count_B)
    )
    return Pairs(A, B, A[:0], B[:0], seed, "")


def seen(pairs: Pairs, steps: int, batch: int, start: int = 0) -> tuple[list[int], list[int]]:
    """Numbers of the images of A and of B in the order in which a training gets them."""
    order: tuple[list[int], list[int]] = ([], [])
    for step in range(steps):
        for numbers, images in zip(order, pairs.batch(start + step * batch, batch, SIZE, flip=True), strict=True):
            assert images.shape == (batch, 3, 16, 16)
            numbers += ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    return order


def drawn(count: int) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0))


def test_every_epoch_shows_every_image_exactly_once():
    A, B = seen(numbered_pairs(7, 5), steps=35, batch=3)
    for numbers, count in ((A, 7), (B, 5)):
        epochs = [numbers[start : start + count] for start in range(0, 105, count)]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 5  # shuffled anew each time


def test_a_batch_larger_than_a_domain():
    A, B = seen(numbered_pairs(3, 40), steps=1, batch=9)
    assert sorted(A) == sorted(list(range(3)) * 3)
    assert len(set(B)) == 9


def test_the_domains_are_not_in_step():
    A, B = seen(numbered_pairs(50, 50), steps=10, batch=5)
    assert sum(a == b for a, b in zip(A, B, strict=True)) < 10


def test_the_order_depends_on_the_pairs_seen_and_on_nothing_before(monkeypatch):
    whole = seen(numbered_pairs(11, 6), steps=30, batch=2)
    data._order.cache_clear()
    resumed = seen(numbered_pairs(11, 6), steps=18, batch=2, start=24)
    assert [numbers[24:] for numbers in whole] == list(resumed)
    # Far more epochs than are remembered.
    assert seen(numbered_pairs(2, 3), steps=100, batch=2) == seen(numbered_pairs(2, 3), steps=100, batch=2)


def test_the_same_batch_comes_out_the_same_to_the_last_pixel():
    torch.manual_seed(1)
    noise = torch.randint(256, (20, 16, 16, 3), dtype=torch.uint8)
    pairs = Pairs(noise, noise, noise[:0], noise[:0], 0, "")
    first = pairs.batch(40, 8, SIZE, flip=True)
    torch.manual_seed(2)  # a random number drawn elsewhere must not matter
    pairs.batch(0, 8, SIZE, flip=True)
    for one, again in zip(first, pairs.batch(40, 8, SIZE, flip=True), strict=True):
        assert torch.equal(one, again)


def test_another_seed_is_another_order():
    orders = [seen(numbered_pairs(30, 30, seed), steps=6, batch=5) for seed in (0, 1, 2)]
    assert len({tuple(A) for A, _ in orders}) == 3 and len({tuple(B) for _, B in orders}) == 3


def test_about_half_of_the_images_are_mirrored_left_to_right_only():
    image = torch.randint(256, (16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pairs = Pairs(*[image.expand(4, -1, -1, -1)] * 2, *[image.expand(0, -1, -1, -1)] * 2, seed=0, digest="")
    upright = image.permute(2, 0, 1).float() / 127.5 - 1
    mirrored = {"A": 0, "B": 0}
    for step in range(100):
        for letter, images in zip("AB", pairs.batch(4 * step, 4, SIZE, flip=True), strict=True):
            for shown in images:
                is_mirrored = torch.equal(shown, upright.flip(2))
                assert is_mirrored or torch.equal(shown, upright)
                mirrored[letter] += is_mirrored
    assert all(150 < count < 250 for count in mirrored.values())  # five standard deviations of 400 coins


def test_without_flip_nothing_is_mirrored():
    image = torch.randint(256, (16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = augment(image.expand(200, -1, -1, -1), SIZE, False, 1.0, drawn(200))
    assert (shown == (image.permute(2, 0, 1).float() / 127.5 - 1)).all()


def test_values_lie_between_minus_one_and_one():
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(-1, 32, 32, 3)
    for size, enlarge in ((SIZE, 1.0), ((32, 32), 1.0), ((16, 24), 1.2)):
        x = augment(black_and_white, size, True, enlarge, drawn(len(black_and_white)))
        assert x.dtype == torch.float32 and x.shape == (2, 3, *size)
        assert x.min() == -1 and x.max() == 1
        assert (x[0] < -0.9999).all() and (x[1] > 0.9999).all()


def test_earlier_stages_see_averages_of_the_pixels():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resize(x, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resize(x, 4) is x


def test_enlarging_shows_a_random_part_of_each_image():
    """The jitter of Zhu et al.: larger by a little, and cut out somewhere."""
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8)[None, None, :, None].expand(100, 32, -1, 3)
    x = augment(ramp, (32, 32), False, 1.25, drawn(len(ramp)))
    steps = (x[:, 0, 16, 1:] - x[:, 0, 16, :-1])[:, 4:-4] * 127.5
    assert (steps - 8 / 1.25).abs().max() < 0.8  # the ramp is less steep by that factor
    left = x[:, 0, 16, 4]
    assert left.max() - left.min() > 0.3 and len(left.unique()) > 5  # and begins elsewhere in each
    assert torch.equal(x, augment(ramp, (32, 32), False, 1.25, drawn(len(ramp))))


@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.integers(0, 2**40), st.booleans(), st.integers(0, 99)
)
@settings(deadline=None)
def test_a_batch_is_the_continuation_of_the_one_before(count_A, count_B, batch, start, flip, seed):
    """Two steps at once show the images of two steps in turn: `--batch` changes no order."""
    pairs = numbered_pairs(count_A, count_B, seed)
    at_once = pairs.batch(start, 2 * batch, SIZE, flip)
    in_turn = [pairs.batch(start + offset, batch, SIZE, flip) for offset in (0, batch)]
    for whole, first, second in zip(at_once, *in_turn, strict=True):
        assert torch.equal(whole[:, 0, 0, 0], torch.cat([first, second])[:, 0, 0, 0])


def test_validation_images_are_shown_at_the_size_asked_for():
    pairs = numbered_pairs(30, 20)
    held_out = Pairs(pairs.A, pairs.B, pairs.A[20:22], pairs.B[:0], 0, "")
    assert held_out.validation("A", 2, (8, 8)).shape == (2, 3, 8, 8)
    # Too few held out, or none: training images, so that there is something to see, and to compare.
    for letter, expected in (("A", [20, 21, 0]), ("B", [0, 1, 2])):
        shown = held_out.validation(letter, 3, SIZE)
        assert ((shown[:, 0, 0, 0] + 1) * 127.5).round().tolist() == expected
    assert len(held_out.validation("B", 40, SIZE)) == 20


# Loading. -----------------------------------------------------------------------------------------------------------


def load(data: Path, validation: int, seed: int = 0, shape: tuple[int, int, int] = (16, 16, 3)) -> Pairs:
    return Pairs.load(data, *shape, validation, seed, CPU)


def test_one_channel_is_the_luma_of_the_picture(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 100, 50]], np.uint8)
    for number, colour in enumerate(colours):
        write_image(tmp_path / "trainA" / f"{number}.png", np.full((16, 16, 3), colour))
    write_noise(tmp_path / "trainB", 4)
    pairs = load(tmp_path, 0, shape=(16, 16, 1))
    assert pairs.A.shape == (4, 16, 16, 1)
    assert pairs.A[:, 0, 0, 0].tolist() == [76, 150, 29, 124]  # ITU-R 601
    A, _ = pairs.batch(0, 4, (8, 8), flip=True, enlarge=1.1)
    assert A.shape == (4, 1, 8, 8)


@pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 16), (20, 20)])
def test_pictures_keep_their_proportions_at_any_shape(tmp_path, height, width):
    """A circle stays one, in the middle."""
    y, x = np.indices((120, 200)) - np.array([59.5, 99.5])[:, None, None]
    circle = np.repeat(((x**2 + y**2 < 25**2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "trainA" / name, circle)
    images, _ = load_part(tmp_path, "trainA", height, width)
    assert images.shape == (2, height, width, 3)
    weight = images[0, ..., 0] / 255.0
    rows, columns = weight.sum(0), weight.sum(1)
    assert abs(rows.max() - columns.max()) < 1.5
    assert abs((weight * np.indices(weight.shape)[0]).sum() / weight.sum() - (height - 1) / 2) < 0.1
    assert abs((weight * np.indices(weight.shape)[1]).sum() / weight.sum() - (width - 1) / 2) < 0.1


def test_few_images_and_small_ones_are_warned_of(tmp_path, capsys):
    write_noise(tmp_path / "trainA", 3)
    load_part(tmp_path, "trainA", 16, 16)
    few = "trainA has only 3 images: the model will learn them by heart. 1,000 are advised.\n"
    assert few in capsys.readouterr().err
    write_image(tmp_path / "trainA" / "large.png", np.zeros((64, 64, 3), np.uint8))
    load_part(tmp_path, "trainA", 24, 32)
    assert "trainA: 3 of 4 pictures are smaller than 32 x 24 and were enlarged.\n" in capsys.readouterr().err
    write_noise(tmp_path / "trainB", 100)
    load_part(tmp_path, "trainB", 16, 16)
    write_noise(tmp_path / "testA", 3)
    load_part(tmp_path, "testA", 16, 16)
    assert "advised" not in capsys.readouterr().err


def test_a_domain_is_not_its_own_counterpart(tmp_path):
    """The same pictures under other names, in another order."""
    write_noise(tmp_path / "trainA", 12)
    for number, path in enumerate(sorted((tmp_path / "trainA").iterdir(), reverse=True)):
        (tmp_path / "trainB").mkdir(exist_ok=True)
        (tmp_path / "trainB" / f"other {number:02}.png").write_bytes(path.read_bytes())
    with pytest.raises(TrainingError) as caught:
        load(tmp_path, validation=2)
    assert str(caught.value) == "trainA and trainB hold the same pictures. Give each domain its own."


def test_pictures_in_both_domains_are_counted(tmp_path, capsys):
    write_domains(tmp_path, 12)
    for name in ("000.png", "005.png"):
        (tmp_path / "trainB" / f"copy of {name}").write_bytes((tmp_path / "trainA" / name).read_bytes())
    load(tmp_path, validation=2)
    assert "2 pictures are in both domains; what they show cannot be learnt to differ." in capsys.readouterr().err


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    write_domains(tmp_path, 3)
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(TrainingError) as caught:
        load(tmp_path, validation=2)
    assert str(caught.value) == f"{tmp_path / 'trainA'} cannot be read: Permission denied. Change its permissions."


def test_a_classifier_is_taught_on_what_a_model_is_and_checked_on_what_no_model_saw(tmp_path):
    pairs = load(write_domains(tmp_path, 40), validation=4)
    for letter, train, held_out in (("A", pairs.A, pairs.validation_A), ("B", pairs.B, pairs.validation_B)):
        split = load_split(tmp_path, letter, 16, validation=4)
        assert np.array_equal(split[0], train) and np.array_equal(split[1], held_out)


def as_set(images) -> set[bytes]:
    return {np.asarray(image).tobytes() for image in images}


def test_validation_images_never_train(tmp_path):
    pairs = load(write_domains(tmp_path, 40), validation=64)
    assert len(pairs.validation_A) == len(pairs.validation_B) == 4  # never more than a tenth
    batches = [pairs.batch(4 * step, 4, SIZE, flip=False) for step in range(9)]
    for side, held_out in ((0, pairs.validation_A), (1, pairs.validation_B)):
        shown = as_set(((x + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous() for b in batches for x in b[side])
        assert len(shown) == 36
        assert not shown & as_set(held_out)
        assert len(shown | as_set(held_out)) == 40


def test_no_more_validation_images_than_asked_for(tmp_path):
    pairs = load(write_domains(tmp_path, 40), validation=2)
    assert (len(pairs.validation_A), len(pairs.A)) == (2, 38)


def test_the_split_depends_on_names_only(tmp_path):
    write_noise(tmp_path / "trainA", 40)
    write_noise(tmp_path / "trainB", 40, seed=9)  # other pictures under the same names
    pairs = load(tmp_path, validation=4)
    images, _ = load_part(tmp_path, "trainA", 16, 16)
    others, _ = load_part(tmp_path, "trainB", 16, 16)
    held = [i for i, image in enumerate(images) if image.tobytes() in as_set(pairs.validation_A)]
    assert held == [i for i, image in enumerate(others) if image.tobytes() in as_set(pairs.validation_B)]
    again = load(tmp_path, validation=4, seed=1)
    assert torch.equal(again.validation_A, pairs.validation_A)


def test_an_added_file_moves_at_most_one_other(tmp_path):
    write_domains(tmp_path, 40)
    before = as_set(load(tmp_path, validation=4).validation_A)
    taken = 0
    for number in range(8):
        write_image(tmp_path / "trainA" / f"added {number}.png", np.full((16, 16, 3), 200 + number, np.uint8))
        after = as_set(load(tmp_path, validation=4).validation_A)
        assert len(after - before) <= 1
        taken += len(after - before)
        before = after
    assert taken < 4  # most new files go to training, as a hash of the name has it


def test_a_damaged_image_is_left_out_and_named(tmp_path, capsys):
    write_noise(tmp_path / "trainA", 5)
    whole, _ = load_part(tmp_path, "trainA", 16, 16)
    damaged = tmp_path / "trainA" / "002.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    capsys.readouterr()
    images, names = load_part(tmp_path, "trainA", 16, 16)
    assert names == ["000.png", "001.png", "003.png", "004.png"]
    assert np.array_equal(images, whole[[0, 1, 3, 4]])
    output = capsys.readouterr()
    assert "trainA: 1 file left out as unreadable, the first: 002.png" in output.err
    assert output.out == ""


def test_several_damaged_images_are_counted(tmp_path, capsys):
    write_noise(tmp_path / "trainA", 3)
    for name in ("a.txt", "b.png", "000.jpg"):
        (tmp_path / "trainA" / name).write_text("hello")
    (tmp_path / "trainA" / ".hidden").write_text("hello")
    (tmp_path / "trainA" / "folder").mkdir()
    assert load_part(tmp_path, "trainA", 16, 16)[1] == ["000.png", "001.png", "002.png"]
    assert "trainA: 3 files left out as unreadable, the first: 000.jpg" in capsys.readouterr().err


def test_a_missing_folder(tmp_path):
    write_noise(tmp_path / "trainA", 3)
    with pytest.raises(TrainingError) as caught:
        load(tmp_path, validation=4)
    folder = tmp_path / "trainB"
    assert str(caught.value) == f"There is no folder {folder}. Make it with: python -m train prepare --help"


@pytest.mark.parametrize(("count", "has"), [(0, "0 readable images"), (1, "1 readable image")])
def test_too_few_images(tmp_path, count, has):
    folder = tmp_path / "trainA"
    folder.mkdir()
    write_noise(folder, count)
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(TrainingError) as caught:
        load_part(tmp_path, "trainA", 16, 16)
    assert str(caught.value) == f"trainA of {tmp_path} has {has}; at least 2 are needed, and 1,000 advised."


def test_three_images_are_enough_and_all_train(tmp_path):
    pairs = load(write_domains(tmp_path, 3), validation=64)
    assert len(pairs.A) == len(pairs.B) == 3
    assert len(pairs.validation_A) == 0


def test_mixed_sizes_give_the_centred_square(tmp_path):
    folder = tmp_path / "trainA"
    bars = np.full((20, 60, 3), 255, np.uint8)
    bars[:, 20:40] = 40  # the middle third is all that a square keeps
    write_image(folder / "a.png", bars)
    write_image(folder / "b.png", bars.transpose(1, 0, 2))
    write_image(folder / "c.png", np.full((16, 16, 3), 40, np.uint8))  # smaller than wanted: enlarged
    write_image(folder / "d.png", np.full((300, 301, 3), 40, np.uint8))
    Image.fromarray(np.full((64, 64), 40, np.uint8)).save(folder / "e.png")  # grey
    images, names = load_part(tmp_path, "trainA", 20, 20)
    assert images.shape == (5, 20, 20, 3) and images.dtype == np.uint8
    assert names == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert (images == 40).all()


def test_shrinking_does_not_alias(tmp_path):
    folder = tmp_path / "trainA"
    checked = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    for name in ("a.png", "b.png"):
        write_image(folder / name, np.repeat(checked[..., None], 3, axis=2))
    images, _ = load_part(tmp_path, "trainA", 16, 16)
    assert np.abs(images.astype(int) - 127.5).max() < 1


def test_names_that_are_not_unicode(tmp_path):
    write_domains(tmp_path, 12)
    odd = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    (tmp_path / "trainA" / "000.png").rename(tmp_path / "trainA" / odd)
    pairs = load(tmp_path, validation=64)
    assert len(pairs.A) + len(pairs.validation_A) == 12
