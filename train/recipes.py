"""The table of named recipes. A recipe is a TrainConfig; the command line only overrides its fields."""

from dataclasses import replace
from typing import Any

from cyclegan.networks import GeneratorConfig
from train.config import DiscriminatorConfig, TrainConfig
from train.errors import TrainingError

# What early reproductions share: plain float32, weights as they are after the last step.
_CLASSIC: dict[str, Any] = dict(precision="float32", compile=False, ema_halflife=0)

# Zhu et al. 2017, 4 and 7: 200 epochs one image at a time, linear decay over the second half, 286-pixel images cut
# to 256 at random.
_PAPER = TrainConfig(
    generator=GeneratorConfig(filters=64, blocks=9, upsample="transposed"),
    stages=((256, 0.0),),
    enlarge=286 / 256,
    epochs=200,
    decay_from=0.5,
    batch=1,
    cycle=10.0,
    identity=5.0,
    identity_end=5.0,
    buffer=50,
    **_CLASSIC,
)

# The first glasses project: upsample + convolution, discriminators with a sigmoid trained more often than the
# generators, cycle or identity loss drawn per step, the decoder freed layer by layer, twice.
_GLASSES_V1 = TrainConfig(
    generator=GeneratorConfig(filters=32, blocks=6, upsample="nearest"),
    discriminator=DiscriminatorConfig(filters=64, layers=3, sigmoid=True),
    stages=((128, 0.0),),
    epochs=100,
    batch=4,
    discriminator_steps=3,
    decay_from=1.0,
    cycle=10.0,
    identity=5.0,
    identity_end=5.0,
    identity_chance=0.1,
    unfreeze=2,
    buffer=0,
    **_CLASSIC,
)

_FACE2ANIME = TrainConfig(
    generator=GeneratorConfig(filters=64, blocks=6, upsample="transposed"),
    stages=((128, 0.0),),
    epochs=100,
    batch=1,
    lr=2e-4,
    cycle=10.0,
    buffer=50,
    flip=True,
    **_CLASSIC,
)

# The fast-neural-style generator (Johnson et al. 2016) that grows 48 -> 256 px with the same kernels over 110 epochs;
# absolute instead of squared verdicts, generators and discriminators in turns of an epoch.
_UTK = TrainConfig(
    generator=GeneratorConfig(filters=32, blocks=5, kernel=9),
    discriminator=DiscriminatorConfig(filters=64, layers=3, norm="batch", coarse=True),
    stages=tuple((size, after / 110) for size, after in ((48, 0), (64, 15), (96, 40), (128, 70), (256, 90))),
    epochs=110,
    batch=8,
    decay_from=1.0,
    alternate=True,
    adversarial="absolute",
    cycle=10.0,
    identity=5.0,
    identity_end=5.0,
    buffer=0,
    **_CLASSIC,
)

# Ours: a generator that paints only where its mask lets it, so that background, colours and identity stay by
# construction and neither identity loss nor large cycle weight is needed to hold them. The mask is kept open until
# half of the run is over: left alone it closes before anything is learnt. Even then it stays half transparent, which
# adds what is missing and takes nothing away: so the last layers see the input, too, and can filter it. All networks
# work on pixels rearranged into channels, at a quarter of the cost. The discriminators learn four times as fast as
# the generators, which otherwise keep them at guessing (loss 0.25). train/README.md has the comparison.
_FACE = TrainConfig(
    generator=GeneratorConfig(filters=24, blocks=6, mask=True, skip=True, unshuffle=2),
    discriminator=DiscriminatorConfig(filters=48, layers=3, unshuffle=2),
    stages=((128, 0.0),),
    pairs=100_000,
    batch=4,
    lr_ratio=4.0,
    betas=(0.5, 0.99),
    cycle=3.0,
    identity=0.0,
    identity_end=0.0,
    mask_area=0.4,
    ema_halflife=2000,
)

RECIPES = {
    "face": _FACE,
    # A small student of a trained model, for `distill`: the teacher gives the direction, the discriminators the detail.
    "student": replace(
        _FACE,
        generator=replace(_FACE.generator, filters=16),
        pairs=50_000,
        lr=4e-4,
        lr_ratio=1.0,
        decay_from=0.3,
        cycle=1.0,
        mask_area=0.0,
        distill=20.0,
    ),
    "paper": _PAPER,
    # Anything to anything, whole pictures: the paper's settings, size and lengths by flag.
    "any-two-folders": _PAPER,
    "glasses-v1": _GLASSES_V1,
    # The second glasses project: switchable normalisation, dropout, one discriminator over three sizes, RMSprop.
    "glasses-v2": TrainConfig(
        generator=GeneratorConfig(filters=32, blocks=6, norm="switchable", dropout=0.5),
        discriminator=DiscriminatorConfig(filters=64, layers=3, scales=3),
        stages=((128, 0.0),),
        epochs=100,
        batch=4,
        optimizer="rmsprop",
        lr=1e-4,
        betas=(0.5, 0.99),
        decay_from=1.0,
        cycle=10.0,
        identity=5.0,
        identity_end=5.0,
        **_CLASSIC,
    ),
    # Faces to anime faces, 128 px: one pair at a time with the pool of 50 images, or four without.
    # --dilated and --noise are its options.
    "face2anime-1": _FACE2ANIME,
    "face2anime-2": replace(_FACE2ANIME, batch=4, buffer=0),
    # selfie2anime: 256 px, 70x70 PatchGAN with 30x30 verdicts, float16 with scaled gradients, five epochs.
    "selfie2anime": TrainConfig(
        generator=GeneratorConfig(filters=64, blocks=9, upsample="transposed"),
        discriminator=DiscriminatorConfig(filters=64, layers=3),
        stages=((256, 0.0),),
        epochs=5,
        batch=1,
        lr=1e-4,
        betas=(0.55, 0.999),
        decay_from=1.0,
        cycle=10.0,
        identity=5.0,
        identity_end=5.0,
        precision="float16",
        compile=False,
        ema_halflife=0,
    ),
    "utk-age": _UTK,
    "utk-ethnicity": _UTK,
    "utk-gender": _UTK,
}
DEFAULT = "face"


def recipe(name: str) -> TrainConfig:
    """The recipe of this name; raises TrainingError listing the known ones."""
    if name not in RECIPES:
        raise TrainingError(f'There is no recipe "{name}". Known recipes: {", ".join(RECIPES)}.')
    return RECIPES[name]
