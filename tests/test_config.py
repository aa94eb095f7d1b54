"""`train.config`: settings are checked when they are made."""

import dataclasses
import json

import pytest
import torch
from train_fixtures import one_thread, tiny_config  # noqa: F401

from cyclegan.networks import GeneratorConfig
from train.config import DiscriminatorConfig, TrainConfig
from train.discriminators import PatchDiscriminator
from train.errors import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")

STAGES = "Stages must grow in size, and begin at 0 and below 1 in rising order."
SIZES = "Image sizes must be divisible by 4 and from 16 to 1024."
POSITIVE = (
    "Batch, accumulate, pairs, lr, lr_ratio, discriminator_steps, enlarge, log_every and save_every must be positive."
)
NEGATIVE = "Weights, noise, buffer, ema_halflife, validation, start_epoch and unfreeze must not be negative."
CHANNELS = "Generators and discriminators must both work on 1 or on 3 channels."


def small(**changes) -> GeneratorConfig:
    return GeneratorConfig(filters=4, blocks=1, **changes)


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
        ({"aspect": 0.05}, "The aspect ratio must lie between 0.1 and 10."),
        ({"stages": ((32, 0.0),), "aspect": 0.3}, SIZES),  # 8 pixels wide
        ({"stages": ((512, 0.0),), "aspect": 3.0}, SIZES),
        ({"batch": 0}, POSITIVE),
        ({"accumulate": 0}, POSITIVE),
        ({"pairs": 0}, POSITIVE),
        ({"lr": 0.0}, POSITIVE),
        ({"lr_ratio": 0.0}, POSITIVE),
        ({"discriminator_steps": 0}, POSITIVE),
        ({"log_every": 0}, POSITIVE),
        ({"save_every": -1}, POSITIVE),
        ({"enlarge": 0.9}, "enlarge must be at least 1."),
        ({"hours": 0.0}, "Hours and epochs must be positive."),
        ({"epochs": -1.0}, "Hours and epochs must be positive."),
        ({"hours": 1.0, "start_epoch": 2.0}, "start_epoch needs a length in epochs or pairs, not in hours."),
        ({"mask_area": 0.2}, "mask_area needs a generator with a mask. Leave out --no-mask, or add --mask-area 0."),
        ({"keep_outside": -0.2}, NEGATIVE),
        (
            {"stages": ((28, 0.0),), "generator": small(reduce=2)},
            "Image sizes must be divisible by 8 (4 x unshuffle 1 x reduce 2) and from 32 to 1024.",
        ),
        (
            {"stages": ((56, 0.0),), "generator": small(unshuffle=2, reduce=2)},
            "Image sizes must be divisible by 16 (4 x unshuffle 2 x reduce 2) and from 64 to 1024.",
        ),
        (
            {"stages": ((64, 0.0),), "generator": small(skip=True, skip_pool=16, reduce=2)},
            "Image sizes must be divisible by 32 (skip_pool 16 x reduce 2) and from 128 to 1024.",
        ),
        ({"batch": 4, "accumulate": 3}, "accumulate must divide the batch."),
        ({"cycle": -1.0}, NEGATIVE),
        ({"identity_end": -1.0}, NEGATIVE),
        ({"r1": -1.0}, NEGATIVE),
        ({"distill": -1.0}, NEGATIVE),
        ({"only": "AB"}, 'only must be "A2B" or "B2A", not "AB".'),
        ({"noise": -0.1}, NEGATIVE),
        ({"buffer": -1}, NEGATIVE),
        ({"validation": -1}, NEGATIVE),
        ({"start_epoch": -1.0}, NEGATIVE),
        ({"unfreeze": -1}, NEGATIVE),
        ({"cycle_size": 3}, "cycle_size must be at least 4 pixels."),
        ({"identity_chance": 1.1}, "identity_chance must lie in [0, 1]."),
        ({"decay_from": 1.1}, "decay_from and augment_from must lie in [0, 1]."),
        ({"decay_from": -0.1}, "decay_from and augment_from must lie in [0, 1]."),
        ({"augment_from": 1.1}, "decay_from and augment_from must lie in [0, 1]."),
        ({"precision": "float8"}, 'Precision must be one of float32, bfloat16, float16, not "float8".'),
        ({"optimizer": "sgd"}, 'The optimizer must be "adam" or "rmsprop", not "sgd".'),
        ({"adversarial": "log"}, 'adversarial must be "squared" or "absolute", not "log".'),
        ({"generator": small(channels=1)}, CHANNELS),
        ({"discriminator": DiscriminatorConfig(layers=2, channels=1)}, CHANNELS),
        ({"generator": small(channels=2), "discriminator": DiscriminatorConfig(layers=2, channels=2)}, CHANNELS),
        (
            {"discriminator": DiscriminatorConfig(layers=3), "stages": ((20, 0.0),)},
            "A discriminator with 3 strided layers and 1 scale(s) needs images of at least 24 pixels, not 20.",
        ),
        (
            {"discriminator": DiscriminatorConfig(layers=2, scales=3), "stages": ((48, 0.0),), "aspect": 0.75},
            "A discriminator with 2 strided layers and 3 scale(s) needs images of at least 48 pixels, not 36.",
        ),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_with_a_sentence(changes, message):
    with pytest.raises(TrainingError) as caught:
        tiny_config(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "changes",
    [
        {"decay_from": 0.0},
        {"decay_from": 1.0},
        {"identity_chance": 0.0},
        {"mask_area": 0.2, "generator": small(mask=True)},
        {"generator": small(channels=1), "discriminator": DiscriminatorConfig(layers=2, channels=1)},
        {"stages": ((32, 0.0),), "aspect": 0.5},
        {"stages": ((64, 0.0),), "generator": small(unshuffle=2, reduce=2)},
    ],
    ids=str,
)
def test_settings_at_the_border_are_accepted(changes):
    for name, value in changes.items():
        assert getattr(tiny_config(**changes), name) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"norm": "layer"},
            'Discriminator norm must be "instance", "spectral", "batch" or "none", not "layer".',
        ),
        *(
            ({name: 0}, "A discriminator needs at least 1 filter, 1 strided layer, 1 scale and 1 channel.")
            for name in ("filters", "layers", "scales", "channels")
        ),
        ({"unshuffle": 3}, "A discriminator's unshuffle must be 1, 2 or 4, not 3."),
    ],
)
def test_discriminator_settings_are_checked(settings, message):
    with pytest.raises(TrainingError) as caught:
        DiscriminatorConfig(**settings)
    assert str(caught.value) == message


@pytest.mark.parametrize("dilated", [False, True])
@pytest.mark.parametrize(("layers", "scales"), [(1, 1), (2, 1), (3, 1), (4, 1), (1, 3), (2, 2)])
def test_the_smallest_image_a_discriminator_is_said_to_need_is_the_smallest_it_can_judge(layers, scales, dilated):
    discriminator = DiscriminatorConfig(filters=2, layers=layers, norm="spectral", scales=scales, dilated=dilated)
    assert dataclasses.replace(discriminator, unshuffle=2).smallest == 2 * discriminator.smallest
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


@pytest.mark.parametrize(("aspect", "width"), [(1.0, 64), (0.5, 32), (1.5, 96), (0.77, 48), (2.03, 128)])
def test_widths_follow_from_height_and_aspect_in_steps_of_four_pixels(aspect, width):
    assert tiny_config(aspect=aspect, stages=((64, 0.0),)).shape(64) == (64, width)


def test_widths_follow_in_the_steps_of_the_generator():
    config = tiny_config(aspect=0.77, stages=((64, 0.0),), generator=small(unshuffle=2))
    assert config.shape(64) == (64, 48) and dataclasses.replace(config, aspect=0.82).shape(64) == (64, 56)


def test_json_holds_every_setting_as_plain_values():
    config = tiny_config(hours=1.5)
    plain = config.to_json()
    assert plain == json.loads(json.dumps(plain))
    assert set(plain) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert plain["hours"] == 1.5 and plain["stages"] == [[16, 0.0]] and plain["generator"]["filters"] == 4
