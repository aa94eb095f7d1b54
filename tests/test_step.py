"""`train.step`: the two halves of a training step, and the networks they move."""

import copy

import pytest
import torch
from train_fixtures import one_thread, tiny_config  # noqa: F401

from cyclegan.networks import GeneratorConfig
from train.config import DiscriminatorConfig
from train.step import R1_EVERY, DiscriminatorStep, GeneratorStep, Networks, noisy

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PARTS = {"adversarial_AB", "adversarial_BA", "cycle_A", "cycle_B", "identity_A", "identity_B"}


def build(**changes):
    config = tiny_config(**changes)
    torch.manual_seed(0)
    nets = Networks.build(config, CPU)
    plain = (nets.G_AB.paint, nets.G_BA.paint, nets.D_A, nets.D_B)
    return config, nets, GeneratorStep(config, nets, plain), DiscriminatorStep(config, nets, plain)


def images(count: int, channels: int = 3, seed: int = 0) -> tuple[torch.Tensor, ...]:
    shape = (count, 2, channels, 16, 16)
    return tuple(torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1)


def one_step(cycle=10.0, identity=5.0, mask_area=0.0, noise=0.0, taught=None, **changes):
    _, nets, step, _ = build(**changes)
    work = []
    for network in (nets.G_AB, nets.G_BA):
        network.stem.register_forward_hook(lambda _, __, output: work.append(len(output)))
    total, parts, *_ = step(*images(2), cycle, identity, mask_area, noise, taught)
    return total, {name: part.item() for name, part in parts.items()}, sum(work), nets


# Generators. --------------------------------------------------------------------------------------------------------


def test_the_generators_total_is_the_weighted_sum_of_the_paper():
    total, value, _, _ = one_step()
    assert set(value) == PARTS and min(value.values()) > 0
    assert total.item() == pytest.approx(
        value["adversarial_AB"]
        + value["adversarial_BA"]
        + 10 * (value["cycle_A"] + value["cycle_B"])
        + 5 * (value["identity_A"] + value["identity_B"])
    )


def test_the_parts_are_for_looking_at_only():
    _, _, step, _ = build()
    _, parts, fake_A, fake_B = step(*images(2), 10.0, 5.0, 0.0, 0.0, None)
    assert not any(tensor.requires_grad for tensor in (*parts.values(), fake_A, fake_B))


def test_a_weight_of_zero_saves_the_work():
    assert one_step()[2] == 6 * 2
    total, parts, work, _ = one_step(identity=0.0)
    assert work == 4 * 2 and set(parts) == PARTS - {"identity_A", "identity_B"}
    total, parts, work, _ = one_step(cycle=0.0, identity=0.0)
    assert work == 2 * 2 and set(parts) == {"adversarial_AB", "adversarial_BA"}
    assert total.item() == pytest.approx(parts["adversarial_AB"] + parts["adversarial_BA"])


def test_the_generators_step_moves_generators_only():
    total, _, _, nets = one_step()
    total.backward()
    for network in (nets.G_AB, nets.G_BA):
        assert all(weight.grad is not None for weight in network.parameters())
    for network in (nets.D_A, nets.D_B):
        assert all(weight.grad is None for weight in network.parameters())


def test_fakes_are_what_the_generators_make():
    _, nets, step, _ = build()
    real_A, real_B = images(2)
    _, _, fake_A, fake_B = step(real_A, real_B, 10.0, 5.0, 0.0, 0.0, None)
    assert torch.allclose(fake_B, nets.G_AB(real_A), atol=1e-5) and torch.allclose(fake_A, nets.G_BA(real_B), atol=1e-5)
    again_A, again_B = step.translate(real_A, real_B)
    assert torch.allclose(again_A, fake_A, atol=1e-5) and torch.allclose(again_B, fake_B, atol=1e-5)


MASKED = dict(generator=GeneratorConfig(filters=4, blocks=1, mask=True))


def test_a_mask_that_covers_too_little_costs_and_one_that_covers_enough_does_not():
    _, nets, step, _ = build(**MASKED)
    with torch.no_grad():
        for generator in (nets.G_AB, nets.G_BA):
            generator.head[0].bias[3] = -4.0  # nearly closed
    free, parts, *_ = step(*images(2), 10.0, 0.0, 0.0, 0.0, None)
    held, *_ = step(*images(2), 10.0, 0.0, 0.4, 0.0, None)
    short = [(0.4 - parts[name].item()) for name in ("mask_A", "mask_B")]
    assert all(0.3 < missing < 0.4 for missing in short)
    assert (held - free).item() == pytest.approx(10 * sum(missing**2 for missing in short), rel=0.02)
    least = min(parts["mask_A"], parts["mask_B"]).item()
    assert step(*images(2), 10.0, 0.0, 0.9 * least, 0.0, None)[0].item() == pytest.approx(free.item(), rel=1e-3)


def test_a_teacher_is_repeated_with_its_weight():
    taught = images(2, seed=5)
    plain, *_ = one_step()
    total, parts, *_ = one_step(taught=taught, distill=20.0)
    assert total.item() == pytest.approx(plain.item() + 20 * (parts["distill_A"] + parts["distill_B"]), rel=1e-5)
    _, _, step, _ = build(distill=20.0)
    _, _, fake_A, fake_B = step(*images(2), 10.0, 5.0, 0.0, 0.0, None)
    assert one_step(taught=(fake_A, fake_B), distill=20.0)[1]["distill_A"] == pytest.approx(0, abs=1e-5)


def test_cycles_may_be_compared_at_a_lower_size():
    assert one_step(cycle_size=4)[1]["cycle_A"] < 0.8 * one_step()[1]["cycle_A"]


def test_grey_images():
    channels = dict(
        generator=GeneratorConfig(filters=4, blocks=1, channels=1),
        discriminator=DiscriminatorConfig(filters=4, layers=2, channels=1),
    )
    _, _, step, judge = build(**channels)
    real_A, real_B = images(2, channels=1)
    total, _, fake_A, fake_B = step(real_A, real_B, 10.0, 5.0, 0.0, 0.0, None)
    assert fake_A.shape == real_A.shape and torch.isfinite(total + judge(real_A, real_B, fake_A, fake_B, 0.0, True)[0])


# Discriminators. ----------------------------------------------------------------------------------------------------


def test_each_discriminator_judges_its_own_domain():
    """D_A tells A from G_BA(B): its loss depends on A's images, not on B's."""
    _, nets, _, step = build()
    real_A, real_B, fake_A, fake_B, other = images(5)
    nets.D_A.eval()  # eval: without the power iterations of spectral norm, which change the scores from call to call
    nets.D_B.eval()
    _, parts = step(real_A, real_B, fake_A, fake_B, 0.0, False)
    for arguments, changed in (
        ((other, real_B, fake_A, fake_B), "D_A"),
        ((real_A, other, fake_A, fake_B), "D_B"),
        ((real_A, real_B, other, fake_B), "D_A"),
        ((real_A, real_B, fake_A, other), "D_B"),
    ):
        _, now = step(*arguments, 0.0, False)
        assert {name for name in now if now[name] != parts[name]} == {changed}


def test_the_discriminators_step_moves_discriminators_only_also_after_the_generators():
    _, nets, generators, discriminators = build()
    real_A, real_B = images(2)
    _, _, fake_A, fake_B = generators(real_A, real_B, 10.0, 5.0, 0.0, 0.0, None)
    discriminators(real_A, real_B, fake_A, fake_B, 0.0, False)[0].backward()
    assert all(weight.grad is not None for D in (nets.D_A, nets.D_B) for weight in D.parameters())
    assert all(weight.grad is None for G in (nets.G_AB, nets.G_BA) for weight in G.parameters())


def test_the_gradient_penalty_makes_up_for_the_steps_without_it():
    _, nets, _, step = build(r1=2.0)
    nets.D_A.eval()
    nets.D_B.eval()
    four = images(4)
    plain, _ = step(*four, 0.0, False)
    total, parts = step(*four, 0.0, True)
    assert parts["r1_A"] > 0
    penalty = (parts["r1_A"] + parts["r1_B"]).item()
    assert total.item() == pytest.approx(plain.item() + 2.0 * R1_EVERY * penalty, rel=1e-4)
    total.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in nets.D_A.parameters())


def test_batch_norm_does_not_mix_real_and_generated():
    """Each kind is normalised by itself: a shift between the kinds is invisible after the first norm."""
    _, nets, _, step = build(discriminator=DiscriminatorConfig(filters=4, layers=2, norm="batch"))
    seen = []
    norm = next(layer for layer in nets.D_A.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    step(*images(4), 0.0, False)
    assert seen == [2, 2]


def test_noise_is_of_the_size_asked_for_and_new_each_time():
    x = torch.zeros(1, 3, 100, 100)
    assert noisy(x, 0.3).std().item() == pytest.approx(0.3, rel=0.03)
    assert not torch.equal(noisy(x, 0.3), noisy(x, 0.3))
    assert noisy(x, 0.0) is x


# Networks. ----------------------------------------------------------------------------------------------------------


def test_the_average_halves_its_memory_per_half_life():
    config, nets, *_ = build(ema_halflife=8)
    for weight in nets.G_AB.parameters():
        weight.data.fill_(1.0)
    for weight in nets.ema_G_AB.parameters():
        weight.data.fill_(0.0)
    for _ in range(4):  # four steps of two pairs: one half-life
        nets.average(config, 1000)
    assert all((weight - 0.5).abs().max() < 1e-6 for weight in nets.ema_G_AB.parameters())


def test_the_average_takes_over_statistics_as_they_are():
    config, nets, step, _ = build(generator=GeneratorConfig(filters=4, blocks=1, norm="switchable"))
    step(*images(2), 10.0, 5.0, 0.0, 0.0, None)
    nets.average(config, 1000)
    ours, theirs = dict(nets.ema_G_AB.named_buffers()), dict(nets.G_AB.named_buffers())
    assert ours and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(value.abs().max() > 0 for name, value in ours.items() if "mean" in name)


def test_frozen_layers_keep_their_weights():
    _, nets, step, _ = build()
    before = copy.deepcopy(nets.G_AB.state_dict())
    optimizer = torch.optim.Adam(step.parameters(), lr=0.01)
    step(*images(2), 10.0, 5.0, 0.0, 0.0, None)[0].backward()
    nets.freeze_decoders(2)
    optimizer.step()
    changed = {name for name, value in nets.G_AB.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("up.0", "up.1")) for name in changed)
    assert {"head.0.weight", "stem.1.weight"} <= changed
