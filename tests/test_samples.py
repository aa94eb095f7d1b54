"""`train.samples`: the grid a person looks at, and the figures that tell whether a training is alive."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import blend
from train_fixtures import one_thread, tiny_config  # noqa: F401

from cyclegan.networks import GeneratorConfig
from train.config import DiscriminatorConfig
from train.data import Pairs
from train.samples import Samples, tile
from train.step import Networks

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count: int, height: int, channels: int, seed: int) -> torch.Tensor:
    """Noise, uint8 [count, height, 16, channels]."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, height, 16, channels), np.uint8))


def make(held_out_A: int, held_out_B: int, height: int = 16, channels: int = 3) -> tuple[Samples, Networks, Pairs]:
    """Samples of networks whose averaged generators change nothing."""
    config = tiny_config(
        generator=GeneratorConfig(filters=2, blocks=0, mask=True, channels=channels),
        discriminator=DiscriminatorConfig(filters=2, layers=2, channels=channels),
    )
    nets = Networks.build(config, torch.device("cpu"))
    with torch.no_grad():
        for generator in (nets.ema_G_AB, nets.ema_G_BA):
            last = generator.head[0]
            last.weight.zero_()
            last.bias[-1] = -40  # a closed mask
    domains = [pictures(count, height, channels, seed) for seed, count in enumerate((20, 20, held_out_A, held_out_B))]
    data = Pairs(*domains, seed=0, digest="")
    return Samples(nets, data), nets, data


def test_rows_are_both_domains_with_translation_and_way_back():
    samples, nets, data = make(8, 8)
    blend(nets.ema_G_AB, (0.9, -0.9, -0.9), 1 - 1e-7)  # paints red
    blend(nets.ema_G_BA, (-0.9, -0.9, 0.9), 1 - 1e-7)  # paints blue
    picture, _ = samples.draw((16, 16))
    assert picture.shape == (6 * 16, 8 * 16, 3) and picture.dtype == np.uint8
    rows = [picture[16 * row : 16 * row + 16] for row in range(6)]
    for row, images in ((rows[0], data.validation_A), (rows[3], data.validation_B)):
        assert np.array_equal(row, np.concatenate(list(images.numpy()), axis=1))
    red, blue = (242, 13, 13), (13, 13, 242)
    for row, colour in ((rows[1], red), (rows[2], blue), (rows[4], blue), (rows[5], red)):
        assert np.abs(row.astype(int) - colour).max() <= 1


@pytest.mark.parametrize(("held_out_A", "held_out_B"), [(20, 12), (5, 2), (0, 0)])
def test_eight_columns_of_validation_images_and_where_they_are_too_few_of_training_images(held_out_A, held_out_B):
    samples, _, data = make(held_out_A, held_out_B)
    picture, _ = samples.draw((16, 16))
    shown = torch.cat([data.validation_A, data.A])[:8]
    assert np.array_equal(picture[:16], np.concatenate(list(shown.numpy()), axis=1))


def test_an_early_stage_is_drawn_at_its_size():
    samples, _, data = make(3, 3, height=64)
    picture, _ = samples.draw((32, 16))
    assert picture.shape == (6 * 32, 8 * 16, 3)
    halves = data.validation_A[0].float().reshape(32, 2, 16, 3).mean(1)  # rows averaged in twos
    assert np.abs(picture[:32, :16] - halves.numpy()).max() <= 1


def test_grey_images_are_drawn_grey():
    picture, _ = make(3, 3, channels=1)[0].draw((16, 16))
    assert picture.shape == (96, 128, 3)
    assert np.array_equal(picture[..., 0], picture[..., 1]) and picture.std() > 30


def test_copies_are_as_various_as_their_inputs_and_change_nothing():
    _, measured = make(6, 6)[0].draw((16, 16))
    assert measured == {
        "A2B": (pytest.approx(1, abs=1e-5), pytest.approx(0, abs=1e-6)),
        "B2A": (pytest.approx(1, abs=1e-5), pytest.approx(0, abs=1e-6)),
    }


def test_the_same_answer_to_everything_has_no_variety():
    samples, nets, data = make(6, 6)
    blend(nets.ema_G_AB, (0.9, -0.9, -0.9), 1 - 1e-7)
    _, measured = samples.draw((16, 16))
    variety, change = measured["A2B"]
    assert variety < 1e-3
    shown = data.validation("A", 8, (16, 16))
    red = torch.tensor([0.9, -0.9, -0.9])[:, None, None]
    assert change == pytest.approx((shown - red).abs().mean().item(), rel=1e-3)
    assert measured["B2A"][0] == pytest.approx(1, abs=1e-5)


def test_half_of_the_input_has_half_the_variety():
    samples, nets, _ = make(6, 6)
    blend(nets.ema_G_BA, (0, 0, 0), 0.5)
    assert samples.draw((16, 16))[1]["B2A"][0] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.filterwarnings("error")
def test_a_single_validation_image_still_tells_the_variety():
    """Ten images per domain leave one for validation, which alone has none: a collapse would go unnoticed."""
    _, measured = make(1, 1)[0].draw((16, 16))
    assert measured["A2B"] == (pytest.approx(1, abs=1e-5), pytest.approx(0, abs=1e-6))


def test_looking_changes_nothing():
    samples, nets, _ = make(3, 3)
    before, random = copy.deepcopy(nets.ema_G_AB.state_dict()), torch.get_rng_state()
    first = samples.draw((16, 16))[0]
    assert np.array_equal(samples.draw((16, 16))[0], first)
    assert all(torch.equal(value, before[name]) for name, value in nets.ema_G_AB.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_tiles_lie_in_their_row_and_column():
    rows = [np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3) + 50 * row for row in range(2)]
    picture = tile(rows)
    assert picture.shape == (8, 10, 3)
    assert np.array_equal(picture[4:, 5:], rows[1][1]) and np.array_equal(picture[:4, 5:], rows[0][1])


class Brightness(torch.nn.Module):
    """A discriminator whose verdict is an image's brightness; it may only be asked in evaluation mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return x.mean((1, 2, 3), keepdim=True)


def of_brightness(nets: Networks, A: int, B: int, held_out_A: int, held_out_B: int, count: int) -> Samples:
    def grey(value: int, count: int) -> torch.Tensor:
        return torch.full((count, 16, 16, 3), value, dtype=torch.uint8)

    data = Pairs(grey(A, 200), grey(B, 200), grey(held_out_A, count), grey(held_out_B, count), seed=0, digest="")
    return Samples(replace(nets, D_A=Brightness(), D_B=Brightness()), data)


def test_discriminators_are_asked_of_what_they_know_what_they_do_not_and_translations():
    _, nets, _ = make(8, 8)  # whose translations are copies
    samples = of_brightness(nets, 255, 204, 0, 51, count=100)
    found = samples.verdicts((16, 16))
    assert found["A"] == pytest.approx((1, -1, -0.6), abs=1e-5) and found["B"] == pytest.approx(
        (0.6, -0.6, -1), abs=1e-5
    )


def test_few_images_tell_nothing_of_discriminators():
    _, nets, _ = make(8, 8)
    assert of_brightness(nets, 255, 204, 0, 51, count=15).verdicts((16, 16)) == {}


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_asking_discriminators_changes_nothing(norm):
    """Else a run that was looked at more often would be another."""
    _, nets, data = make(20, 20)
    config = tiny_config(discriminator=DiscriminatorConfig(filters=2, layers=2, norm=norm))
    nets = replace(nets, D_A=(judge := Networks.build(config, torch.device("cpu")).D_A), D_B=judge)
    before = copy.deepcopy(judge.state_dict())
    assert Samples(nets, data).verdicts((16, 16)).keys() == {"A", "B"}
    assert judge.training and all(torch.equal(before[key], value) for key, value in judge.state_dict().items())
