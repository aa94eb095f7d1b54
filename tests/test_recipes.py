"""`train.recipes`: what each recipe reproduces, and that each runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from train_fixtures import ABOUT, one_thread, write_domains  # noqa: F401

from cyclegan.model import CycleGAN
from cyclegan.networks import Generator, SwitchableNorm, count_macs
from train import schedule
from train.discriminators import PatchDiscriminator
from train.loop import fit
from train.recipes import RECIPES, recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_name_of_the_guide_is_there():
    assert set(RECIPES) == {
        "face", "student", "paper", "any-two-folders", "glasses-v1", "glasses-v2", "face2anime-1", "face2anime-2",
        "selfie2anime", "utk-age", "utk-gender", "utk-ethnicity",
    }  # fmt: skip


def test_paper():
    """Zhu et al. 2017, 4, 7.1 and 7.2."""
    config = recipe("paper")
    assert (config.generator.filters, config.generator.blocks, config.image_size) == (64, 9, 256)
    assert (config.epochs, config.batch, config.lr, config.buffer) == (200, 1, 2e-4, 50)
    assert (config.cycle, config.identity, config.identity_end) == (10, 5, 5)
    assert schedule.learning_rate(config, 0.5) == 2e-4 and schedule.learning_rate(config, 0.75) == 1e-4
    assert recipe("any-two-folders") == config


def test_glasses_v1():
    config = recipe("glasses-v1")
    assert config.generator.upsample == "nearest" and config.discriminator.sigmoid
    assert config.discriminator_steps > 1 and config.adversarial == "squared"
    assert config.identity_chance == 0.1  # and the cycle loss in the other nine steps of ten
    layers = 3
    frozen = [schedule.frozen_layers(config, at, layers) for at in np.linspace(0, 0.99, 100)]
    assert frozen[0] == layers and frozen[49] == 0 and frozen[50] == layers and frozen[-1] == 0  # then again


def test_glasses_v2():
    config = recipe("glasses-v2")
    generator = Generator(config.generator)
    assert any(isinstance(layer, SwitchableNorm) for layer in generator.body.modules())
    assert any(isinstance(layer, SwitchableNorm) for layer in generator.up.modules())
    assert any(isinstance(layer, torch.nn.Dropout) for layer in generator.modules())
    assert (config.discriminator.scales, config.optimizer) == (3, "rmsprop")


def test_face2anime():
    one, two = recipe("face2anime-1"), recipe("face2anime-2")
    assert (one.image_size, one.batch, one.buffer, one.lr, one.flip) == (128, 1, 50, 2e-4, True)
    assert (two.image_size, two.batch, two.buffer, two.lr, two.flip) == (128, 4, 0, 2e-4, True)


def test_selfie2anime():
    config = recipe("selfie2anime")
    assert (config.image_size, config.generator.blocks, config.epochs, config.cycle) == (256, 9, 5, 10)
    assert (config.precision, config.lr, config.betas) == ("float16", 1e-4, (0.55, 0.999))
    assert PatchDiscriminator(config.discriminator)(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize("name", ["utk-age", "utk-gender", "utk-ethnicity"])
def test_utk(name):
    config = recipe(name)
    assert (config.generator.kernel, config.generator.blocks) == (9, 5)  # Johnson et al. 2016
    assert config.adversarial == "absolute" and config.alternate and config.discriminator.norm == "batch"
    assert PatchDiscriminator(config.discriminator)(torch.zeros(2, 3, 64, 96)).shape == (2, 1, 8, 12)
    sizes = [schedule.image_size(config, (epoch + 0.5) / config.epochs) for epoch in range(int(config.epochs))]
    assert {size: sizes.count(size) for size in (48, 64, 96, 128, 256)} == {48: 15, 64: 25, 96: 30, 128: 20, 256: 20}


@pytest.mark.parametrize("name", ["face", "student"])
def test_models_for_the_page_are_light_enough_to_be_served_live(name, tmp_path):
    config = recipe(name)
    assert count_macs(config.generator, config.image_size, config.image_size) <= 3e9
    weights = 2 * 2 * sum(weight.numel() for weight in Generator(config.generator).parameters())  # two, in float16
    assert weights < 10e6


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"any-two-folders", "utk-age", "utk-ethnicity"}))
def test_every_recipe_trains(name, tmp_path):
    """With its own losses, optimiser and schedules; smaller and shorter."""
    config = recipe(name)
    size = max(16, config.discriminator.smallest + 8)
    small = replace(
        config,
        generator=replace(config.generator, filters=2, blocks=1),
        discriminator=replace(config.discriminator, filters=2),
        stages=((size, 0.0), (size + 16, 0.5)) if len(config.stages) > 1 else ((size + 8 - size % 8, 0.0),),
        pairs=4 * config.batch,
        epochs=None,
        compile=False,
        distill=0.0,
        log_every=config.batch,
        save_every=2 * config.batch,
    )
    fit(small, write_domains(tmp_path, 12, side=size + 16), tmp_path / "run", tmp_path / "model", ABOUT)
    assert CycleGAN.from_pretrained(tmp_path / "model").config.training["pairs"] == small.pairs
