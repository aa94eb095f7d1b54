"""The generators: the paper's network layer by layer, and what every variant owes its caller."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from helpers import blend
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cyclegan.networks import Generator, GeneratorConfig, InstanceNorm, SwitchableNorm, count_macs, count_parameters

PAPER = GeneratorConfig(filters=64, blocks=9, upsample="transposed")
TINY = GeneratorConfig(filters=4, blocks=1)
VARIANTS = {
    f"stem{stem}-{upsample}{'-separable' * separable}{'-mask' * mask}": replace(
        TINY, stem=stem, upsample=upsample, separable=separable, mask=mask
    )
    for stem, upsample, separable, mask in product((1, 2, 4), ("nearest", "transposed"), (False, True), (False, True))
}
UNSHUFFLED = [
    replace(TINY, unshuffle=factor, stem=stem, mask=mask)
    for factor, stem, mask in ((2, 1, False), (2, 2, True), (4, 1, True))
]
UNSHUFFLED.append(replace(UNSHUFFLED[-1], skip=True))
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def on_paper(config: GeneratorConfig) -> Generator:
    """The network without the memory for its weights."""
    with torch.device("meta"):
        return Generator(config)


def convolutions(generator: Generator) -> list[tuple[str, int, int, int, int]]:
    return [
        (type(m).__name__, m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
        for m in generator.modules()
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
    ]


@pytest.mark.parametrize("blocks", [6, 9])
def test_the_papers_network_layer_by_layer(blocks):
    # Appendix 7.2: c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3
    assert convolutions(on_paper(replace(PAPER, blocks=blocks))) == [
        ("Conv2d", 3, 64, 7, 1),
        ("Conv2d", 64, 128, 3, 2),
        ("Conv2d", 128, 256, 3, 2),
        *[("Conv2d", 256, 256, 3, 1)] * 2 * blocks,
        ("ConvTranspose2d", 256, 128, 3, 2),
        ("ConvTranspose2d", 128, 64, 3, 2),
        ("Conv2d", 64, 3, 7, 1),
    ]


def test_parameter_counts_of_the_paper():
    # 11.378 M and 7.838 M are what the authors' code prints.
    assert count_parameters(on_paper(PAPER)) == 11_378_179
    assert count_parameters(on_paper(replace(PAPER, blocks=6))) == 7_837_699


def test_upsampling_by_convolution_costs_no_more_weights():
    nearest = on_paper(replace(PAPER, upsample="nearest"))
    assert [row[0] for row in convolutions(nearest)] == ["Conv2d"] * 24
    assert count_parameters(nearest) == 11_378_179


def test_every_layer_but_the_last_is_normed():
    generator = on_paper(PAPER)
    norms = [name for name, m in generator.named_modules() if isinstance(m, InstanceNorm)]
    assert len(norms) == len(convolutions(generator)) - 1
    assert not any(name.startswith("head") for name in norms)


def test_separable_blocks_are_depthwise_then_pointwise():
    block = on_paper(replace(PAPER, separable=True)).body[0]
    assert [(m.kernel_size, m.groups) for m in block.modules() if isinstance(m, nn.Conv2d)] == [
        ((3, 3), 256),
        ((1, 1), 1),
    ] * 2
    # 256 x 9 + 256 for the depthwise, 256 x 256 + 256 for the pointwise, twice
    assert count_parameters(block) == 2 * (256 * 9 + 256 + 256 * 256 + 256)


@pytest.mark.parametrize("stem", [1, 2, 4])
def test_the_stem_leaves_the_blocks_their_size(stem):
    generator = Generator(replace(TINY, stem=stem))
    seen = []
    generator.body[0].register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    generator(torch.zeros(1, 3, 32, 48))
    assert seen == [(1, 16, 8, 12)]
    assert sum(row[4] == 2 for row in convolutions(generator)) == {1: 2, 2: 1, 4: 0}[stem]


@every_variant
@settings(max_examples=5, deadline=None)
@given(st.integers(4, 12), st.integers(4, 12), st.integers(1, 2))
def test_any_size_divisible_by_4_keeps_its_shape_and_range(config, rows, columns, batch):
    generator = Generator(config)
    with torch.no_grad():
        generator.head[0].weight.mul_(1e4)  # far past the range, were it not limited
        x = torch.rand(batch, 3, 4 * rows, 4 * columns) * 2 - 1
        y = generator(x)
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert y.abs().max() <= 1
    assert y.std() > 0.1


@pytest.mark.parametrize("height, width", [(18, 20), (20, 18), (12, 16), (16, 8), (65, 64), (0, 16)])
@pytest.mark.parametrize("stem", [1, 4])
def test_other_sizes_are_refused(height, width, stem):
    with pytest.raises(ValueError) as caught:
        Generator(replace(TINY, stem=stem))(torch.zeros(1, 3, height, width))
    expected = f"Image height and width must be divisible by 4 and at least 16, not {height} x {width}."
    assert str(caught.value) == expected


@pytest.mark.parametrize("config", [VARIANTS["stem1-nearest"], VARIANTS["stem4-transposed-separable-mask"]])
def test_weights_start_as_in_the_paper(config):
    generator = Generator(replace(config, filters=16, blocks=2))
    weights = [m.weight for m in generator.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    biases = [m.bias for m in generator.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert sum(w.numel() for w in weights) + sum(b.numel() for b in biases) == count_parameters(generator)
    for weight in weights:
        # Five standard errors of the estimates from this many draws.
        count = weight.numel()
        assert abs(weight.mean().item()) < 5 * 0.02 / count**0.5
        assert abs(weight.std().item() - 0.02) < 5 * 0.02 / (2 * count) ** 0.5
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize("stem", [1, 2, 4])
def test_borders_are_reflected(stem):
    # A flat picture has no border when reflected; with zeros around it, the edges would come out different.
    y = Generator(replace(TINY, stem=stem)).eval()(torch.full((1, 3, 32, 32), 0.7))
    assert y.abs().max() < 1e-5


@every_variant
def test_pictures_of_a_batch_do_not_touch_each_other(config):
    generator = Generator(config)
    x = torch.rand(3, 3, 16, 24) * 2 - 1
    apart = torch.cat([generator(one[None]) for one in x])
    assert torch.allclose(generator(x), apart, atol=1e-5)


@pytest.mark.parametrize("stem", [1, 2, 4])
def test_a_mask_of_zero_returns_the_input(stem):
    generator = Generator(replace(TINY, stem=stem, mask=True))
    blend(generator, alpha=0)
    x = torch.rand(2, 3, 20, 32) * 2 - 1
    assert torch.equal(generator(x), x)


def test_the_mask_blends_the_paint_over_the_input():
    generator = Generator(replace(TINY, mask=True))
    with torch.no_grad():
        generator.head[0].weight.mul_(50)
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    rgb, alpha = generator.paint(x)
    assert rgb.shape == (1, 3, 16, 16) and alpha.shape == (1, 1, 16, 16)
    assert 0 <= alpha.min() < alpha.max() <= 1
    assert torch.allclose(generator(x), (1 - alpha) * x + alpha * rgb, atol=1e-6)


@pytest.mark.parametrize("config", UNSHUFFLED, ids=str)
def test_an_unshuffled_network_starts_with_smooth_paint_and_learns_every_pixel(config):
    generator = Generator(config)
    x = torch.rand(2, 3, 16 * config.unshuffle, 24 * config.unshuffle) * 2 - 1
    rgb, alpha = generator.paint(x)
    assert rgb.shape == x.shape and (alpha is None or alpha.shape == x[:, :1].shape)
    coarse = F.avg_pool2d(torch.atanh(rgb), config.unshuffle)
    enlarged = F.interpolate(coarse, scale_factor=config.unshuffle, mode="bilinear", align_corners=False)
    inside = (..., slice(4, -4), slice(4, -4))
    assert (torch.atanh(rgb) - enlarged)[inside].abs().mean() < 0.4 * (coarse - coarse.mean()).abs().mean()
    generator.requires_grad_(True)
    wanted = torch.tensor([0.1, -0.1]).repeat(12 * config.unshuffle).expand_as(x)  # stripes of one pixel
    optimizer = torch.optim.Adam(generator.parameters(), 1e-2)
    for _ in range(60):
        loss = (generator.paint(x)[0] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * wanted.square().mean()


@pytest.mark.parametrize("config", UNSHUFFLED, ids=str)
def test_an_unshuffled_network_sees_every_pixel(config):
    generator = Generator(config)
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    generator.paint(x)[0].square().sum().backward()
    assert (x.grad != 0).all()


def test_an_unshuffled_network_costs_little_more_than_one_for_images_so_much_smaller():
    small = GeneratorConfig(filters=24, blocks=6, mask=True)
    folded, full = count_macs(replace(small, unshuffle=2), 128, 128), count_macs(small, 128, 128)
    assert count_macs(small, 64, 64) < folded < 1.5 * count_macs(small, 64, 64) < 0.4 * full


@pytest.mark.parametrize("config", [TINY, replace(TINY, stem=2), replace(TINY, unshuffle=2)], ids=str)
def test_with_a_skip_the_paint_follows_the_input_where_it_stands(config):
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    marked = x.clone()
    marked[..., 32:34, 32:34] *= -1
    for skip in (True, False):
        generator = Generator(replace(config, skip=skip))
        with torch.no_grad():  # what was decoded says nothing
            for layer in generator.body[0], generator.up:
                for weight in layer.parameters():
                    weight.zero_()
            generator.head[0].weight.normal_()
            moved = (generator.paint(marked)[0] - generator.paint(x)[0]).abs().amax((0, 1))
        if skip:
            assert moved[32:34, 32:34].min() > 0 and moved[:8].max() == 0 and moved[-8:].max() == 0
        else:
            assert moved.max() == 0


@pytest.mark.parametrize("pool", [2, 8, 16])
@pytest.mark.parametrize("unshuffle", [1, 2])
def test_a_pooled_skip_shows_colours_and_no_lines(pool, unshuffle):
    generator = Generator(replace(TINY, skip=True, skip_pool=pool, unshuffle=unshuffle))
    with torch.no_grad():  # what was decoded says nothing
        for layer in generator.body[0], generator.up:
            for weight in layer.parameters():
                weight.zero_()
        generator.head[0].weight.normal_()
    x = torch.rand(1, 3, 64, 128) - 0.5
    stripes = torch.tensor([0.4, -0.4]).repeat(64).expand_as(x)
    warmer = x + torch.tensor([0.3, 0.0, -0.3])[:, None, None]
    plain, striped, warmed = (generator.paint(image)[0] for image in (x, x + stripes, warmer))
    assert torch.allclose(plain, striped, atol=1e-5)
    assert (warmed - plain).abs().amax(1).min() > 0  # everywhere


def test_a_pooled_skip_needs_images_of_whole_squares():
    generator = Generator(replace(TINY, skip=True, skip_pool=16))
    assert generator(torch.zeros(1, 3, 64, 80)).shape == (1, 3, 64, 80)
    with pytest.raises(ValueError, match="divisible by 16 and at least 64, not 64 x 72"):
        generator(torch.zeros(1, 3, 64, 72))


@pytest.mark.parametrize("reduce", [2, 4])
def test_a_reduced_network_paints_what_the_small_one_would_and_keeps_the_detail(reduce):
    small = Generator(replace(TINY, mask=True))
    with torch.no_grad():
        small.head[0].weight.mul_(10)
    large = Generator(replace(TINY, mask=True, reduce=reduce))
    large.load_state_dict(small.state_dict())
    x = torch.linspace(-0.5, 0.5, 24 * reduce).expand(1, 3, 16 * reduce, -1)
    rgb, alpha = large.paint(x)
    assert rgb.shape == x.shape and alpha.shape == (1, 1, 16 * reduce, 24 * reduce)
    for painted, wanted in zip((rgb, alpha), small.paint(F.avg_pool2d(x, reduce)), strict=True):
        apart = (F.avg_pool2d(painted, reduce) - wanted)[..., 1:-1, 1:-1].abs().mean()
        assert apart < 0.3 * (wanted - wanted.mean()).abs().mean()
    stripes = torch.tensor([0.1, -0.1]).repeat(12 * reduce).expand_as(x)  # finer than the network sees
    assert (large(x + stripes) - large(x) - stripes).abs().median() < 1e-5  # but where black or white is reached
    blend(large, alpha=0)
    assert torch.equal(large(x), x)


def test_without_its_detail_only_what_the_mask_leaves_stays():
    generator = Generator(replace(TINY, mask=True, reduce=2, detail=False))
    x = torch.linspace(-0.5, 0.5, 48).expand(1, 3, 32, -1)
    stripes = torch.tensor([0.1, -0.1]).repeat(24).expand_as(x)
    for alpha, left in ((0, 1.0), (0.9, 0.1), (0.25, 0.75)):
        blend(generator, alpha=alpha)
        assert torch.allclose(generator(x + stripes) - generator(x), left * stripes, atol=1e-5)


def test_a_reduced_network_costs_what_the_small_one_costs():
    assert count_macs(replace(TINY, reduce=2), 64, 64) == count_macs(TINY, 32, 32)


@pytest.mark.parametrize("height, width", [(64, 36), (36, 64), (32, 16)])
def test_a_reduced_or_unshuffled_network_needs_larger_images(height, width):
    for changes in ({"reduce": 2}, {"unshuffle": 2}):
        with pytest.raises(ValueError, match=r"divisible by 8 and at least 32, not"):
            Generator(replace(TINY, **changes))(torch.zeros(1, 3, height, width))


def test_without_a_mask_the_paint_is_the_output():
    generator = Generator(TINY)
    x = torch.rand(1, 3, 16, 16)
    rgb, alpha = generator.paint(x)
    assert alpha is None
    assert torch.equal(generator(x), rgb)


def test_half_precision_layers_still_give_float32_colours():
    y = Generator(replace(TINY, mask=True)).bfloat16()(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16))
    assert y.dtype == torch.float32


# Multiply-accumulates by hand: kernel area x channels in x channels out x places, for 2 filters, 1 block, 16 x 32.
FULL, HALF, QUARTER = 16 * 32, 8 * 16, 4 * 8
STEM1 = 49 * 3 * 2 * FULL + 9 * 2 * 4 * HALF + 9 * 4 * 8 * QUARTER
BLOCK = 2 * 9 * 8 * 8 * QUARTER
HEAD1 = 49 * 2 * 3 * FULL


@pytest.mark.parametrize(
    "changes, macs",
    [
        ({}, STEM1 + BLOCK + 9 * 8 * 4 * HALF + 9 * 4 * 2 * FULL + HEAD1),
        # A transposed convolution works at the size of its input.
        ({"upsample": "transposed"}, STEM1 + BLOCK + 9 * 8 * 4 * QUARTER + 9 * 4 * 2 * HALF + HEAD1),
        ({"separable": True}, STEM1 + 2 * (9 * 8 + 8 * 8) * QUARTER + 9 * 8 * 4 * HALF + 9 * 4 * 2 * FULL + HEAD1),
        ({"stem": 2}, 25 * 12 * 4 * HALF + 9 * 4 * 8 * QUARTER + BLOCK + 9 * 8 * 4 * HALF + 25 * 4 * 12 * HALF),
        ({"stem": 4}, 9 * 48 * 8 * QUARTER + BLOCK + 9 * 8 * 48 * QUARTER),
        ({"stem": 4, "mask": True}, 9 * 48 * 8 * QUARTER + BLOCK + 9 * 8 * 64 * QUARTER),
    ],
    ids=str,
)
def test_macs_by_hand(changes, macs):
    assert count_macs(GeneratorConfig(filters=2, blocks=1, **changes), 16, 32) == macs


def test_macs_of_the_paper():
    assert round(count_macs(PAPER, 256, 256) / 1e9, 1) == 49.6


@pytest.mark.parametrize("offset, spread", [(0, 1), (300, 0.5), (-5, 1e-4)])
def test_instance_norm_equals_pytorchs(offset, spread):
    x = offset + spread * torch.randn(3, 5, 16, 20)
    theirs = nn.functional.instance_norm(x.double(), eps=1e-5).float()
    assert torch.allclose(
        InstanceNorm()(x), theirs, atol=2e-3 if offset else 1e-5
    )  # float32 holds few digits beside an offset


def test_instance_norm_keeps_its_statistics_in_float32():
    x = 40 + 4 * torch.randn(1, 2, 64, 64)
    y = InstanceNorm()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    exact = nn.functional.instance_norm(x.bfloat16().float())
    assert (y.float() - exact).abs().max() < 0.02  # the rounding of the result alone


_WHOLE = "filters, blocks, stem, kernel, channels, unshuffle, skip_pool and reduce must be whole numbers."


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"filters": 0}, "filters and channels must be at least 1, blocks at least 0."),
        ({"blocks": -1}, "filters and channels must be at least 1, blocks at least 0."),
        ({"channels": 0}, "filters and channels must be at least 1, blocks at least 0."),
        ({"stem": 3}, "stem must be 1, 2 or 4, not 3."),
        ({"upsample": "bicubic"}, 'upsample must be "nearest" or "transposed", not \'bicubic\'.'),
        ({"reduce": 3}, "reduce must be 1, 2 or 4, not 3."),
        ({"unshuffle": 3}, "unshuffle must be 1, 2 or 4, not 3."),
        ({"unshuffle": 2.0}, _WHOLE),
        ({"kernel": 7.0}, _WHOLE),
        ({"filters": 64.0}, _WHOLE),
        ({"blocks": "9"}, _WHOLE),
        ({"skip": 1}, "skip must be true or false."),
        ({"skip": True, "skip_pool": 3}, "skip_pool must be 1, 2, 4, 8 or 16, and 1 without skip, not 3."),
        ({"skip": True, "skip_pool": 32}, "skip_pool must be 1, 2, 4, 8 or 16, and 1 without skip, not 32."),
        ({"skip_pool": 2}, "skip_pool must be 1, 2, 4, 8 or 16, and 1 without skip, not 2."),
        ({"skip": True, "skip_pool": True}, _WHOLE),
        ({"detail": False}, "detail must be true or, for a generator with a mask, false."),
        ({"detail": 0, "mask": True}, "detail must be true or, for a generator with a mask, false."),
        ({"kernel": 8}, "kernel must be 3, 5, 7 or 9, not 8."),
        ({"norm": "batch"}, 'norm must be "instance" or "switchable", not \'batch\'.'),
        ({"dropout": 1.0}, "dropout must lie in [0, 1), not 1.0."),
        ({"dropout": -0.1}, "dropout must lie in [0, 1), not -0.1."),
        ({"stem": True}, _WHOLE),
    ],
    ids=str,
)
def test_impossible_networks_are_refused(changes, message):
    with pytest.raises(ValueError) as caught:
        GeneratorConfig(**changes)
    assert str(caught.value) == message


# Switchable normalisation. ------------------------------------------------------------------------------------------


def switchable_by_hand(x, mean_logits, variance_logits, gain, bias):
    """Luo et al. 2018, eq. 3 to 5, with a batch's own statistics, straight from the definitions."""
    w, v = mean_logits.softmax(0), variance_logits.softmax(0)
    axes = ((2, 3), (1, 2, 3), (0, 2, 3))  # instance, layer, batch
    mean = sum(w[k] * x.mean(axis, keepdim=True) for k, axis in enumerate(axes))
    variance = sum(v[k] * x.var(axis, correction=0, keepdim=True) for k, axis in enumerate(axes))
    return gain * (x - mean) / (variance + 1e-5).sqrt() + bias


@pytest.mark.parametrize("seed", range(3))
def test_switchable_norm_is_the_papers_formula(seed):
    torch.manual_seed(seed)
    norm = SwitchableNorm(5)
    with torch.no_grad():
        for weight in norm.parameters():
            weight.copy_(torch.randn(weight.shape))
    x = 2 + 3 * torch.randn(4, 5, 6, 7)
    expected = switchable_by_hand(x, norm.mean_weight, norm.variance_weight, norm.gain, norm.bias)
    assert torch.allclose(norm(x), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("chosen", "axes"), [(0, (2, 3)), (1, (1, 2, 3)), (2, (0, 2, 3))], ids=["instance", "layer", "batch"]
)
def test_switchable_norm_can_become_each_of_its_three(chosen, axes):
    norm = SwitchableNorm(3)
    with torch.no_grad():
        norm.mean_weight[chosen] = norm.variance_weight[chosen] = 50
    y = norm(5 + torch.randn(2, 3, 8, 8) * torch.tensor([1.0, 2.0, 3.0])[:, None, None])
    assert y.mean(axes).abs().max() < 1e-4
    assert (y.std(axes, correction=0) - 1).abs().max() < 1e-3


def test_switchable_norm_starts_with_equal_shares():
    norm = SwitchableNorm(3)
    x = torch.randn(2, 3, 8, 8)
    third = torch.zeros(3)
    assert torch.allclose(norm(x), switchable_by_hand(x, third, third, 1, 0), atol=1e-5)


def test_after_training_switchable_norm_uses_a_running_average_and_no_other_picture():
    norm = SwitchableNorm(2)
    first, second = 4 + torch.randn(3, 2, 8, 8), -1 + 2 * torch.randn(3, 2, 8, 8)
    norm(first)
    norm(second)
    means = [x.mean((0, 2, 3), keepdim=True) for x in (first, second)]
    variances = [x.var((0, 2, 3), correction=0, keepdim=True) for x in (first, second)]
    # From 0 and 1, a tenth of the way to each batch.
    mean = 0.9 * (0.1 * means[0]) + 0.1 * means[1]
    variance = 0.9 * (0.9 + 0.1 * variances[0]) + 0.1 * variances[1]
    assert torch.allclose(norm.running_mean, mean, atol=1e-5)
    assert torch.allclose(norm.running_variance, variance, atol=1e-4)

    norm.eval()
    x = torch.randn(3, 2, 8, 8)
    assert torch.allclose(norm(x)[:1], norm(x[:1]), atol=1e-6)
    assert torch.allclose(norm.running_mean, mean, atol=1e-5)  # translating leaves it alone
    with torch.no_grad():
        norm.mean_weight[2] = norm.variance_weight[2] = 50  # batch statistics alone
    assert torch.allclose(norm(x), (x - mean) / (variance + 1e-5).sqrt(), atol=1e-4)


def test_switchable_norm_keeps_its_statistics_in_float32():
    x = (40 + 4 * torch.randn(2, 3, 32, 32)).bfloat16()
    norm, third = SwitchableNorm(3), torch.zeros(3)
    y = norm(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - switchable_by_hand(x.float(), third, third, 1, 0)).abs().max() < 0.02


def test_switchable_norm_is_in_residual_blocks_and_decoder_only():
    generator = on_paper(replace(PAPER, blocks=2, norm="switchable"))
    kinds = {SwitchableNorm: [], InstanceNorm: []}
    for name, module in generator.named_modules():
        if type(module) in kinds:
            kinds[type(module)].append(name.split(".")[0])
    assert kinds == {SwitchableNorm: ["body"] * 4 + ["up"] * 2, InstanceNorm: ["stem", "down", "down"]}


# Dropout, kernels, the decoder. -------------------------------------------------------------------------------------


def test_dropout_acts_while_training_and_not_after():
    generator = Generator(replace(TINY, dropout=0.5))
    x = torch.rand(1, 3, 16, 16)
    assert not torch.equal(generator(x), generator(x))
    generator.eval()
    assert torch.equal(generator(x), generator(x))


def test_dropout_is_within_each_residual_block_and_keeps_the_names_of_the_weights():
    """A model is served without the layer, so a file of either kind fits both."""
    dropped, plain = (Generator(replace(TINY, blocks=3, dropout=share)) for share in (0.3, 0.0))
    places = [name for name, module in dropped.named_modules() if isinstance(module, nn.Dropout)]
    assert [name.split(".")[:2] for name in places] == [["body", "0"], ["body", "1"], ["body", "2"]]
    assert not any(isinstance(module, nn.Dropout) for module in plain.modules())


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
def test_the_kernel_of_the_first_and_last_layer(kernel):
    rows = convolutions(on_paper(replace(PAPER, blocks=1, kernel=kernel)))
    assert [row[3] for row in rows] == [kernel, 3, 3, 3, 3, 3, 3, kernel]


def test_the_fast_neural_style_network_layer_by_layer():
    # Johnson et al. 2016, supplementary: 9x9x32, 3x3x64 / 2, 3x3x128 / 2, five blocks of 128, back up, 9x9x3.
    assert convolutions(on_paper(GeneratorConfig(filters=32, blocks=5, kernel=9))) == [
        ("Conv2d", 3, 32, 9, 1),
        ("Conv2d", 32, 64, 3, 2),
        ("Conv2d", 64, 128, 3, 2),
        *[("Conv2d", 128, 128, 3, 1)] * 10,
        ("Conv2d", 128, 64, 3, 1),
        ("Conv2d", 64, 32, 3, 1),
        ("Conv2d", 32, 3, 9, 1),
    ]


def test_with_a_skip_what_joins_it_belongs_to_the_decoder():
    generator = Generator(replace(TINY, skip=True))
    assert generator.decoder_layers() == [*generator.up, generator.join, generator.head]


@pytest.mark.parametrize(("stem", "layers"), [(1, 3), (2, 2), (4, 1)])
def test_the_decoder_is_all_that_comes_after_the_residual_blocks(stem, layers):
    generator = Generator(replace(TINY, stem=stem, norm="switchable"))
    decoder = generator.decoder_layers()
    assert len(decoder) == layers
    x = torch.randn(1, 3, 16, 16)
    y = generator.body(generator.down(generator.stem(x)))
    for layer in decoder:
        y = layer(y)
    assert torch.allclose(torch.tanh(y), generator(x))
    before = {id(w) for part in (generator.stem, generator.down, generator.body) for w in part.parameters()}
    after = {id(w) for layer in decoder for w in layer.parameters()}
    assert after | before == {id(w) for w in generator.parameters()} and not after & before


def test_grey_pictures_in_and_out():
    generator = Generator(replace(TINY, channels=1, mask=True, stem=2))
    rgb, alpha = generator.paint(torch.zeros(2, 1, 16, 20))
    assert rgb.shape == (2, 1, 16, 20) and alpha.shape == (2, 1, 16, 20)
