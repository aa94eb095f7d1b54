"""`train.augment`: what discriminators see moves and changes colour a little, and gradients find their way back."""

import pytest
import torch

from train.augment import augmented


def clouds(count: int = 64, side: int = 32) -> torch.Tensor:
    """Smooth images of middling brightness."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=rng) - 0.5
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def dots(count: int) -> torch.Tensor:
    """White dots in the middle of black images of 33 pixels."""
    x = torch.full((count, 3, 33, 33), -1.0)
    x[:, :, 16, 16] = 1.0
    return x


def test_every_image_is_moved_its_own_way_by_up_to_an_eighth():
    light = augmented(dots(200)).mean(1)
    light = light - light.amin((1, 2), keepdim=True)
    place = torch.arange(33.0) - 16
    total = light.sum((1, 2))
    down, right = ((light * p).sum((1, 2)) / total for p in (place[:, None], place[None, :]))
    for moved in (down, right):
        assert moved.abs().max() <= 33 / 8 + 1e-3 and moved.min() < -3.5 and moved.max() > 3.5
    assert abs(torch.corrcoef(torch.stack([down, right]))[0, 1]) < 0.25


def test_brightness_changes_by_up_to_a_fifth():
    grey = torch.zeros(500, 3, 8, 8)
    change = augmented(grey).mean((1, 2, 3))
    assert 0.19 < change.max() <= 0.2 and -0.2 <= change.min() < -0.19


def test_contrast_and_saturation_change_and_hue_does_not():
    red = torch.tensor([0.4, -0.2, -0.2])[None, :, None, None].expand(500, 3, 8, 8)
    seen = augmented(red).mean((2, 3))
    strength = (seen[:, 0] - seen[:, 1]) / 0.6
    assert 0.5 < strength.min() < 0.6 and 1.55 < strength.max() < 1.7  # 0.8 * 0.6 and 1.2 * 1.4 at the least and most
    assert torch.allclose(seen[:, 1], seen[:, 2], atol=1e-5)


def test_nothing_is_cut_off():
    # What moves out of sight is mirrored in: no black borders, which would tell real from generated.
    white = torch.ones(50, 3, 16, 16)
    seen = augmented(white)
    assert (seen.amax((1, 2, 3)) - seen.amin((1, 2, 3))).max() < 1e-4


def test_gradients_pass():
    x = clouds(4).requires_grad_(True)
    augmented(x).sum().backward()
    assert x.grad is not None and (x.grad.mean((1, 2, 3)) > 0.5).all()


def test_each_time_another_way_and_the_same_from_the_same_seed():
    x = clouds(4)
    first, second = augmented(x), augmented(x)
    assert not torch.allclose(first, second, atol=0.01)
    torch.manual_seed(0)
    assert torch.equal(augmented(x), first)
