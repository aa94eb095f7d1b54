"""`TrainConfig`: every knob of a training, one documented field each, checked on construction."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from cyclegan.networks import GeneratorConfig
from train.errors import TrainingError


@dataclass(frozen=True)
class DiscriminatorConfig:
    """A PatchGAN (Isola et al. 2017): ``layers`` strided convolutions, one verdict per overlapping patch."""

    filters: int = 64
    """Channels of the first layer, doubled per layer up to eight times."""
    layers: int = 3
    """Strided layers: 3 is the 70x70 PatchGAN; 4 sees 142x142 pixels."""
    norm: str = "instance"
    """``"instance"`` as in the paper, or ``"spectral"`` (Miyato et al. 2018)."""

    def __post_init__(self):
        if self.norm not in ("instance", "spectral"):
            raise TrainingError(f'Discriminator norm must be "instance" or "spectral", not "{self.norm}".')
        if self.filters < 1 or self.layers < 1:
            raise TrainingError("A discriminator needs at least 1 filter and 1 strided layer.")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training. Lengths are counted in pairs: one image of each domain, so that batch size is free."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Shape of G_AB and G_BA."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """Shape of D_A and D_B."""
    stages: tuple[tuple[int, float], ...] = ((256, 0.0),)
    """(image size in pixels, progress in [0, 1) at which it begins), growing; the last is the size served."""
    pairs: int = 1_000_000
    """Length of the training, unless ``hours`` is given."""
    hours: float | None = None
    """Length in hours of wall-clock time: schedules then follow the clock, and a resumed run what it had left."""
    batch: int = 1
    """Pairs per step."""
    lr: float = 2e-4
    """Adam step size of the generators."""
    lr_ratio: float = 1.0
    """Step size of the discriminators in units of the generators': above 1 they keep up (Heusel et al. 2017)."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam momenta."""
    decay_from: float = 0.5
    """Progress at which the step size starts its linear fall to zero."""
    cycle: float = 10.0
    """Weight of the cycle-consistency loss, relative to the adversarial loss."""
    identity: float = 5.0
    """Weight of the identity loss at the start."""
    identity_end: float = 5.0
    """Weight of the identity loss from ``decay_from`` on; linear in between. 0 skips its work altogether."""
    buffer: int = 50
    """Generated images per domain kept to be shown to the discriminators again; 0 for none."""
    ema_halflife: int = 4000
    """Pairs after which a weight's share in the exponential moving average has halved; 0 for no average."""
    flip: bool = True
    """Mirror images left to right with probability 0.5."""
    precision: str = "bfloat16"
    """``"float32"``, or ``"bfloat16"`` for mixed precision."""
    compile: bool = True
    """Compile the networks (torch.compile; needs a C++ compiler on the CPU)."""
    validation: int = 64
    """Images per domain kept out of training for the sample grids."""
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
        if any(size % 4 or not 16 <= size <= 1024 for size in sizes):
            raise TrainingError("Image sizes must be divisible by 4 and from 16 to 1024.")
        least = 3 << self.discriminator.layers  # what the strided layers leave must hold the last two 4x4 kernels
        if sizes[0] < least:
            raise TrainingError(
                f"A discriminator with {self.discriminator.layers} strided layers needs images of at least {least} "
                f"pixels, not {sizes[0]}."
            )
        lengths = (self.batch, self.pairs, self.lr, self.log_every, self.save_every)
        if min(lengths) <= 0 or (self.hours is not None and self.hours <= 0):
            raise TrainingError("Batch, pairs, hours, lr, log_every and save_every must be positive.")
        if min(self.cycle, self.identity, self.identity_end, self.buffer, self.ema_halflife, self.validation) < 0:
            raise TrainingError("Weights, buffer, ema_halflife and validation must not be negative.")
        if not 0 <= self.decay_from < 1:
            raise TrainingError("decay_from must lie in [0, 1).")
        if self.precision not in ("float32", "bfloat16"):
            raise TrainingError(f'Precision must be "float32" or "bfloat16", not "{self.precision}".')

    @property
    def image_size(self) -> int:
        """Side in pixels of the images the finished model serves."""
        return self.stages[-1][0]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return json.loads(json.dumps(asdict(self)))


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
