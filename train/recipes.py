"""The table of named recipes. A recipe is a TrainConfig; the command line only overrides its fields."""

from cyclegan.networks import GeneratorConfig
from train.config import DiscriminatorConfig, TrainConfig
from train.errors import TrainingError

RECIPES = {
    # Ours: small images first, a generator that works at a quarter of the resolution, and little weight on
    # staying the same, so that something changes within hours on a CPU.
    "face": TrainConfig(
        generator=GeneratorConfig(filters=24, blocks=6),
        discriminator=DiscriminatorConfig(filters=48, layers=3, norm="instance"),
        stages=((64, 0.0), (96, 0.3)),
        pairs=100_000,
        batch=2,
        betas=(0.5, 0.99),
        cycle=5.0,
        identity=2.0,
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
