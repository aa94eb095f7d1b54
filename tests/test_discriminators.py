"""`train.discriminators`: what a PatchGAN sees and how it is normalised."""

import pytest
import torch
from torch import nn
from train_fixtures import one_thread  # noqa: F401

from train.config import DiscriminatorConfig
from train.discriminators import PatchDiscriminator

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def seen_pixels(layers: int, size: int, row: int, column: int) -> torch.Tensor:
    """bool [size, size]: the pixels that change one score. Spectral norm, since instance norm sees the whole image."""
    net = PatchDiscriminator(DiscriminatorConfig(filters=2, layers=layers, norm="spectral")).double()
    image = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    net(image)[0, 0, row, column].backward()
    return image.grad[0].abs().sum(0) > 0


@pytest.mark.parametrize(("layers", "side", "start"), [(3, 70, 8 * 15 - 23), (4, 142, 16 * 7 - 47)])
def test_a_score_sees_exactly_one_square_patch(layers, side, start):
    row = {3: 15, 4: 7}[layers]
    expected = torch.zeros(256, 256, dtype=torch.bool)
    expected[start : start + side, start : start + side] = True
    assert torch.equal(seen_pixels(layers, 256, row, row), expected)


def test_patches_at_the_border_are_cut_by_it():
    expected = torch.zeros(128, 128, dtype=torch.bool)
    expected[: 70 - 23, : 70 - 23] = True
    assert torch.equal(seen_pixels(3, 128, 0, 0), expected)


@pytest.mark.parametrize(("layers", "size", "scores"), [(3, (256, 256), (30, 30)), (4, (256, 256), (14, 14))])
def test_scores_per_image(layers, size, scores):
    net = PatchDiscriminator(DiscriminatorConfig(filters=2, layers=layers))
    assert net(torch.zeros(2, 3, *size)).shape == (2, 1, *scores)


def test_images_need_not_be_square():
    net = PatchDiscriminator(DiscriminatorConfig(filters=2))
    assert net(torch.zeros(1, 3, 64, 128)).shape == (1, 1, 6, 14)


def test_the_paper_s_widths():
    net = PatchDiscriminator(DiscriminatorConfig())
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256, 512, 1]
    assert {layer.kernel_size for layer in convolutions} == {(4, 4)}


@pytest.mark.parametrize("norm", ["instance", "spectral"])
def test_scores_are_unbounded(norm):
    net = PatchDiscriminator(DiscriminatorConfig(filters=4, norm=norm))
    with torch.no_grad():
        bias = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1].bias
        bias.fill_(7)
        assert net(torch.randn(1, 3, 32, 32)).min() > 2
        bias.fill_(-7)
        assert net(torch.randn(1, 3, 32, 32)).max() < -2


def test_spectral_norm_keeps_the_largest_singular_value_of_every_layer_but_the_last_at_one():
    net = PatchDiscriminator(DiscriminatorConfig(filters=8, norm="spectral"))
    with torch.no_grad():
        for weight in net.parameters():  # a training that lets the weights grow must not get through
            weight.mul_(30)
        for _ in range(50):
            net(torch.zeros(1, 3, 32, 32))
        convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
        *largest, verdict = (torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() for layer in convolutions)
    assert largest == pytest.approx([1.0] * 4, abs=0.03)
    assert verdict > 3  # scores may move as far apart as they need


def test_without_spectral_norm_weights_are_free():
    net = PatchDiscriminator(DiscriminatorConfig(filters=8, norm="instance"))
    first = next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        first.weight.mul_(30)
    assert torch.linalg.matrix_norm(first.weight.detach().flatten(1), 2) > 3


def test_every_layer_but_the_first_and_last_is_instance_normalised():
    net = PatchDiscriminator(DiscriminatorConfig(filters=4, layers=2, norm="instance"))
    activations = []
    for layer in net.modules():
        if isinstance(layer, nn.LeakyReLU):
            layer.register_forward_pre_hook(lambda _, inputs: activations.append(inputs[0].detach().clone()))
    net(torch.randn(2, 3, 64, 64) + 3)
    first, *others = activations
    assert len(others) == 2
    # The first layer still tells a bright picture from a dark one.
    assert first.mean((2, 3)).abs().max() > 0.05
    for values in others:
        assert values.mean((2, 3)).abs().max() < 1e-3
        # Not exactly one, because a small variance is floored.
        assert values.std((2, 3)).max() < 1.05
        assert values.std((2, 3)).min() > 0.5
