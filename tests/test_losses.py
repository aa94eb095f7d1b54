"""`train.losses` against values computed by hand."""

import pytest
import torch

from train import losses


def test_a_generator_pays_the_squared_distance_of_its_scores_from_one():
    scores = torch.tensor([[1.0, 0.0], [-1.0, 3.0]])
    assert losses.adversarial_G(scores).item() == (0 + 1 + 4 + 4) / 4


def test_a_generator_that_fools_pays_nothing():
    assert losses.adversarial_G(torch.ones(2, 1, 5, 5)).item() == 0


def test_a_discriminator_pays_half_the_sum_of_both_errors():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0, 1.0, 1.0])
    # E[(real - 1)^2] = (0 + 4) / 2, E[fake^2] = (0 + 4 + 1 + 1) / 4: means, however many scores each side has.
    assert losses.adversarial_D(real, fake).item() == (2.0 + 1.5) / 2


def test_a_perfect_discriminator_pays_nothing_and_an_undecided_one_a_quarter():
    assert losses.adversarial_D(torch.ones(3), torch.zeros(3)).item() == 0
    assert losses.adversarial_D(torch.full((3,), 0.5), torch.full((3,), 0.5)).item() == 0.25


@pytest.mark.parametrize("loss", [losses.cycle, losses.identity])
def test_image_losses_are_means_over_pixels_and_channels(loss):
    real = torch.zeros(2, 3, 4, 5)
    other = real.clone()
    other[0, 1, 2, 3] = 1.5
    other[1, 2, 0, 0] = -0.5  # the size of a difference counts, not its sign
    assert loss(other, real).item() == pytest.approx(2.0 / 120)
    assert loss(real, real).item() == 0
    # The same difference everywhere costs the same in a picture of any size.
    assert loss(torch.full((1, 3, 8, 8), 0.25), torch.zeros(1, 3, 8, 8)).item() == 0.25
    assert loss(torch.full((4, 3, 64, 16), 0.25), torch.zeros(4, 3, 64, 16)).item() == 0.25


def test_losses_of_half_precision_are_float32():
    # 1 + 1/512 and its square need more bits than bfloat16 has: computed there, each of these would be 0 or 1.
    score = torch.full((1, 1, 4, 4), 1.0, dtype=torch.bfloat16)
    score[..., 0] = 1.0078125  # the next number after 1 in bfloat16
    fine = 0.0078125**2 / 4
    assert losses.adversarial_G(score).item() == pytest.approx(fine, rel=1e-6)
    assert losses.adversarial_D(score, torch.zeros_like(score)).item() == pytest.approx(fine / 2, rel=1e-6)
    image = torch.full((1, 3, 4, 4), 0.5, dtype=torch.bfloat16)
    real = torch.full((1, 3, 4, 4), 0.5001)
    assert losses.cycle(image, real).item() == pytest.approx(0.0001, rel=1e-3)
    assert losses.identity(image, real).item() == pytest.approx(0.0001, rel=1e-3)
    for value in (
        losses.adversarial_G(score),
        losses.adversarial_D(score, score),
        losses.cycle(image, real),
        losses.identity(image, real),
    ):
        assert value.dtype == torch.float32 and value.shape == ()


def test_gradients_push_scores_up_for_the_generator_and_apart_for_the_discriminator():
    fake = torch.zeros(4, requires_grad=True)
    losses.adversarial_G(fake).backward()
    assert (fake.grad < 0).all()
    real, fake = torch.full((4,), 0.5, requires_grad=True), torch.full((4,), 0.5, requires_grad=True)
    losses.adversarial_D(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()
