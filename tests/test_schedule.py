"""`train.schedule`: learning rate, image size and identity weight over a training."""

import pytest
from train_fixtures import tiny_config

from train import schedule


def test_progress_by_pairs():
    config = tiny_config(pairs=200, hours=None)
    assert [schedule.progress(config, pairs, 1e9) for pairs in (0, 50, 199, 200, 300)] == [0, 0.25, 0.995, 1, 1]


def test_progress_by_the_clock():
    config = tiny_config(pairs=200, hours=2)
    assert [schedule.progress(config, 10**9, seconds) for seconds in (0, 1800, 7200, 9000)] == [0, 0.25, 1, 1]


def test_the_learning_rate_is_constant_then_falls_linearly_to_zero():
    config = tiny_config(lr=0.01, decay_from=0.5)
    at = (0, 0.25, 0.5, 0.625, 0.75, 0.9, 1)
    expected = (0.01, 0.01, 0.01, 0.0075, 0.005, 0.002, 0)
    assert [schedule.learning_rate(config, x) for x in at] == pytest.approx(expected)


def test_the_learning_rate_can_fall_from_the_start():
    config = tiny_config(lr=0.01, decay_from=0.0)
    assert [schedule.learning_rate(config, x) for x in (0, 0.5, 0.75, 1)] == pytest.approx([0.01, 0.005, 0.0025, 0])


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
