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


def test_unshuffled_it_is_the_network_on_pixels_rearranged_and_sees_patches_twice_as_large():
    config = DiscriminatorConfig(filters=2, norm="spectral", unshuffle=2)
    net = PatchDiscriminator(config).double().eval()
    image = torch.randn(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    scores = net(image)
    assert scores.shape == (1, 1, 14, 14)
    rearranged = nn.functional.pixel_unshuffle(image, 2)
    assert torch.equal(scores, net.layers[1:](rearranged))
    scores[0, 0, 7, 7].backward()
    seen = image.grad[0].abs().sum(0) > 0
    assert seen.any(1).sum() == seen.any(0).sum() == 140


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


def test_without_a_norm_there_is_none():
    net = PatchDiscriminator(DiscriminatorConfig(filters=4, norm="none"))
    assert {type(layer) for layer in net.layers} == {nn.Conv2d, nn.LeakyReLU}
    x = torch.randn(1, 3, 32, 32)
    together = net(torch.cat([x, torch.randn(1, 3, 32, 32) * 5]))
    assert torch.allclose(net(x), together[:1], atol=1e-6)  # images know nothing of each other


def test_several_scales_are_the_one_network_on_an_image_and_its_max_pooled_halves():
    net = PatchDiscriminator(DiscriminatorConfig(filters=4, layers=2, scales=3, norm="none"))
    x = torch.randn(2, 3, 64, 64)
    half, quarter = (nn.functional.max_pool2d(x, factor) for factor in (2, 4))
    scores = net(x)
    each = [net.layers(image).flatten(1) for image in (x, half, quarter)]
    assert [part.shape[1] for part in each] == [14 * 14, 6 * 6, 2 * 2]
    assert scores.shape == (2, 1, 1, 14 * 14 + 6 * 6 + 2 * 2)
    assert torch.allclose(scores.flatten(1), torch.cat(each, 1))
    # Shared: no more weights than for one scale.
    single = PatchDiscriminator(DiscriminatorConfig(filters=4, layers=2, norm="none"))
    assert sum(w.numel() for w in net.parameters()) == sum(w.numel() for w in single.parameters())


def test_dilation_sees_further_with_as_many_weights():
    config = dict(filters=2, layers=3, norm="spectral")
    plain, dilated = (PatchDiscriminator(DiscriminatorConfig(**config, dilated=wide)) for wide in (False, True))
    shapes = [[tuple(w.shape) for w in net.parameters()] for net in (plain, dilated)]
    assert shapes[0] == shapes[1]
    dilated = dilated.double()
    image = torch.randn(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    scores = dilated(image)
    assert scores.shape == (1, 1, 29, 29)  # 32 left by the strides, less 2 for the dilated kernel and 1 for the last
    scores[0, 0, 14, 14].backward()
    seen = image.grad[0].abs().sum(0) > 0
    # By hand: 22 pixels of three strided layers, then 8 apart a kernel of 4 dilated to 7 (+48) and one of 4 (+24). As
    # the dilated one has gaps, there are rows in which no score looks: the span counts.
    rows = seen.any(1).nonzero()
    assert rows.max() - rows.min() + 1 == 22 + 48 + 24


@pytest.mark.parametrize("size", [48, 64, 96, 128])
def test_a_coarse_discriminator_judges_once_per_8_by_8_pixels(size):
    net = PatchDiscriminator(DiscriminatorConfig(filters=2, layers=3, coarse=True, norm="batch"))
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 1, size // 8, size // 8)
    assert net(torch.zeros(2, 3, size, 2 * size)).shape == (2, 1, size // 8, size // 4)


def test_a_sigmoid_keeps_scores_between_0_and_1():
    net = PatchDiscriminator(DiscriminatorConfig(filters=4, sigmoid=True))
    x = torch.randn(2, 3, 32, 32)
    bias = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1].bias
    with torch.no_grad():
        assert (net(x) - 0.5).abs().max() < 0.4  # undecided at the start
        bias.fill_(4)
        assert 0.9 < net(x).min() and net(x).max() < 1
        bias.fill_(-4)
        assert 0 < net(x).min() and net(x).max() < 0.1


def test_batch_norm_is_over_the_batch_and_not_on_the_first_layer():
    net = PatchDiscriminator(DiscriminatorConfig(filters=4, layers=2, norm="batch"))
    activations = []
    for layer in net.modules():
        if isinstance(layer, nn.LeakyReLU):
            layer.register_forward_pre_hook(lambda _, inputs: activations.append(inputs[0].detach().clone()))
    x = torch.randn(4, 3, 32, 32) + torch.tensor([-3.0, -1.0, 1.0, 3.0])[:, None, None, None]
    net(x)
    first, *others = activations
    assert len(others) == 2 and first.mean((0, 2, 3)).abs().max() > 1e-3
    for values in others:
        assert values.mean((0, 2, 3)).abs().max() < 1e-3
        assert values.mean((2, 3)).abs().max() > 0.05  # single images keep what makes them differ


def test_grey_images():
    net = PatchDiscriminator(DiscriminatorConfig(filters=2, channels=1))
    assert net(torch.zeros(2, 1, 32, 32)).shape == (2, 1, 2, 2)
