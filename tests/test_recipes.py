"""`train.recipes`: every recipe is what its row of the guide says, and runs."""

from dataclasses import replace
from math import ceil

import pytest
import torch
from train_fixtures import ABOUT, one_thread, quick_plots, write_domains  # noqa: F401

from cyclegan.model import CycleGAN
from cyclegan.networks import Generator, GeneratorConfig
from train import recipes, schedule
from train.__main__ import _parser, resolve
from train.config import DiscriminatorConfig, TrainConfig
from train.discriminators import PatchDiscriminator
from train.errors import TrainingError
from train.log import read_log
from train.loop import fit

pytestmark = pytest.mark.usefixtures("one_thread", "quick_plots")

NAMES = {
    *("face", "student", "paper", "any-two-folders", "glasses-v1", "glasses-v2", "face2anime-1", "face2anime-2"),
    *("selfie2anime", "utk-age", "utk-ethnicity", "utk-gender"),
}
CLASSIC = NAMES - {"face", "student"}


def test_the_recipes_of_the_guide_are_there():
    assert set(recipes.RECIPES) == NAMES


def test_the_default_recipe_exists():
    assert recipes.recipe(recipes.DEFAULT) is recipes.RECIPES["face"]


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(TrainingError) as caught:
        recipes.recipe("pepper")
    known = "face, student, paper, any-two-folders, glasses-v1, glasses-v2, face2anime-1, face2anime-2, selfie2anime, "
    assert str(caught.value) == f'There is no recipe "pepper". Known recipes: {known}utk-age, utk-ethnicity, utk-gender.'


# What each one fixes. -----------------------------------------------------------------------------------------------


def test_the_paper_s_recipe_is_the_paper():
    paper = recipes.recipe("paper")
    assert paper.generator == GeneratorConfig(filters=64, blocks=9, stem=1, upsample="transposed")
    assert paper.discriminator == DiscriminatorConfig(filters=64, layers=3, norm="instance")
    assert paper.stages == ((256, 0.0),) and paper.enlarge == 286 / 256 and paper.flip
    assert (paper.batch, paper.optimizer, paper.lr, paper.lr_ratio, paper.betas) == (1, "adam", 2e-4, 1, (0.5, 0.999))
    assert (paper.adversarial, paper.cycle, paper.identity, paper.identity_end) == ("squared", 10, 5, 5)
    assert (paper.buffer, paper.discriminator_steps) == (50, 1)
    # 200 epochs, the second half of them with a step size that falls to zero.
    assert paper.epochs == 200
    for epoch, share in ((0, 1), (50, 1), (100, 1), (150, 0.5), (199, 0.01)):
        at = schedule.progress(paper, epoch * 1000, 0, 1000)
        assert schedule.learning_rate(paper, at) == pytest.approx(2e-4 * share)
    # The snapshot is the last weights, in the paper's precision.
    assert (paper.ema_halflife, paper.precision) == (0, "float32")


def test_any_two_folders_is_the_paper_with_everything_by_flag():
    assert recipes.recipe("any-two-folders") == recipes.recipe("paper")
    flags = "--height 128 --width 192 --channels 1 --blocks 6 --epochs 50 --start-epoch 10 --batch 4 --cycle 7"
    words = ["fit", "--recipe", "any-two-folders", "--data", "x", "--run", "x", *flags.split()]
    config = resolve(_parser().parse_args(words))
    assert config.shape(config.image_size) == (128, 192)
    assert (config.generator.channels, config.discriminator.channels, config.generator.blocks) == (1, 1, 6)
    assert (config.epochs, config.start_epoch, config.batch, config.cycle) == (50, 10, 4, 7)


def test_glasses_v1():
    recipe = recipes.recipe("glasses-v1")
    assert (recipe.generator.upsample, recipe.generator.norm) == ("nearest", "instance")
    assert recipe.discriminator.sigmoid and recipe.adversarial == "squared"
    assert recipe.discriminator_steps == 3 and recipe.identity_chance == 0.1 and recipe.unfreeze == 2
    assert recipe.cycle > 0 and recipe.identity == recipe.identity_end > 0
    layers = len(Generator(recipe.generator).decoder_layers())
    frozen = [schedule.frozen_layers(recipe, step / 1000, layers) for step in range(1000)]
    # All, then one layer less at a time down to none; and again.
    assert [count for count, before in zip(frozen, [None, *frozen], strict=False) if count != before] == [3, 2, 1, 0] * 2


def test_glasses_v2():
    recipe = recipes.recipe("glasses-v2")
    assert recipe.generator.norm == "switchable" and recipe.generator.dropout > 0
    assert recipe.discriminator.scales == 3 and recipe.optimizer == "rmsprop"
    with torch.device("meta"):
        scores = PatchDiscriminator(recipe.discriminator)(torch.empty(2, 3, 128, 128))
    assert scores.shape == (2, 1, 1, 14 * 14 + 6 * 6 + 2 * 2)


@pytest.mark.parametrize(("name", "batch", "buffer"), [("face2anime-1", 1, 50), ("face2anime-2", 4, 0)])
def test_face2anime(name, batch, buffer):
    recipe = recipes.recipe(name)
    assert recipe.stages == ((128, 0.0),) and recipe.flip and recipe.lr == 2e-4
    assert (recipe.batch, recipe.buffer) == (batch, buffer)
    words = ["fit", "--recipe", name, "--data", "x", "--run", "x", "--dilated", "--noise", "0.1"]
    options = resolve(_parser().parse_args(words))
    assert options == replace(recipe, noise=0.1, discriminator=replace(recipe.discriminator, dilated=True))


def test_selfie2anime():
    recipe = recipes.recipe("selfie2anime")
    assert recipe.stages == ((256, 0.0),) and recipe.generator.blocks == 9 and recipe.epochs == 5
    assert (recipe.lr, recipe.betas, recipe.cycle, recipe.precision) == (1e-4, (0.55, 0.999), 10, "float16")
    with torch.device("meta"):
        assert PatchDiscriminator(recipe.discriminator)(torch.empty(1, 3, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize("name", ["utk-age", "utk-ethnicity", "utk-gender"])
def test_utk(name):
    recipe = recipes.recipe(name)
    # Johnson et al. 2016: 32 filters, five residual blocks, kernels of 9 at both ends.
    assert recipe.generator == GeneratorConfig(filters=32, blocks=5, kernel=9, upsample="nearest")
    assert recipe.discriminator.norm == "batch" and recipe.adversarial == "absolute" and recipe.alternate
    sizes = {}
    for epoch in range(ceil(recipe.epochs)):
        size = schedule.image_size(recipe, schedule.progress(recipe, epoch * 700, 0, 700))
        sizes[size] = sizes.get(size, 0) + 1
    assert sizes == {48: 15, 64: 25, 96: 30, 128: 20, 256: 20}
    with torch.device("meta"):
        for size in sizes:
            scores = PatchDiscriminator(recipe.discriminator)(torch.empty(2, 3, size, size))
            assert scores.shape == (2, 1, size // 8, size // 8)


def test_the_student_is_small_enough_to_be_served_live():
    from cyclegan.networks import count_macs

    recipe = recipes.recipe("student")
    assert recipe.distill > 0 and count_macs(recipe.generator, 128, 128) <= 3e9


@pytest.mark.parametrize("name", sorted(CLASSIC))
def test_reproductions_keep_the_last_weights_and_compile_nothing(name):
    recipe = recipes.RECIPES[name]
    assert (recipe.ema_halflife, recipe.compile, recipe.generator.mask, recipe.r1) == (0, False, False, 0)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_recipe_s_networks_fit_its_sizes(name):
    config = recipes.RECIPES[name]
    with torch.device("meta"):
        generator = Generator(config.generator)
        for size, _ in config.stages:
            x = torch.zeros(1, 3, size, size)
            assert generator(x).shape == x.shape
            assert PatchDiscriminator(config.discriminator)(x).numel() >= 1
    if config.generator.filters < 64:  # the wide ones are what they are
        assert 2 * 2 * sum(weight.numel() for weight in generator.parameters()) < 10_000_000


# Each runs. ---------------------------------------------------------------------------------------------------------


def shrunk(config: TrainConfig) -> TrainConfig:
    """The same recipe with narrow networks on small images, for two passes through six of them."""
    layers = 2 if config.discriminator.scales == 1 else 1
    return replace(
        config,
        generator=replace(config.generator, filters=2, blocks=1),
        discriminator=replace(config.discriminator, filters=2, layers=layers),
        stages=tuple((24 + 4 * number, start) for number, (_, start) in enumerate(config.stages)),
        epochs=2,
        batch=2,
        compile=False,
        log_every=2,
        save_every=6,
    )


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_recipe_runs_from_its_start_to_its_model(name, tmp_path):
    config = shrunk(recipes.RECIPES[name])
    data, run = write_domains(tmp_path / "data", 6, 40), tmp_path / "run"
    teacher = None
    if config.distill:
        teacher = tmp_path / "teacher"
        fit(shrunk(recipes.RECIPES["face"]), data, tmp_path / "before", teacher, ABOUT)
    fit(config, data, run, tmp_path / "model", ABOUT, teacher=teacher)
    state = torch.load(run / "state.pt", weights_only=True)
    assert (state["pairs"], state["steps"]) == (12, 6)
    rows = read_log(run)
    assert {int(row["size"]) for row in rows} <= {size for size, _ in config.stages} and len(rows) >= 6
    logged = {row["loss"] for row in rows}
    assert {"adversarial_AB", "adversarial_BA", "D_A", "D_B"} <= logged
    model = CycleGAN.from_pretrained(tmp_path / "model")
    assert model.config.training["recipe"] == config.to_json()
    assert model.config.image_size == config.image_size
    if config.ema_halflife == 0:
        for key, value in state["G_AB"].items():
            assert torch.equal(value.half().float(), model.state_dict()[f"G_AB.{key}"]), key
