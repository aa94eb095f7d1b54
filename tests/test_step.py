"""`train.step`: what each half of a step computes, and which weights it moves."""

import pytest
import torch
from helpers import TEMPLATE
from torch import nn
from train_fixtures import one_thread, tiny_config  # noqa: F401

from cyclegan.faces.align import face_ellipse
from cyclegan.networks import GeneratorConfig
from train import losses
from train.config import DiscriminatorConfig
from train.step import R1_EVERY, DiscriminatorStep, GeneratorStep, Networks, seen

pytestmark = pytest.mark.usefixtures("one_thread")

LOSSES = {"adversarial_AB", "adversarial_BA", "cycle_A", "cycle_B", "identity_A", "identity_B"}
MASKED = GeneratorConfig(filters=4, blocks=1, mask=True)


def halves(**changes) -> tuple[GeneratorStep, DiscriminatorStep, Networks]:
    torch.manual_seed(0)
    config = tiny_config(**changes)
    nets = Networks.build(config, torch.device("cpu"))
    for D in (nets.D_A, nets.D_B):
        D.eval()  # without the power iterations of spectral norm, which change the scores from call to call
    plain = (nets.G_AB.paint, nets.G_BA.paint, nets.D_A, nets.D_B)
    return GeneratorStep(config, nets, plain, TEMPLATE), DiscriminatorStep(config, nets, plain), nets


def images(count: int, channels: int = 3) -> torch.Tensor:
    """``count`` batches of two images."""
    return torch.rand(count, 2, channels, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def generators(cycle=10.0, identity=5.0, mask_area=0.0, noise=0.0, taught=None, **changes):
    """(total, parts as numbers, networks, images that went through generators) of one step."""
    step, _, nets = halves(**changes)
    work: list[int] = []
    for network in (nets.G_AB, nets.G_BA):
        network.stem.register_forward_hook(lambda _, __, output: work.append(len(output)))
    total, parts, fake_A, fake_B = step(*images(2), cycle, identity, mask_area, noise, False, taught)
    assert not any(thing.requires_grad for thing in (*parts.values(), fake_A, fake_B))
    return total, {name: part.item() for name, part in parts.items()}, nets, sum(work)


# The generators' half. ----------------------------------------------------------------------------------------------


def test_the_total_is_the_weighted_sum_of_the_paper():
    total, parts, _, _ = generators(cycle=10.0, identity=5.0)
    assert set(parts) == LOSSES and min(parts.values()) > 0
    assert total.item() == pytest.approx(
        parts["adversarial_AB"]
        + parts["adversarial_BA"]
        + 10 * (parts["cycle_A"] + parts["cycle_B"])
        + 5 * (parts["identity_A"] + parts["identity_B"])
    )


@pytest.mark.parametrize(("mask", "norm"), [(False, "instance"), (True, "instance"), (False, "switchable")])
def test_every_part_is_what_its_name_says(mask, norm):
    step, _, nets = halves(generator=GeneratorConfig(filters=4, blocks=1, mask=mask, norm=norm))
    real_A, real_B = images(2)
    _, parts, fake_A, fake_B = step(real_A, real_B, 1.0, 1.0, 0.0, 0.0, False, None)
    with torch.no_grad():
        assert torch.allclose(fake_B, nets.G_AB(real_A), atol=1e-6)
        assert torch.allclose(fake_A, nets.G_BA(real_B), atol=1e-6)
        expected = {
            "adversarial_AB": losses.adversarial_G(nets.D_B(fake_B)),
            "adversarial_BA": losses.adversarial_G(nets.D_A(fake_A)),
            "cycle_A": (nets.G_BA(fake_B) - real_A).abs().mean(),
            "cycle_B": (nets.G_AB(fake_A) - real_B).abs().mean(),
            "identity_A": (nets.G_BA(real_A) - real_A).abs().mean(),
            "identity_B": (nets.G_AB(real_B) - real_B).abs().mean(),
        }
        if mask:
            expected |= {"mask_A": nets.G_BA.paint(real_B)[1].mean(), "mask_B": nets.G_AB.paint(real_A)[1].mean()}
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_no_identity_weight_no_identity_work():
    total, parts, _, work = generators(identity=0.0)
    assert work == 4 * 2 and set(parts) == LOSSES - {"identity_A", "identity_B"}
    with_identity, others, _, more_work = generators(identity=2.0)
    assert more_work == 6 * 2
    expected = total.item() + 2 * (others["identity_A"] + others["identity_B"])
    assert with_identity.item() == pytest.approx(expected)


def test_no_cycle_weight_no_cycle_work():
    _, parts, _, work = generators(cycle=0.0)
    assert work == 4 * 2 and set(parts) == LOSSES - {"cycle_A", "cycle_B"}
    total, parts, _, work = generators(cycle=0.0, identity=0.0)
    assert work == 2 * 2
    assert total.item() == pytest.approx(parts["adversarial_AB"] + parts["adversarial_BA"])


def test_cycles_can_be_compared_at_low_resolution():
    _, fine, _, _ = generators()
    _, coarse, _, _ = generators(cycle_size=4)
    assert coarse["cycle_A"] < 0.6 * fine["cycle_A"]  # noise averages out
    assert coarse["identity_A"] == fine["identity_A"]


def test_absolute_verdicts():
    _, squared, _, _ = generators()
    _, absolute, _, _ = generators(adversarial="absolute")
    assert absolute["adversarial_AB"] == pytest.approx(squared["adversarial_AB"] ** 0.5, rel=0.05)  # nearly all equal
    assert absolute["adversarial_AB"] != squared["adversarial_AB"]


def test_a_mask_that_covers_too_little_costs():
    free, parts, _, _ = generators(generator=MASKED)
    assert 0.4 < parts["mask_A"] < 0.6 and 0.4 < parts["mask_B"] < 0.6  # where a sigmoid starts
    held, _, _, _ = generators(generator=MASKED, mask_area=0.9)
    missing = (0.9 - parts["mask_A"]) ** 2 + (0.9 - parts["mask_B"]) ** 2
    assert (held - free).item() == pytest.approx(10 * missing, rel=1e-2)
    enough, _, _, _ = generators(generator=MASKED, mask_area=0.1)
    assert enough.item() == pytest.approx(free.item())


@pytest.mark.parametrize("generator", [MASKED, GeneratorConfig(filters=4, blocks=1)], ids=["mask", "none"])
def test_what_changes_outside_the_face_costs(generator):
    free, _, _, _ = generators(generator=generator)
    held, parts, nets, _ = generators(generator=generator, keep_outside=2.0)
    real_A, _ = images(2)
    with torch.no_grad():
        change = (nets.G_AB(real_A) - real_A).abs().mean(1)
    outside = ~torch.from_numpy(face_ellipse(TEMPLATE, real_A.shape[-1]))
    assert parts["outside_B"] == pytest.approx((change - 0.1).clamp(min=0)[:, outside].mean().item(), rel=1e-4)
    assert (held - free).item() == pytest.approx(2 * (parts["outside_A"] + parts["outside_B"]), rel=1e-3)


def test_a_teacher_s_translations_are_repeated():
    taught = tuple(images(2).flip(1))
    total, parts, nets, _ = generators(taught=taught, distill=20.0)
    alone, others, _, _ = generators()
    assert set(parts) == LOSSES | {"distill_A", "distill_B"}
    assert {name: parts[name] for name in others} == pytest.approx(others)
    assert (total - alone).item() == pytest.approx(20 * (parts["distill_A"] + parts["distill_B"]), rel=1e-4)
    with torch.no_grad():
        real_A, real_B = images(2)
        assert parts["distill_A"] == pytest.approx((nets.G_BA(real_B) - taught[0]).abs().mean().item(), rel=1e-4)
        assert parts["distill_B"] == pytest.approx((nets.G_AB(real_A) - taught[1]).abs().mean().item(), rel=1e-4)


def test_the_generators_step_moves_generators_only():
    total, _, nets, _ = generators()
    total.backward()
    for network in (nets.G_AB, nets.G_BA):
        assert all(weight.grad is not None for weight in network.parameters())
    for network in (nets.D_A, nets.D_B, nets.ema_G_AB, nets.ema_G_BA):
        assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize("norm", ["instance", "switchable"])
def test_a_half_holds_just_the_weights_it_trains(norm):
    """Which is what several processes synchronise."""
    step_G, step_D, nets = halves(generator=GeneratorConfig(filters=4, blocks=1, norm=norm))
    for half, networks in ((step_G, (nets.G_AB, nets.G_BA)), (step_D, (nets.D_A, nets.D_B))):
        assert {id(w) for w in half.parameters()} == {id(w) for net in networks for w in net.parameters()}


def test_translations_have_no_gradients_and_are_the_networks():
    step, _, nets = halves(generator=MASKED)
    real_A, real_B = images(2)
    fake_A, fake_B = step.translate(real_A, real_B)
    assert not fake_A.requires_grad and torch.equal(fake_A, nets.G_BA(real_B))
    assert not fake_B.requires_grad and torch.equal(fake_B, nets.G_AB(real_A))


# The discriminators' half. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["spectral", "instance"])
def test_each_discriminator_judges_its_own_domain(norm):
    """D_A tells A from G_BA(B): its loss depends on A's images, not on B's."""
    _, step, _ = halves(discriminator=DiscriminatorConfig(filters=4, layers=2, norm=norm))
    real_A, real_B, fake_A, fake_B, other = images(5)
    _, parts = step(real_A, real_B, fake_A, fake_B, 0.0, False, False)
    assert set(parts) == {"D_A", "D_B"}
    for arguments, changed in (
        ((other, real_B, fake_A, fake_B), "D_A"),
        ((real_A, other, fake_A, fake_B), "D_B"),
        ((real_A, real_B, other, fake_B), "D_A"),
        ((real_A, real_B, fake_A, other), "D_B"),
    ):
        _, now = step(*arguments, 0.0, False, False)
        assert {name for name in now if now[name] != parts[name]} == {changed}


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_the_discriminators_total_is_the_sum_of_both_losses(distance):
    _, step, nets = halves(adversarial=distance)
    real_A, real_B, fake_A, fake_B = images(4)
    total, parts = step(real_A, real_B, fake_A, fake_B, 0.0, False, False)
    for D, name, real, fake in ((nets.D_A, "D_A", real_A, fake_A), (nets.D_B, "D_B", real_B, fake_B)):
        expected = losses.adversarial_D(D(real), D(fake), distance)
        assert parts[name].item() == pytest.approx(expected.item(), rel=1e-4)
    assert total.item() == pytest.approx((parts["D_A"] + parts["D_B"]).item())
    total.backward()
    assert all(weight.grad is not None for D in (nets.D_A, nets.D_B) for weight in D.parameters())
    assert all(weight.grad is None for G in (nets.G_AB, nets.G_BA) for weight in G.parameters())


def test_batch_statistics_do_not_mix_real_and_generated_images():
    _, step, nets = halves(discriminator=DiscriminatorConfig(filters=4, layers=2, norm="batch"))
    nets.D_A.train()
    real_A, real_B, fake_A, fake_B = images(4)
    _, parts = step(real_A, real_B, fake_A * 0.2 + 0.8, fake_B, 0.0, False, False)
    apart = losses.adversarial_D(nets.D_A(real_A), nets.D_A(fake_A * 0.2 + 0.8))
    assert parts["D_A"].item() == pytest.approx(apart.item(), rel=1e-5)
    together = losses.adversarial_D(*nets.D_A(torch.cat([real_A, fake_A * 0.2 + 0.8])).chunk(2))
    assert parts["D_A"].item() != pytest.approx(together.item(), rel=1e-5)


def test_the_penalty_stands_for_all_the_steps_without_it():
    _, step, nets = halves(r1=0.5)
    real_A, real_B, fake_A, fake_B = images(4)
    without, parts = step(real_A, real_B, fake_A, fake_B, 0.0, False, False)
    penalised, more = step(real_A, real_B, fake_A, fake_B, 0.0, False, True)
    assert set(parts) == {"D_A", "D_B"} and set(more) == {"D_A", "D_B", "r1_A", "r1_B"}
    assert more["r1_A"].item() == pytest.approx(losses.r1(nets.D_A, real_A).item(), rel=1e-4) and more["r1_A"] > 0
    assert more["r1_B"].item() == pytest.approx(losses.r1(nets.D_B, real_B).item(), rel=1e-4)
    expected = 0.5 * R1_EVERY * (more["r1_A"] + more["r1_B"])
    assert (penalised - without).item() == pytest.approx(expected.item(), rel=1e-2)
    penalised.backward()
    assert all(weight.grad is not None for weight in nets.D_A.layers[0].parameters())


def test_noise_is_added_to_all_that_discriminators_see():
    step_G, step_D, nets = halves()
    seen = []
    for D in (nets.D_A, nets.D_B):
        D.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    reals = torch.zeros(2, 2, 3, 64, 64)
    _, _, fake_A, fake_B = step_G(*reals, 0.0, 0.0, 0.0, 0.3, False, None)
    step_D(*reals, fake_A, fake_B, 0.3, False, False)
    judged_B, judged_A, both_A, both_B = seen
    for noisy_images, clean in (
        (judged_A, fake_A),
        (judged_B, fake_B),
        (both_A, torch.cat([reals[0], fake_A])),
        (both_B, torch.cat([reals[1], fake_B])),
    ):
        assert (noisy_images - clean).std().item() == pytest.approx(0.3, rel=0.05)
        assert abs((noisy_images - clean).mean().item()) < 0.02


def test_all_that_discriminators_see_is_augmented():
    step_G, step_D, nets = halves()
    shown = []
    for D in (nets.D_A, nets.D_B):
        D.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].detach()))
    reals = torch.zeros(2, 2, 3, 64, 64)
    total, _, fake_A, fake_B = step_G(*reals, 0.0, 0.0, 0.0, 0.0, True, None)
    total.backward()
    assert all(weight.grad is not None for weight in nets.G_AB.stem.parameters())  # through the augmentation
    step_D(*reals, fake_A, fake_B, 0.0, True, False)
    judged_B, judged_A, both_A, both_B = shown
    clean = (fake_B, fake_A, torch.cat([reals[0], fake_A]), torch.cat([reals[1], fake_B]))
    for seen_images, images in zip((judged_B, judged_A, both_A, both_B), clean, strict=True):
        brighter = (seen_images - images).mean((1, 2, 3))
        assert 0.001 < brighter.abs().min() and brighter.abs().max() < 0.25 and brighter.std() > 0.02


def test_without_noise_nothing_is_drawn():
    x, state = torch.rand(2, 3, 4, 4), torch.get_rng_state()
    assert seen(x, 0.0, augment=False) is x and torch.equal(torch.get_rng_state(), state)


# Networks. ----------------------------------------------------------------------------------------------------------


def set_weights(networks: tuple[nn.Module, ...], value: float) -> None:
    for network in networks:
        for weight in network.parameters():
            weight.data.fill_(value)


def test_the_average_halves_its_memory_per_half_life():
    config = tiny_config(ema_halflife=8)
    nets = Networks.build(config, torch.device("cpu"))
    set_weights((nets.G_AB, nets.G_BA), 1.0)
    set_weights((nets.ema_G_AB, nets.ema_G_BA), 0.0)
    for _ in range(4):  # four steps of two pairs: one half-life
        nets.average(config, 1000)
    for averaged in (nets.ema_G_AB, nets.ema_G_BA):
        assert all((weight - 0.5).abs().max() < 1e-6 for weight in averaged.parameters())


def test_the_half_life_is_at_first_a_tenth_of_the_run_so_far():
    config = tiny_config(ema_halflife=1000)
    nets = Networks.build(config, torch.device("cpu"))
    set_weights((nets.G_AB, nets.G_BA), 1.0)
    set_weights((nets.ema_G_AB, nets.ema_G_BA), 0.0)
    nets.average(config, 20)  # half-life 2 pairs, which is this step
    assert all((weight - 0.5).abs().max() < 1e-6 for weight in nets.ema_G_AB.parameters())


def test_the_averaged_generators_take_over_running_statistics_as_they_are():
    config = tiny_config(generator=GeneratorConfig(filters=4, blocks=1, norm="switchable"))
    nets = Networks.build(config, torch.device("cpu"))
    nets.G_AB(torch.randn(2, 3, 16, 16))
    nets.average(config, 1000)
    for (name, current), averaged in zip(nets.G_AB.named_buffers(), nets.ema_G_AB.buffers(), strict=True):
        assert torch.equal(current, averaged), name
    assert not nets.ema_G_AB.training and nets.G_AB.training


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_frozen_decoder_layers_are_left_out_of_a_step(layers):
    total, _, nets, _ = generators()
    total.backward()
    before = {name: w.detach().clone() for name, w in nets.G_AB.named_parameters()}
    nets.freeze_decoders(layers)
    torch.optim.Adam(nets.G_AB.parameters(), lr=0.1).step()
    moved = {name.rsplit(".", 1)[0] for name, w in nets.G_AB.named_parameters() if not torch.equal(w, before[name])}
    decoder = ["up.0.1", "up.1.1", "head.0"]
    assert moved & set(decoder) == set(decoder[layers:])
    assert {"stem.1", "down.0.0", "body.0.layers.0"} <= moved


def test_networks_in_half_precision_keep_float32_weights_and_lie_channels_last():
    nets = Networks.build(tiny_config(precision="bfloat16"), torch.device("cpu"))
    assert {weight.dtype for network in nets.named().values() for weight in network.parameters()} == {torch.float32}
    assert nets.G_AB.head[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_norms_are_euclidean_and_named():
    nets = Networks.build(tiny_config(), torch.device("cpu"))
    norms = nets.norms()
    assert set(norms) == {"G_AB", "G_BA", "D_A", "D_B", "ema_G_AB", "ema_G_BA"}
    expected = sum(weight.square().sum() for weight in nets.D_A.parameters()).sqrt().item()
    assert norms["D_A"] == pytest.approx(expected)
    next(nets.G_BA.parameters()).data.view(-1)[0] = float("nan")
    assert [name for name, norm in nets.norms().items() if norm != norm] == ["G_BA"]
