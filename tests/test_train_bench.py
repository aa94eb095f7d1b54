"""`train.bench`: that it measures both loops, and counts work as one would by hand."""

import json

import pytest
import torch
from torch import nn
from train_fixtures import one_thread, tiny_config  # noqa: F401

from cyclegan.networks import GeneratorConfig
from train.__main__ import main
from train.bench import bench, classic_loop, flops_per_pair
from train.config import DiscriminatorConfig
from train.discriminators import PatchDiscriminator
from train.step import DiscriminatorStep, GeneratorStep

pytestmark = pytest.mark.usefixtures("one_thread")


def test_both_loops_are_timed_and_compared():
    measured = bench(tiny_config(), torch.device("cpu"), steps=3)
    assert measured.classic > 0 and measured.fit > 0
    assert measured.speedup == pytest.approx(measured.fit / measured.classic)
    assert 0 < measured.share_of_peak < 1 and measured.share_of_peak == measured.tflops / measured.peak_tflops
    assert (measured.size, measured.batch, measured.memory_mb) == (16, 2, None)
    assert f"{measured.fit:.2f}" in str(measured)


def test_the_command(capsys):
    small = ["--size", "32", "--filters", "2", "--blocks", "1", "--D-filters", "2", "--D-layers", "2", "--batch", "2"]
    options = ["--no-compile", "--precision", "float32", "--steps", "2", "--device", "cpu", "--json"]
    assert main(["bench", *small, *options]) == 0
    assert json.loads(capsys.readouterr().out)["batch"] == 2


def test_operations_are_three_times_those_of_a_forward_pass_per_generator_call():
    """Backward passes cost twice their forward pass, save for the input gradient of first layers."""
    size, filters = 16, 4
    config = tiny_config(
        generator=GeneratorConfig(filters=filters, blocks=1),
        discriminator=DiscriminatorConfig(filters=4, layers=2, norm="none"),
        identity=0.0,
        identity_end=0.0,
    )

    def forward(network: nn.Module) -> float:
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 3, size, size))
        return counter.get_total_flops()

    from cyclegan.networks import Generator

    G, D = forward(Generator(config.generator)), forward(PatchDiscriminator(config.discriminator))
    # Generators: there and back in both directions, forward and backward; discriminators: one image each for the
    # generators' step, without gradients of their weights, and two each for their own.
    most = 3 * (4 * G + 2 * D + 4 * D)
    assert 0.75 * most < flops_per_pair(config) <= most


def test_identity_costs_two_more_calls():
    plain = tiny_config(identity=0.0, identity_end=0.0)
    assert flops_per_pair(tiny_config(identity=1.0)) > 1.3 * flops_per_pair(plain)


@pytest.mark.parametrize("changes", [{"alternate": True}, {"identity_chance": 0.1}, {"discriminator_steps": 3}])
def test_both_loops_do_the_work_of_one_whole_step(changes, monkeypatch):
    """Though `fit` would leave out a part of it, or repeat it, with these settings."""
    counts = {"G": 0, "D": 0}
    for which, kind in (("G", GeneratorStep), ("D", DiscriminatorStep)):
        forward = kind.forward

        def counted(self, *args, which=which, forward=forward):
            counts[which] += 1
            if which == "G":
                assert args[2] > 0 and args[3] > 0  # the weights of both losses
            return forward(self, *args)

        monkeypatch.setattr(kind, "forward", counted)
    monkeypatch.setattr("train.bench.flops_per_pair", lambda config: 1.0)
    bench(tiny_config(**changes), torch.device("cpu"), steps=10)
    assert counts == {"G": 20, "D": 20}


def test_a_reduced_training_is_compared_at_the_size_it_works_at():
    small = tiny_config(generator=GeneratorConfig(filters=4, blocks=1, reduce=2), stages=((32, 0.0),))
    assert bench(small, torch.device("cpu"), steps=1).size == 16


def test_the_classic_loop_trains_what_it_times(tmp_path, monkeypatch):
    """Each step moves all four networks: a loop that skipped its work would be fast."""
    from train_fixtures import write_domains

    data = write_domains(tmp_path, 4)
    moved = []
    step = torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        before = [p.detach().clone() for group in self.param_groups for p in group["params"]]
        step(self, *args, **kwargs)
        after = [p for group in self.param_groups for p in group["params"]]
        moved.append(sum(not torch.equal(*pair) for pair in zip(before, after, strict=True)) / len(after))

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    assert classic_loop(tiny_config(), data, torch.device("cpu"), 1) > 0
    assert len(moved) == 2 * 11 and min(moved) > 0.5


def test_what_a_student_and_grey_images_cost_can_be_measured():
    measured = bench(tiny_config(distill=20.0), torch.device("cpu"), steps=1)
    assert measured.fit > 0
    grey = dict(generator=GeneratorConfig(filters=4, blocks=1, channels=1))
    grey |= dict(discriminator=DiscriminatorConfig(filters=4, layers=2, channels=1))
    assert bench(tiny_config(**grey), torch.device("cpu"), steps=1).classic > 0
