"""`TrainConfig`: every knob of a training, one documented field each, checked on construction."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from cyclegan.model import DIRECTIONS
from cyclegan.networks import GeneratorConfig
from train.errors import TrainingError

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """A PatchGAN (Isola et al. 2017): ``layers`` strided convolutions, one verdict per overlapping patch."""

    filters: int = 64
    """Channels of the first layer, doubled per layer up to eight times."""
    layers: int = 3
    """Strided layers: 3 is the 70x70 PatchGAN; 4 sees 142x142 pixels."""
    norm: str = "instance"
    """``"instance"`` as in the paper, ``"spectral"`` (Miyato et al. 2018), ``"batch"`` or ``"none"``."""
    scales: int = 1
    """At how many sizes, halved by max-pooling, the one network judges an image."""
    dilated: bool = False
    """Dilate the unstrided layer by 2, so that it sees further at the same cost (Yu and Koltun 2016)."""
    coarse: bool = False
    """Without the PatchGAN's unstrided layer: one verdict per ``2**layers`` pixels, [B, 1, H/8, W/8] for 3 layers."""
    sigmoid: bool = False
    """Squash the verdicts to [0, 1], as early tutorials do; the paper leaves them unbounded."""
    unshuffle: int = 1
    """Judge images at 1/2 or 1/4 of their size with their pixels rearranged into channels: a patch is so much larger,
    and costs little more."""
    channels: int = 3
    """Image channels."""

    def __post_init__(self):
        if self.norm not in ("instance", "spectral", "batch", "none"):
            raise TrainingError(
                f'Discriminator norm must be "instance", "spectral", "batch" or "none", not "{self.norm}".'
            )
        if min(self.filters, self.layers, self.scales, self.channels) < 1:
            raise TrainingError("A discriminator needs at least 1 filter, 1 strided layer, 1 scale and 1 channel.")
        if self.unshuffle not in (1, 2, 4):  # as a generator's
            raise TrainingError(f"A discriminator's unshuffle must be 1, 2 or 4, not {self.unshuffle!r}.")

    @property
    def smallest(self) -> int:
        """Side in pixels of the smallest image it can judge: what the strides leave holds the last 4x4 kernels."""
        return self.unshuffle * (4 if self.dilated else 3) << (self.layers + self.scales - 1)


@dataclass(frozen=True)
class TrainConfig:
    """A whole training. Lengths are counted in pairs: one image of each domain, so that batch size is free."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Shape of G_AB and G_BA."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """Shape of D_A and D_B."""

    stages: tuple[tuple[int, float], ...] = ((256, 0.0),)
    """(image height in pixels, progress in [0, 1) at which it begins), growing; the last is the size served. Where the
    generator has a ``reduce``, it is trained on images that much smaller."""
    aspect: float = 1.0
    """Width over height of the images."""
    flip: bool = True
    """Mirror images left to right with probability 0.5."""
    enlarge: float = 1.0
    """Cut the images at random from ones larger by this factor: the paper's jitter is 286 / 256."""

    pairs: int = 1_000_000
    """Length of the training, unless ``epochs`` or ``hours`` is given."""
    epochs: float | None = None
    """Length in passes through the larger domain."""
    hours: float | None = None
    """Length in hours of wall-clock time: schedules then follow the clock, and a resumed run what it had left."""
    start_epoch: float = 0.0
    """Enter the schedules as if so many epochs were over, to go on from the weights of an earlier training."""
    batch: int = 1
    """Pairs per step, over all processes."""
    accumulate: int = 1
    """Parts a batch is cut into, to fit into memory."""

    optimizer: str = "adam"
    """``"adam"`` or ``"rmsprop"``."""
    lr: float = 2e-4
    """Step size of the generators."""
    lr_ratio: float = 1.0
    """Step size of the discriminators in units of the generators': above 1 they keep up (Heusel et al. 2017)."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's momenta; RMSprop's decay is the second."""
    decay_from: float = 0.5
    """Progress at which the step size starts its linear fall to zero; 1 for none."""
    discriminator_steps: int = 1
    """Steps of the discriminators, each on images of its own, per step of the generators."""
    alternate: bool = False
    """Train generators and discriminators in turns of an epoch instead of in every step."""
    unfreeze: int = 0
    """How often the decoder starts frozen and is freed layer by layer, the last first, over equal parts of the run."""
    only: str | None = None
    """``"A2B"`` or ``"B2A"``: train the generator of this direction, while the other stays as it began."""

    adversarial: str = "squared"
    """Distance of verdicts from 1 and 0: ``"squared"`` (least squares, Mao et al. 2017) or ``"absolute"``."""
    cycle: float = 10.0
    """Weight of the cycle-consistency loss, relative to the adversarial loss."""
    cycle_size: int | None = None
    """Compare cycles at this height: what is finer may change, as eyes that become a drawing's (SPatchGAN, 2021)."""
    identity: float = 5.0
    """Weight of the identity loss at the start."""
    identity_end: float = 5.0
    """Weight of the identity loss from ``decay_from`` on; linear in between. 0 skips its work altogether."""
    identity_chance: float | None = None
    """Apply, step by step, only one of the two: the identity loss with this probability, else the cycle loss."""
    distill: float = 0.0
    """Weight of the distance to a teacher's translations."""
    mask_area: float = 0.0
    """Least share of the image a generator's mask must cover on average, falling to 0 from ``decay_from`` on."""
    keep_outside: float = 0.0
    """Weight of what changes by more than a twentieth of the range outside the face of aligned crops, so that the
    background stays."""
    r1: float = 0.0
    """Weight of the gradient penalty on real images, applied lazily every 16 steps (Mescheder et al. 2018)."""
    noise: float = 0.0
    """Standard deviation of the noise added to all that discriminators see, pixels in [-1, 1], falling to 0 at
    ``decay_from``."""
    augment_from: float = 1.0
    """Progress from which all that discriminators see is lightly moved and recoloured, so that they do not learn few
    images by heart; 1 for never. From the start it slows learning down."""
    buffer: int = 50
    """Generated images per domain kept to be shown to the discriminators again; 0 for none."""
    ema_halflife: int = 4000
    """Pairs after which a weight's share in the exponential moving average has halved; 0 for no average."""

    precision: str = "bfloat16"
    """``"float32"``, ``"bfloat16"`` for mixed precision, or ``"float16"`` for mixed precision with scaled gradients."""
    compile: bool = True
    """Compile the networks (torch.compile; needs a C++ compiler on the CPU)."""
    validation: int = 200
    """Images per domain kept out of training, at most a tenth: for sample grids, and to choose settings by."""
    seed: int = 0
    """Seed of initial weights, order and augmentation."""
    log_every: int = 400
    """Pairs between two lines of the loss log."""
    save_every: int = 4000
    """Pairs between two snapshots with sample grid and training state."""

    def __post_init__(self):
        sizes = [size for size, _ in self.stages]
        starts = [start for _, start in self.stages]
        if not sizes:
            raise TrainingError("A training needs at least one stage.")
        if sizes != sorted(sizes) or starts[0] != 0 or starts != sorted(starts) or starts[-1] >= 1:
            raise TrainingError("Stages must grow in size, and begin at 0 and below 1 in rising order.")
        if not 0.1 <= self.aspect <= 10:
            raise TrainingError("The aspect ratio must lie between 0.1 and 10.")
        sides = [side for size in sizes for side in self.shape(size)]
        reduce, step = self.generator.reduce, self.generator.step
        if any(side % (step // reduce) or not 4 * step <= reduce * side <= 1024 for side in sides) or any(
            size % reduce for size in sizes
        ):
            unshuffle, pool = self.generator.unshuffle, self.generator.skip_pool
            factors = f"skip_pool {pool}" if pool > 4 * unshuffle else f"4 x unshuffle {unshuffle}"
            times = "" if step == 4 else f" ({factors} x reduce {reduce})"
            raise TrainingError(f"Image sizes must be divisible by {step}{times} and from {4 * step} to 1024.")
        if min(sides) < self.discriminator.smallest:
            raise TrainingError(
                f"A discriminator with {self.discriminator.layers} strided layers and {self.discriminator.scales} "
                f"scale(s) needs images of at least {self.discriminator.smallest} pixels, not {min(sides)}."
            )
        if self.generator.channels != self.discriminator.channels or self.generator.channels not in (1, 3):
            raise TrainingError("Generators and discriminators must both work on 1 or on 3 channels.")
        lengths = (self.batch, self.accumulate, self.pairs, self.lr, self.log_every, self.save_every)
        if min(*lengths, self.discriminator_steps, self.lr_ratio, self.enlarge) <= 0:
            raise TrainingError(
                "Batch, accumulate, pairs, lr, lr_ratio, discriminator_steps, enlarge, log_every and save_every must "
                "be positive."
            )
        if self.enlarge < 1:
            raise TrainingError("enlarge must be at least 1.")
        if any(length is not None and length <= 0 for length in (self.hours, self.epochs)):
            raise TrainingError("Hours and epochs must be positive.")
        if self.epochs is not None and self.start_epoch >= self.epochs:
            raise TrainingError("start_epoch must lie before the last of the epochs.")
        if self.hours is not None and self.start_epoch:
            raise TrainingError("start_epoch needs a length in epochs or pairs, not in hours.")
        if self.mask_area and not self.generator.mask:
            raise TrainingError("mask_area needs a generator with a mask. Leave out --no-mask, or add --mask-area 0.")
        if self.batch % self.accumulate:
            raise TrainingError("accumulate must divide the batch.")
        weights = (self.cycle, self.identity, self.identity_end, self.distill, self.mask_area, self.keep_outside)
        penalties = (self.r1, self.noise)
        counts = (self.buffer, self.ema_halflife, self.validation, self.start_epoch, self.unfreeze)
        if min(*weights, *penalties, *counts) < 0:
            raise TrainingError(
                "Weights, noise, buffer, ema_halflife, validation, start_epoch and unfreeze must not be negative."
            )
        if self.cycle_size is not None and self.cycle_size < 4:
            raise TrainingError("cycle_size must be at least 4 pixels.")
        if self.identity_chance is not None and not 0 <= self.identity_chance <= 1:
            raise TrainingError("identity_chance must lie in [0, 1].")
        if not (0 <= self.decay_from <= 1 and 0 <= self.augment_from <= 1):
            raise TrainingError("decay_from and augment_from must lie in [0, 1].")
        if self.precision not in PRECISIONS:
            raise TrainingError(f'Precision must be one of {", ".join(PRECISIONS)}, not "{self.precision}".')
        if self.optimizer not in ("adam", "rmsprop"):
            raise TrainingError(f'The optimizer must be "adam" or "rmsprop", not "{self.optimizer}".')
        if self.only not in (None, *DIRECTIONS):
            raise TrainingError(f'only must be "A2B" or "B2A", not "{self.only}".')
        if self.adversarial not in ("squared", "absolute"):
            raise TrainingError(f'adversarial must be "squared" or "absolute", not "{self.adversarial}".')

    @property
    def image_size(self) -> int:
        """Height in pixels of the images the finished model serves."""
        return self.stages[-1][0]

    def shape(self, height: int) -> tuple[int, int]:
        """(height, width) in pixels of the images that a stage is trained on: smaller by the generator's ``reduce``."""
        height, step = height // self.generator.reduce, 4 * self.generator.unshuffle
        return height, step * round(height * self.aspect / step)

    @property
    def cycle_shape(self) -> tuple[int, int] | None:
        """(height, width) in pixels at which cycles are compared; None for that of the images."""
        return None if self.cycle_size is None else (self.cycle_size, round(self.cycle_size * self.aspect) or 1)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return json.loads(json.dumps(asdict(self)))


def as_of_now(saved: dict[str, Any]) -> dict[str, Any]:
    """Settings as `TrainConfig.to_json` once gave them, with today's defaults for those that did not exist then."""
    now = TrainConfig().to_json()
    nested = {name: now[name] | saved.get(name, {}) for name in ("generator", "discriminator")}
    return now | saved | nested


@dataclass(frozen=True)
class About:
    """What the page says of the model; human words live here and in ``config.json``, never in code."""

    name: str
    """Folder and command-line name."""
    title: str
    """Name for people."""
    domains: tuple[str, str]
    """What images of A and of B show."""
    directions: tuple[str, str]
    """What A2B and B2A do, as an order: "Add glasses", "Remove glasses"."""
    description: str = ""
    """One or two sentences."""
    license: str = ""
    """Terms of the weights."""
    command: str = ""
    """The command line that made it."""
