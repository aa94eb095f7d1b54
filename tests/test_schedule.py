"""`train.schedule`: progress, learning rate, image size, loss weights and frozen layers over a training."""

import pytest
from train_fixtures import tiny_config

from cyclegan.networks import GeneratorConfig
from train import schedule


def test_progress_by_pairs():
    config = tiny_config(pairs=200, hours=None)
    assert [schedule.progress(config, pairs, 1e9, 7) for pairs in (0, 50, 199, 200, 300)] == [0, 0.25, 0.995, 1, 1]


def test_progress_by_the_clock():
    config = tiny_config(pairs=200, epochs=3, hours=2)
    assert [schedule.progress(config, 10**9, seconds, 7) for seconds in (0, 1800, 7200, 9000)] == [0, 0.25, 1, 1]


def test_progress_by_passes_through_the_larger_domain():
    config = tiny_config(pairs=1, epochs=4)
    assert [schedule.progress(config, pairs, 1e9, 50) for pairs in (0, 50, 150, 200, 201)] == [0, 0.25, 0.75, 1, 1]
    half = tiny_config(epochs=0.5)
    assert [schedule.progress(half, pairs, 0, 5) for pairs in (0, 2, 3)] == [0, pytest.approx(2 / 3), 1]  # 2.5 pairs


def test_a_start_epoch_enters_the_schedules_later():
    config = tiny_config(epochs=10, start_epoch=4)
    assert [schedule.progress(config, pairs, 0, 20) for pairs in (0, 20, 120)] == [0.4, 0.5, 1]
    config = tiny_config(pairs=100, start_epoch=2)
    assert [schedule.progress(config, pairs, 0, 20) for pairs in (0, 30, 60)] == [0.4, 0.7, 1]


def test_the_learning_rate_is_constant_then_falls_linearly_to_zero():
    config = tiny_config(lr=0.01, decay_from=0.5)
    at = (0, 0.25, 0.5, 0.625, 0.75, 0.9, 1)
    expected = (0.01, 0.01, 0.01, 0.0075, 0.005, 0.002, 0)
    assert [schedule.learning_rate(config, x) for x in at] == pytest.approx(expected)


def test_the_learning_rate_can_fall_from_the_start_or_never():
    config = tiny_config(lr=0.01, decay_from=0.0)
    assert [schedule.learning_rate(config, x) for x in (0, 0.5, 0.75, 1)] == pytest.approx([0.01, 0.005, 0.0025, 0])
    config = tiny_config(lr=0.01, decay_from=1.0)
    assert [schedule.learning_rate(config, x) for x in (0, 0.5, 1)] == [0.01] * 3


def test_stages_begin_where_they_say():
    config = tiny_config(stages=((16, 0.0), (32, 0.25), (64, 0.75)))
    at = (0, 0.2499, 0.25, 0.7499, 0.75, 0.9999)
    assert [schedule.image_size(config, x) for x in at] == [16, 16, 32, 32, 64, 64]


def test_one_stage_is_one_size():
    config = tiny_config(stages=((32, 0.0),))
    assert {schedule.image_size(config, x) for x in (0, 0.5, 0.9999)} == {32}


def test_the_identity_weight_moves_linearly_until_decay_and_stays():
    config = tiny_config(identity=2.0, identity_end=0.0, decay_from=0.5)
    at = (0, 0.125, 0.25, 0.5, 0.7, 1)
    assert [schedule.identity_weight(config, x) for x in at] == pytest.approx([2, 1.5, 1, 0, 0, 0])


def test_the_identity_weight_without_a_constant_part():
    config = tiny_config(identity=2.0, identity_end=1.0, decay_from=0.0)
    assert [schedule.identity_weight(config, x) for x in (0, 0.5)] == [1.0, 1.0]


def test_the_identity_weight_reaches_exactly_zero_so_that_its_work_is_skipped():
    config = tiny_config(identity=0.3, identity_end=0.0, decay_from=0.7)
    assert [schedule.identity_weight(config, x) for x in (0.7, 0.8, 1)] == [0, 0, 0]


def test_the_noise_of_the_discriminators_is_gone_when_the_decay_begins():
    config = tiny_config(noise=0.2, decay_from=0.5)
    assert [schedule.noise(config, x) for x in (0, 0.25, 0.5, 1)] == pytest.approx([0.2, 0.1, 0, 0])


def test_the_masks_least_area_is_held_until_the_decay_and_then_released():
    config = tiny_config(generator=GeneratorConfig(filters=4, blocks=1, mask=True), mask_area=0.4, decay_from=0.5)
    assert [schedule.mask_area(config, x) for x in (0, 0.5, 0.75, 1)] == pytest.approx([0.4, 0.4, 0.2, 0])
    config = tiny_config(generator=GeneratorConfig(filters=4, blocks=1, mask=True), mask_area=0.4, decay_from=1.0)
    assert [schedule.mask_area(config, x) for x in (0, 1)] == [0.4, 0.4]


def test_the_decoder_is_freed_layer_by_layer_and_then_again():
    # Three layers and two rounds: each half of the run has four equal parts, with 3, 2, 1 and 0 layers frozen.
    config = tiny_config(unfreeze=2)
    middles = [(part + 0.5) / 8 for part in range(8)]
    assert [schedule.frozen_layers(config, at, 3) for at in middles] == [3, 2, 1, 0, 3, 2, 1, 0]
    assert schedule.frozen_layers(config, 0.5, 3) == 3


def test_without_unfreezing_nothing_is_ever_frozen():
    assert {schedule.frozen_layers(tiny_config(), at / 10, 3) for at in range(10)} == {0}
