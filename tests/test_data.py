"""`train.data`: which images a training sees, in which order and how mirrored."""

import numpy as np
import pytest
import torch
from PIL import Image
from train_fixtures import one_thread, write_domains, write_image, write_noise  # noqa: F401

from train import data
from train.data import Pairs, augment, load_folder, resize
from train.errors import TrainingError

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def numbered_pairs(count_A: int, count_B: int, seed: int = 0) -> Pairs:
    """Image number i of a domain is filled with the value i."""
    A, B = (
        torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 16, 16, 3).contiguous()
        for count in (count_A, count_B)
    )
    return Pairs(A, B, A[:0], B[:0], seed)


def seen(pairs: Pairs, steps: int, batch: int, start: int = 0) -> tuple[list[int], list[int]]:
    """Numbers of the images of A and of B in the order in which a training gets them."""
    order: tuple[list[int], list[int]] = ([], [])
    for step in range(steps):
        for numbers, images in zip(order, pairs.batch(start + step * batch, batch, 16, flip=True), strict=True):
            assert images.shape == (batch, 3, 16, 16)
            numbers += ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    return order


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
    data._orders.clear()
    resumed = seen(numbered_pairs(11, 6), steps=18, batch=2, start=24)
    assert [numbers[24:] for numbers in whole] == list(resumed)
    # Far more epochs than are remembered.
    assert seen(numbered_pairs(2, 3), steps=100, batch=2) == seen(numbered_pairs(2, 3), steps=100, batch=2)


def test_the_same_batch_comes_out_the_same_to_the_last_pixel():
    torch.manual_seed(1)
    noise = torch.randint(256, (20, 16, 16, 3), dtype=torch.uint8)
    pairs = Pairs(noise, noise, noise[:0], noise[:0], 0)
    first = pairs.batch(40, 8, 16, flip=True)
    torch.manual_seed(2)  # a random number drawn elsewhere must not matter
    pairs.batch(0, 8, 16, flip=True)
    for one, again in zip(first, pairs.batch(40, 8, 16, flip=True), strict=True):
        assert torch.equal(one, again)


def test_another_seed_is_another_order():
    orders = [seen(numbered_pairs(30, 30, seed), steps=6, batch=5) for seed in (0, 1, 2)]
    assert len({tuple(A) for A, _ in orders}) == 3 and len({tuple(B) for _, B in orders}) == 3


def test_about_half_of_the_images_are_mirrored_left_to_right_only():
    image = torch.randint(256, (16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pairs = Pairs(*[image.expand(4, -1, -1, -1)] * 2, *[image.expand(0, -1, -1, -1)] * 2, seed=0)
    upright = image.permute(2, 0, 1).float() / 127.5 - 1
    mirrored = {"A": 0, "B": 0}
    for step in range(100):
        for letter, images in zip("AB", pairs.batch(4 * step, 4, 16, flip=True), strict=True):
            for shown in images:
                is_mirrored = torch.equal(shown, upright.flip(2))
                assert is_mirrored or torch.equal(shown, upright)
                mirrored[letter] += is_mirrored
    assert all(150 < count < 250 for count in mirrored.values())  # five standard deviations of 400 coins


def test_without_flip_nothing_is_mirrored():
    image = torch.randint(256, (16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = augment(image.expand(200, -1, -1, -1), 16, False, torch.Generator().manual_seed(0))
    assert (shown == (image.permute(2, 0, 1).float() / 127.5 - 1)).all()


def test_values_lie_between_minus_one_and_one():
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(-1, 32, 32, 3)
    for size in (16, 32):
        x = augment(black_and_white, size, True, torch.Generator().manual_seed(0))
        assert x.dtype == torch.float32 and x.shape == (2, 3, size, size)
        assert (x[0] == -1).all() and (x[1] == 1).all()


def test_earlier_stages_see_averages_of_the_pixels():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resize(x, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resize(x, 4) is x


# Loading. -----------------------------------------------------------------------------------------------------------


def as_set(images) -> set[bytes]:
    return {np.asarray(image).tobytes() for image in images}


def test_validation_images_never_train(tmp_path):
    pairs = Pairs.load(write_domains(tmp_path, 40), 16, validation=64, seed=0, device=CPU)
    assert len(pairs.validation_A) == len(pairs.validation_B) == 4  # never more than a tenth
    batches = [pairs.batch(4 * step, 4, 16, flip=False) for step in range(9)]
    for side, held_out in ((0, pairs.validation_A), (1, pairs.validation_B)):
        shown = as_set(((x + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous() for b in batches for x in b[side])
        assert len(shown) == 36
        assert not shown & as_set(held_out)
        assert len(shown | as_set(held_out)) == 40


def test_no_more_validation_images_than_asked_for(tmp_path):
    pairs = Pairs.load(write_domains(tmp_path, 40), 16, validation=2, seed=0, device=CPU)
    assert (len(pairs.validation_A), len(pairs.A)) == (2, 38)


def test_the_split_depends_on_names_only(tmp_path):
    write_noise(tmp_path / "trainA", 40)
    write_noise(tmp_path / "trainB", 40, seed=9)  # other pictures under the same names
    pairs = Pairs.load(tmp_path, 16, validation=4, seed=0, device=CPU)
    images, _ = load_folder(tmp_path / "trainA", 16)
    others, _ = load_folder(tmp_path / "trainB", 16)
    held = [i for i, image in enumerate(images) if image.tobytes() in as_set(pairs.validation_A)]
    assert held == [i for i, image in enumerate(others) if image.tobytes() in as_set(pairs.validation_B)]
    again = Pairs.load(tmp_path, 16, validation=4, seed=1, device=CPU)
    assert torch.equal(again.validation_A, pairs.validation_A)


def test_an_added_file_moves_at_most_one_other(tmp_path):
    write_domains(tmp_path, 40)
    before = as_set(Pairs.load(tmp_path, 16, validation=4, seed=0, device=CPU).validation_A)
    taken = 0
    for number in range(8):
        write_image(tmp_path / "trainA" / f"added {number}.png", np.full((16, 16, 3), 200 + number, np.uint8))
        after = as_set(Pairs.load(tmp_path, 16, validation=4, seed=0, device=CPU).validation_A)
        assert len(after - before) <= 1
        taken += len(after - before)
        before = after
    assert taken < 4  # most new files go to training, as a hash of the name has it


def test_a_damaged_image_is_left_out_and_named(tmp_path, capsys):
    write_noise(tmp_path / "trainA", 5)
    whole, _ = load_folder(tmp_path / "trainA", 16)
    damaged = tmp_path / "trainA" / "002.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    capsys.readouterr()
    images, names = load_folder(tmp_path / "trainA", 16)
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
    assert load_folder(tmp_path / "trainA", 16)[1] == ["000.png", "001.png", "002.png"]
    assert "trainA: 3 files left out as unreadable, the first: 000.jpg" in capsys.readouterr().err


def test_a_missing_folder(tmp_path):
    write_noise(tmp_path / "trainA", 3)
    with pytest.raises(TrainingError) as caught:
        Pairs.load(tmp_path, 16, 4, 0, CPU)
    folder = tmp_path / "trainB"
    assert str(caught.value) == f"There is no folder {folder}. Make it with: python -m train prepare --help"


@pytest.mark.parametrize(("count", "has"), [(0, "0 readable images"), (1, "1 readable image")])
def test_too_few_images(tmp_path, count, has):
    folder = tmp_path / "trainA"
    folder.mkdir()
    write_noise(folder, count)
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(TrainingError) as caught:
        load_folder(folder, 16)
    assert str(caught.value) == f"{folder} has {has}; at least 2 are needed, and 1,000 advised."


def test_three_images_are_enough_and_all_train(tmp_path):
    pairs = Pairs.load(write_domains(tmp_path, 3), 16, validation=64, seed=0, device=CPU)
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
    images, names = load_folder(folder, 20)
    assert images.shape == (5, 20, 20, 3) and images.dtype == np.uint8
    assert names == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert (images == 40).all()


def test_shrinking_does_not_alias(tmp_path):
    folder = tmp_path / "trainA"
    checked = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    for name in ("a.png", "b.png"):
        write_image(folder / name, np.repeat(checked[..., None], 3, axis=2))
    images, _ = load_folder(folder, 16)
    assert np.abs(images.astype(int) - 127.5).max() < 1


def test_names_that_are_not_unicode(tmp_path):
    write_domains(tmp_path, 12)
    odd = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    (tmp_path / "trainA" / "000.png").rename(tmp_path / "trainA" / odd)
    pairs = Pairs.load(tmp_path, 16, 64, 0, CPU)
    assert len(pairs.A) + len(pairs.validation_A) == 12
