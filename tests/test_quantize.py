"""Rounding to 8 bits: by hand for one layer, and as a whole network on the engine that computes in integers."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import make_config, make_model, texture
from torch import nn

from cyclegan.images import psnr, to_images, to_tensor
from cyclegan.model import CycleGAN, ModelConfig
from cyclegan.networks import Generator, GeneratorConfig
from cyclegan.quantize import calibrate, quantized
from cyclegan.runtime import available_precision, make_engine

CONFIG = GeneratorConfig(filters=8, blocks=2, mask=True, skip=True)
PICTURES = np.stack([np.rint(np.roll(texture(48, 48), 5 * i, 1)).astype(np.uint8) for i in range(4)])


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(CONFIG).eval().requires_grad_(False)
    generator.head[0].weight.mul_(10)
    return generator


def calibrated(generator: Generator) -> dict:
    return calibrate(generator, to_tensor(PICTURES).split(1))


def painted(network: nn.Module) -> np.ndarray:
    return to_images(network(to_tensor(PICTURES)))


def test_one_layer_by_hand():
    layer = nn.Conv2d(1, 2, 1, bias=True)
    layer.weight.data = torch.tensor([1.27, -0.5]).reshape(2, 1, 1, 1)
    layer.bias.data = torch.tensor([0.0, 1.0])
    x = torch.tensor([0.0, 0.304, 0.306, 2.55, 9.0]).reshape(1, 1, 1, 5)
    y = quantized(nn.Sequential(layer), {"0": (0.0, 2.55)})(x)  # a step of the input is 0.01, and 2.55 the most
    rounded = torch.tensor([0.0, 0.30, 0.31, 2.55, 2.55])
    assert torch.allclose(y[0, 0, 0], 1.27 * rounded, atol=1e-5)
    assert torch.allclose(y[0, 1, 0], 1 - 0.5 * rounded, atol=1e-5)


def test_values_below_zero_get_half_of_the_levels():
    layer = nn.Conv2d(1, 1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    y = quantized(nn.Sequential(layer), {"0": (-1.27, 0.5)})(
        torch.tensor([-2.0, -1.27, 0.014, 1.0]).reshape(1, 1, 2, 2)
    )
    assert torch.allclose(y.flatten(), torch.tensor([-1.28, -1.27, 0.01, 1.0]), atol=1e-5)


def test_a_calibration_spans_what_each_layer_sees(generator):
    ranges = calibrated(generator)
    assert ranges["stem.1"] == pytest.approx(
        (to_tensor(PICTURES).min().item(), to_tensor(PICTURES).max().item()), abs=0.1
    )
    assert all(low == 0 < high for name, (low, high) in ranges.items() if name.startswith(("down", "head")))
    assert ranges["body.1.layers.0"][0] < 0  # sums with negative parts
    assert calibrated(generator) == ranges


def test_a_rounded_network_paints_nearly_the_same(generator):
    rounded = quantized(generator, calibrated(generator))
    assert 30 < psnr(painted(rounded), painted(generator)) < 70


def test_the_calibration_of_another_network_is_refused(generator):
    ranges = calibrated(generator)
    with pytest.raises(ValueError, match="another network"):
        quantized(Generator(replace(CONFIG, blocks=3)), ranges)


@pytest.mark.skipif(available_precision("int8") == "f32", reason="needs a processor with int8")
def test_the_engine_paints_what_the_rounded_network_paints(generator):
    ranges = calibrated(generator)
    engine = make_engine(generator, 48, precision="int8", calibration=ranges)
    assert engine.precision == "int8"
    exact, rounded, images = painted(generator), painted(quantized(generator, ranges)), engine(PICTURES)
    assert psnr(rounded, exact) - 3 < psnr(images, exact) < 70
    assert psnr(images, rounded) > 30
    with pytest.raises(ValueError, match="calibration"):
        make_engine(generator, 48, precision="int8")


@pytest.fixture(scope="module")
def model() -> CycleGAN:
    model = make_model(make_config("small"))
    calibration = {way: calibrated(model.generator(way)) for way in ("A2B", "B2A")}
    model.config = replace(model.config, precision="int8", calibration=calibration)
    return model


def test_a_model_keeps_its_calibration(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert CycleGAN.from_pretrained(tmp_path).config == model.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {}, "both directions"),
        (lambda c: {"A2B": c["A2B"]}, "both directions"),
        (lambda c: c | {"A2B": {"stem.1": [0, 1]}}, "another network"),
        (lambda c: c | {"A2B": c["A2B"] | {"stem.1": [1, 0]}}, "least and a greatest"),
        (lambda c: c | {"A2B": c["A2B"] | {"stem.1": [0, math.inf]}}, "least and a greatest"),
        (lambda c: c | {"A2B": c["A2B"] | {"stem.1": [0, math.nan]}}, "least and a greatest"),
        (lambda c: c | {"A2B": c["A2B"] | {"stem.1": [0, 1, 2]}}, "unpack"),
        (lambda c: c | {"A2B": c["A2B"] | {"stem.1": "01x"}}, "unpack"),
        (lambda c: [1], "not a model config"),
    ],
)
def test_impossible_calibrations_are_refused(model, change, message):
    data = json.loads(json.dumps(model.config.to_json()))
    data["calibration"] = change(data["calibration"])
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_json(data)
