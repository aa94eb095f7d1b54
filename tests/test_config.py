"""`train.config` and `train.recipes`: settings are checked when they are made, and recipes are what they say."""

import dataclasses
import json

import pytest
import torch
from train_fixtures import one_thread, tiny_config  # noqa: F401

from cyclegan.networks import Generator, GeneratorConfig
from train import recipes
from train.config import DiscriminatorConfig, TrainConfig
from train.discriminators import PatchDiscriminator
from train.errors import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")

STAGES = "Stages must grow in size, and begin at 0 and below 1 in rising order."
SIZES = "Image sizes must be divisible by 4 and from 16 to 1024."
POSITIVE = "Batch, pairs, hours, lr, log_every and save_every must be positive."
NEGATIVE = "Weights, buffer, ema_halflife and validation must not be negative."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ()}, "A training needs at least one stage."),
        ({"stages": ((64, 0.0), (32, 0.5))}, STAGES),
        ({"stages": ((32, 0.1),)}, STAGES),
        ({"stages": ((32, 0.0), (64, 0.6), (128, 0.3))}, STAGES),
        ({"stages": ((32, 0.0), (64, 1.0))}, STAGES),
        ({"stages": ((30, 0.0),)}, SIZES),
        ({"stages": ((12, 0.0),)}, SIZES),
        ({"stages": ((2048, 0.0),)}, SIZES),
        ({"batch": 0}, POSITIVE),
        ({"pairs": 0}, POSITIVE),
        ({"hours": 0.0}, POSITIVE),
        ({"lr": 0.0}, POSITIVE),
        ({"log_every": 0}, POSITIVE),
        ({"save_every": -1}, POSITIVE),
        ({"cycle": -1.0}, NEGATIVE),
        ({"identity_end": -1.0}, NEGATIVE),
        ({"buffer": -1}, NEGATIVE),
        ({"validation": -1}, NEGATIVE),
        ({"decay_from": 1.0}, "decay_from must lie in [0, 1)."),
        ({"decay_from": -0.1}, "decay_from must lie in [0, 1)."),
        ({"precision": "float16"}, 'Precision must be "float32" or "bfloat16", not "float16".'),
        (
            {"discriminator": DiscriminatorConfig(layers=3), "stages": ((20, 0.0),)},
            "A discriminator with 3 strided layers needs images of at least 24 pixels, not 20.",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_sentence(changes, message):
    with pytest.raises(TrainingError) as caught:
        tiny_config(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "batch"}, 'Discriminator norm must be "instance" or "spectral", not "batch".'),
        ({"layers": 0}, "A discriminator needs at least 1 filter and 1 strided layer."),
        ({"filters": 0}, "A discriminator needs at least 1 filter and 1 strided layer."),
    ],
)
def test_discriminator_settings_are_checked(settings, message):
    with pytest.raises(TrainingError) as caught:
        DiscriminatorConfig(**settings)
    assert str(caught.value) == message


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_smallest_image_a_discriminator_is_said_to_need_is_the_smallest_it_can_judge(layers):
    discriminator = DiscriminatorConfig(filters=2, layers=layers, norm="spectral")
    fits = [size for size in range(16, 65, 4) if _accepted(discriminator, size)]
    net = PatchDiscriminator(discriminator)
    assert net(torch.zeros(1, 3, fits[0], fits[0])).numel() >= 1
    for size in set(range(16, 65, 4)) - set(fits):
        with pytest.raises(RuntimeError):
            net(torch.zeros(1, 3, size, size))


def _accepted(discriminator: DiscriminatorConfig, size: int) -> bool:
    try:
        tiny_config(discriminator=discriminator, stages=((size, 0.0),))
    except TrainingError:
        return False
    return True


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config().batch = 3


def test_the_last_stage_is_the_size_served():
    assert tiny_config(stages=((16, 0.0), (64, 0.3))).image_size == 64


def test_json_holds_every_setting_as_plain_values():
    config = tiny_config(hours=1.5)
    plain = config.to_json()
    assert plain == json.loads(json.dumps(plain))
    assert set(plain) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert plain["hours"] == 1.5 and plain["stages"] == [[16, 0.0]] and plain["generator"]["filters"] == 4


def test_the_paper_s_recipe_is_the_paper():
    paper = recipes.recipe("paper")
    assert paper.generator == GeneratorConfig(filters=64, blocks=9, stem=1, upsample="transposed")
    assert paper.discriminator == DiscriminatorConfig(filters=64, layers=3, norm="instance")
    assert paper.stages == ((256, 0.0),)
    assert (paper.batch, paper.lr, paper.betas) == (1, 2e-4, (0.5, 0.999))
    assert (paper.cycle, paper.identity, paper.identity_end, paper.buffer) == (10, 5, 5, 50)
    assert paper.decay_from == 0.5
    # The snapshot is the last weights, in the paper's precision.
    assert (paper.ema_halflife, paper.precision) == (0, "float32")
    assert paper.pairs == 200 * 1000


def test_the_default_recipe_exists():
    assert recipes.recipe(recipes.DEFAULT) is recipes.RECIPES["face"]


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(TrainingError) as caught:
        recipes.recipe("pepper")
    assert str(caught.value) == 'There is no recipe "pepper". Known recipes: face, paper.'


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_s_networks_fit_its_sizes_and_its_models_stay_under_10_megabytes(name):
    config = recipes.RECIPES[name]
    with torch.device("meta"):
        generator = Generator(config.generator)
        for size, _ in config.stages:
            x = torch.zeros(1, 3, size, size)
            assert generator(x).shape == x.shape
    if name != "paper":  # whose networks are what they are
        assert 2 * 2 * sum(weight.numel() for weight in generator.parameters()) < 10_000_000
