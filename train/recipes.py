"""The table of named recipes. A recipe is a TrainConfig; the command line only overrides its fields."""

from cyclegan.networks import GeneratorConfig
from train.config import DiscriminatorConfig, TrainConfig
from train.errors import TrainingError

RECIPES = {
    # Ours, for hours on a CPU: small images first, a narrow generator, and little weight on staying the same, so that
    # something changes. The discriminators learn four times as fast as the generators: at equal speed the generators
    # keep them at guessing (loss 0.25), while against generators held still they reach 0.03 within 120 steps.
    "face": TrainConfig(
        generator=GeneratorConfig(filters=24, blocks=6),
        discriminator=DiscriminatorConfig(filters=48, layers=3, norm="instance"),
        stages=((64, 0.0), (96, 0.3)),
        pairs=100_000,
        batch=2,
        lr_ratio=4.0,
        betas=(0.5, 0.99),
        cycle=3.0,
        identity=1.0,
        identity_end=0.0,
        ema_halflife=2000,
    ),
    # Zhu et al. 2017: 200 epochs of about 1,000 images, one at a time.
    "paper": TrainConfig(
        generator=GeneratorConfig(filters=64, blocks=9, upsample="transposed"),
        pairs=200_000,
        precision="float32",
        compile=False,
        ema_halflife=0,
    ),
}
DEFAULT = "face"


def recipe(name: str) -> TrainConfig:
    """The recipe of this name; raises TrainingError listing the known ones."""
    if name not in RECIPES:
        raise TrainingError(f'There is no recipe "{name}". Known recipes: {", ".join(RECIPES)}.')
    return RECIPES[name]
