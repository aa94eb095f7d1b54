"""`train.buffer`: which images the discriminators get to see."""

import torch

from train.buffer import ImageBuffer


def numbered(*numbers: int, side: int = 4) -> torch.Tensor:
    """Images [B, 3, side, side], each filled with its number."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 3, side, side).clone()


def numbers(images: torch.Tensor) -> list[int]:
    assert all((image == image[0, 0, 0]).all() for image in images)
    return [int(image[0, 0, 0]) for image in images]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_first_images_come_back_as_they_are():
    buffer, random = ImageBuffer(5), rng()
    assert numbers(buffer.exchange(numbered(0, 1), random)) == [0, 1]
    assert numbers(buffer.exchange(numbered(2, 3, 4), random)) == [2, 3, 4]


def test_then_about_half_are_older_ones_each_shown_at_most_twice():
    buffer, random = ImageBuffer(50), rng()
    shown = [numbers(buffer.exchange(numbered(i), random))[0] for i in range(2050)]
    later = list(enumerate(shown))[50:]
    old = [number for i, number in later if number != i]
    assert 900 < len(old) < 1100  # 2000 coins: three standard deviations are 67
    assert all(number < i for i, number in later if number != i)
    # Once as new (or into the buffer), once out of it: an image leaves the buffer when it is shown.
    assert len(set(old)) == len(old)
    # Old ones come from the whole buffer: with 50 places and half a swap per image the mean age is 100 images.
    ages = [i - number for i, number in later if number != i]
    assert 70 < sum(ages) / len(ages) < 130


def test_a_batch_is_exchanged_image_by_image():
    buffer, random = ImageBuffer(4), rng()
    buffer.exchange(numbered(0, 1, 2, 3), random)
    shown = numbers(buffer.exchange(numbered(*range(100, 120)), random))
    assert len(shown) == 20
    new = [number for place, number in enumerate(shown) if number == 100 + place]
    assert 4 <= len(new) <= 16
    assert set(shown) & {0, 1, 2, 3}


def test_no_capacity_passes_everything_through():
    buffer, random = ImageBuffer(0), rng()
    for i in range(20):
        assert numbers(buffer.exchange(numbered(i, i + 1), random)) == [i, i + 1]


def test_images_of_an_earlier_size_are_forgotten():
    buffer, random = ImageBuffer(4), rng()
    buffer.exchange(numbered(0, 1, 2, 3, side=4), random)
    for i in range(10, 40, 2):
        shown = buffer.exchange(numbered(i, i + 1, side=8), random)
        assert shown.shape == (2, 3, 8, 8)
        assert min(numbers(shown)) >= 10


def test_what_is_kept_neither_changes_with_the_image_given_nor_holds_its_graph():
    buffer, random = ImageBuffer(1), rng()
    weight = torch.ones(1, requires_grad=True)
    buffer.exchange(numbered(5) * weight, random)
    given = numbered(6)
    shown = []
    for _ in range(20):
        shown += numbers(out := buffer.exchange(given * weight, random))
        assert not out.requires_grad
    assert 5 in shown
    first = numbered(7)
    buffer = ImageBuffer(1)
    buffer.exchange(first, random)
    first.fill_(99)
    assert 7 in [numbers(buffer.exchange(numbered(8), random))[0] for _ in range(20)]


def test_a_saved_buffer_continues_as_if_nothing_had_happened():
    buffer, random = ImageBuffer(6), rng(3)
    for i in range(20):
        buffer.exchange(numbered(i), random)
    restored, same_random = ImageBuffer(6), torch.Generator()
    restored.load_state_dict(buffer.state_dict())
    same_random.set_state(random.get_state())
    expected = [numbers(buffer.exchange(numbered(i), random)) for i in range(20, 80)]
    assert [numbers(restored.exchange(numbered(i), same_random)) for i in range(20, 80)] == expected
    fresh = ImageBuffer(6)
    other_random = torch.Generator()
    other_random.set_state(rng(3).get_state())
    assert [numbers(fresh.exchange(numbered(i), other_random)) for i in range(20, 80)] != expected


def test_a_saved_state_is_not_changed_by_going_on():
    buffer, random = ImageBuffer(2), rng()
    buffer.exchange(numbered(0, 1), random)
    state = buffer.state_dict()
    for i in range(2, 30):
        buffer.exchange(numbered(i), random)
    assert [numbers(image[None]) for image in state["images"]] == [[0], [1]]
