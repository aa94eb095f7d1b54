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


def test_the_absolute_distance_of_scores():
    scores = torch.tensor([[1.0, 0.0], [-1.0, 3.0]])
    assert losses.adversarial_G(scores, "absolute").item() == (0 + 1 + 2 + 2) / 4
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -2.0, 1.0, 1.0])
    # E|real - 1| = (0 + 2) / 2, E|fake| = (0 + 2 + 1 + 1) / 4
    assert losses.adversarial_D(real, fake, "absolute").item() == (1.0 + 1.0) / 2
    assert losses.adversarial_D(torch.ones(3), torch.zeros(3), "absolute").item() == 0


def test_a_cycle_compared_at_low_resolution_forgives_fine_detail():
    real = torch.zeros(1, 1, 4, 4)
    checkers = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    assert losses.cycle(checkers, real).item() == 1
    assert losses.cycle(checkers, real, (2, 2)).item() == 0
    # What is coarse costs as much as ever: one of four quarters is off by 0.8.
    quarter = real.clone()
    quarter[..., :2, :2] = 0.8
    assert losses.cycle(quarter, real, (2, 2)).item() == pytest.approx(0.2)
    # In a quarter whose pixels are 1, 1, 1 and -1 they average to 0.5.
    mixed = real.clone()
    mixed[..., :2, :2] = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    assert losses.cycle(mixed, real, (2, 2)).item() == pytest.approx(0.5 / 4)


@pytest.mark.parametrize("size", [(4, 4), (8, 8)])
def test_a_cycle_is_never_compared_at_more_than_its_own_resolution(size):
    rec, real = torch.rand(2, 2, 3, 4, 4)
    assert losses.cycle(rec, real, size) == losses.cycle(rec, real)


def test_a_mask_pays_for_the_area_that_is_missing_and_for_nothing_more():
    alpha = torch.zeros(2, 1, 2, 2)
    alpha[0, 0, 0] = 0.4  # covers 0.2 of its image; the other covers nothing
    assert losses.mask_area(alpha, 0.3).item() == pytest.approx((0.1**2 + 0.3**2) / 2)
    assert losses.mask_area(torch.full((2, 1, 4, 4), 0.3), 0.25).item() == 0
    # Each image for itself: one that is all covered does not pay for another that is not.
    assert losses.mask_area(torch.tensor([1.0, 0.0])[:, None, None, None], 0.4).item() == pytest.approx(0.4**2 / 2)
    # It pushes a mask open.
    alpha = torch.zeros(1, 1, 2, 2, requires_grad=True)
    losses.mask_area(alpha, 0.3).backward()
    assert (alpha.grad < 0).all()


def test_a_change_outside_the_face_pays_for_what_exceeds_a_twentieth_of_the_range():
    outside = torch.tensor([[True, True], [True, False]])
    real = torch.zeros(2, 3, 2, 2)
    fake = real.clone()
    fake[0, :, 0, 0] = torch.tensor([0.9, -0.3, 0.0])  # 0.4 per channel, 0.3 too many
    fake[0, :, 0, 1] = 0.1  # free
    fake[1, :, 1, 1] = 1.0  # in the face
    assert losses.change_outside(fake, real, outside).item() == pytest.approx(0.3 / (3 * 2))
    assert losses.change_outside(real, real, outside).item() == 0


def test_a_student_pays_the_mean_absolute_distance_to_its_teacher():
    taught = torch.zeros(2, 3, 4, 5)
    fake = taught.clone()
    fake[0, 1, 2, 3], fake[1, 2, 0, 0] = 1.5, -0.5
    assert losses.distillation(fake, taught).item() == pytest.approx(2.0 / 120)
    assert losses.distillation(fake.bfloat16(), taught.bfloat16()).dtype == torch.float32


def test_the_gradient_penalty_of_a_function_whose_gradient_is_known():
    weight = torch.tensor([[0.5, -1.0], [2.0, 0.0]])

    class Linear(torch.nn.Module):
        """D(x) = sum(w * x), times a slope: its gradient is slope * w everywhere."""

        def __init__(self):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(3.0))

        def forward(self, x):
            return self.slope * (weight * x).sum((1, 2, 3))

    D = Linear()
    penalty = losses.r1(D, torch.randn(4, 1, 2, 2))
    assert penalty.item() == pytest.approx(9 * (0.25 + 1 + 4) / 2)  # alike for every image, so their mean
    penalty.backward()
    assert D.slope.grad.item() == pytest.approx(2 * 3 * 5.25 / 2)  # it can be trained on

    # D(x) = sum(x^2) / 2 has the gradient x.
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[:, None, None]
    quadratic = torch.nn.Module()
    quadratic.forward = lambda x: x.square().sum((1, 2, 3)) / 2
    assert losses.r1(quadratic, x).item() == pytest.approx(((1 + 4) + (9 + 16)) / 2 / 2)
    assert not x.requires_grad
