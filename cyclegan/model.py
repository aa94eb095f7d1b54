"""A model: two generators between two domains, and the folder they live in.

The folder is exactly a Hugging Face model repository: ``config.json`` (`ModelConfig`), ``model.safetensors`` (both
generators) and ``README.md`` (the model card).
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from cyclegan.errors import BadCheckpointError, UnknownDirectionError
from cyclegan.faces.align import Template
from cyclegan.networks import Generator, GeneratorConfig
from cyclegan.quantize import Calibration, convolutions
from cyclegan.runtime import PRECISIONS

DIRECTIONS = ("A2B", "B2A")
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
GRID_FILE = "grid.png"  # a few faces and what became of them
FAILURES_FILE = "failures.jpg"  # those that came out worst
PICTURE_FILES = (GRID_FILE, FAILURES_FILE)


def check_direction(direction: str) -> str:
    """Return ``direction`` if it is A2B or B2A; raises UnknownDirectionError."""
    if direction not in DIRECTIONS:
        raise UnknownDirectionError(f'There is no direction "{direction}". Choose A2B or B2A.')
    return direction


def source(direction: str) -> str:
    """The domain a direction starts from: ``source("A2B") == "A"``."""
    return check_direction(direction)[0]


def target(direction: str) -> str:
    """The domain a direction leads to: ``target("A2B") == "B"``."""
    return check_direction(direction)[2]


def reverse(direction: str) -> str:
    """The way back: ``reverse("A2B") == "B2A"``."""
    return f"{target(direction)}2{source(direction)}"


@dataclass(frozen=True)
class Domain:
    """One side of a model."""

    label: str
    """What its images show, for people: ``"glasses"``."""
    faces: str = "mtcnn"
    """How a face is found in them: ``"mtcnn"`` for photographs, ``"square"`` for drawings."""

    def __post_init__(self):
        if self.faces not in ("mtcnn", "square"):
            raise ValueError(f'domain faces must be "mtcnn" or "square", not {self.faces!r}.')


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a model except its weights; the content of ``config.json``. Raises ValueError."""

    name: str
    """Name of the folder and on the command line: ``"glasses"``."""
    title: str
    """Name for people: ``"Glasses"``."""
    generator: GeneratorConfig
    """Both generators have this shape."""
    image_size: int
    """Side in pixels of the crops the model was trained on and is served with; divisible by the generator's `step`."""
    domains: dict[str, Domain]
    """Keys A and B."""
    directions: dict[str, str]
    """Human words for A2B and B2A: ``"Add glasses"``, ``"Remove glasses"``."""
    template: Template
    """Where the face lies in the crop."""
    precision: str = "f32"
    """In which OpenVINO computes it on processors that can: ``"f32"``, ``"bf16"`` or ``"int8"``. Measured and written
    by ``python -m cyclegan precision``; `metrics` then hold its PSNR against f32."""
    calibration: dict[str, Calibration] = field(default_factory=dict)
    """Of both directions, for ``"int8"``: the range of what each convolution sees (`quantize.calibrate`)."""
    description: str = ""
    """One or two sentences for the page."""
    license: str = ""
    """Terms of the weights, for people."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Held-out figures, each under a name that says what and on how many images."""
    training: dict[str, Any] = field(default_factory=dict)
    """How the weights were made: recipe, pairs seen, hours, a digest of the images' names, command."""

    def __post_init__(self):
        step = self.generator.step
        if type(self.image_size) is not int or self.image_size % step or not 4 * step <= self.image_size <= 1024:
            raise ValueError(
                f"image_size must be divisible by {step} and from {4 * step} to 1024, not {self.image_size}."
            )
        if self.generator.channels != 3:
            raise ValueError("The generators of a model work on images of 3 channels.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, not {self.precision!r}.")
        self._check_calibration()
        if set(self.domains) != {"A", "B"} or set(self.directions) != set(DIRECTIONS):
            raise ValueError("A model has domains A and B and directions A2B and B2A.")
        labels = [*self.directions.values(), *(domain.label for domain in self.domains.values())]
        if any(type(words) is not str for words in (self.name, self.title, self.description, self.license, *labels)):
            raise ValueError("Names, titles, labels, descriptions and licenses are texts.")
        if not isinstance(self.metrics, dict) or not isinstance(self.training, dict):
            raise ValueError("Metrics and training hold entries by name.")

    def _check_calibration(self) -> None:
        if self.precision == "int8" and set(self.calibration) != set(DIRECTIONS):
            raise ValueError("A model of precision int8 has a calibration of both directions.")
        if not self.calibration:
            return
        with torch.device("meta"):
            layers = convolutions(Generator(self.generator)).keys()
        for ranges in self.calibration.values():
            if ranges.keys() != layers:
                raise ValueError("The calibration is of another network.")
            if not all(-1e6 < low <= high < 1e6 for low, high in ranges.values()):
                raise ValueError("A calibration has a least and a greatest value for each convolution.")

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_json`; raises ValueError for missing, unknown or impossible entries."""
        try:
            values = _known(cls, data)
            values["generator"] = GeneratorConfig(**_known(GeneratorConfig, data["generator"]))
            values["domains"] = {key: Domain(**_known(Domain, value)) for key, value in data["domains"].items()}
            landmarks = tuple((float(x), float(y)) for x, y in data["template"]["landmarks"])
            values["calibration"] = {
                str(key): {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
                for key, ranges in data.get("calibration", {}).items()
            }
            values["template"] = Template(landmarks, float(data["template"]["scale"]))
            return cls(**values)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a model config: {error}.") from error


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """A copy of ``data``; ValueError names the entries that are no fields of this dataclass."""
    if unknown := set(data) - {field.name for field in fields(kind)}:
        raise ValueError(f"unknown entries: {', '.join(sorted(unknown))}.")
    return dict(data)


class CycleGAN(nn.Module):
    """The pair ``G_AB`` and ``G_BA`` with their config (Zhu et al. 2017)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.G_AB = Generator(config.generator)
        self.G_BA = Generator(config.generator)

    def generator(self, direction: str) -> Generator:
        """The generator of a direction; raises UnknownDirectionError."""
        return self.G_AB if check_direction(direction) == "A2B" else self.G_BA

    def translate(self, x: Tensor, direction: str) -> Tensor:
        """Translate a batch: float [B, 3, H, W] in [-1, 1] -> same shape and range."""
        return self.generator(direction)(x)

    def save_pretrained(self, folder: str | os.PathLike, dtype: torch.dtype = torch.float16) -> None:
        """Write ``config.json`` and ``model.safetensors``; the weights are stored as ``dtype`` (half the size)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in self.state_dict().items()}
        partial = folder / f".{WEIGHTS_FILE}.partial"
        save_file(weights, partial, metadata={"format": "pt"})
        partial.chmod(0o644)  # safetensors writes 0600, which a page run by another user could not read
        replace_durably(partial, folder / WEIGHTS_FILE)
        write_config(folder, self.config)

    @classmethod
    def from_pretrained(cls, path_or_repo_id: str | os.PathLike, revision: str | None = None) -> "CycleGAN":
        """Load from a local folder or, failing that, from the Hugging Face Hub (its local cache first).

        Strict: missing, extra or misshapen weights raise BadCheckpointError, as does a folder without the two files.
        No pickle is read. The model is returned in evaluation mode, in float32, on the CPU.
        """
        folder = Path(path_or_repo_id)
        name = folder.name
        if not folder.is_dir():
            folder = _download(str(path_or_repo_id), revision)  # named after the commit, which tells nobody anything
        return cls.from_folder(folder, name)

    @classmethod
    def from_folder(cls, folder: Path, name: str | None = None, sha256: str | None = None) -> "CycleGAN":
        """As `from_pretrained`, from a local folder only, and with ``sha256`` (hexadecimal) from no other weights.

        ``name`` is what messages call the model; by default the folder's name.
        """
        name = name or folder.name
        model = cls(read_config(folder, name))
        try:
            data = (folder / WEIGHTS_FILE).read_bytes()
            if sha256 and hashlib.sha256(data).hexdigest() != sha256:
                raise changed_since(name)
            weights = load(data)
        except FileNotFoundError as error:
            raise BadCheckpointError(f'The model "{name}" has no {WEIGHTS_FILE}.') from error
        except (SafetensorError, OSError) as error:
            raise damaged_weights(name) from error
        try:
            model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True)
        except RuntimeError as error:
            raise foreign_weights(name) from error
        return model.eval().requires_grad_(False)


def write_config(folder: Path, config: ModelConfig) -> None:
    """Write ``config.json`` of a model folder; a reader sees the old one or the new one."""
    partial = folder / f".{CONFIG_FILE}.partial"
    partial.write_text(json.dumps(config.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    replace_durably(partial, folder / CONFIG_FILE)


def replace_durably(partial: Path, path: Path) -> None:
    """Put a finished file in the place of ``path``. Readers, and whoever looks after a power cut, see the old content
    or the new, never half of one. Raises OSError."""
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_config(folder: Path, name: str | None = None) -> ModelConfig:
    """Read and check ``config.json`` of a model folder; raises BadCheckpointError.

    ``name`` is what messages call the model; by default the folder's name.
    """
    name = name or folder.name
    try:
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
        # NaN and Infinity are no JSON; as figures they are taken for missing ones.
        return ModelConfig.from_json(json.loads(text, parse_constant=lambda _: None, parse_int=_whole))
    except FileNotFoundError as error:
        raise BadCheckpointError(f'The model "{name}" has no {CONFIG_FILE}.') from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadCheckpointError(f'The {CONFIG_FILE} of the model "{name}" cannot be read.') from error
    except ValueError as error:
        raise BadCheckpointError(f'The {CONFIG_FILE} of the model "{name}" is not ours: {error}') from error


def _whole(digits: str) -> int:
    if len(digits) > 18:  # no setting is that large, and arithmetic with it would fail anywhere
        raise ValueError(f"{digits[:18]}… is too large a number.")
    return int(digits)


def damaged_weights(name: str) -> BadCheckpointError:
    """The error for a weights file that cannot be read."""
    return BadCheckpointError(f'The weights of the model "{name}" are cut off or damaged. Fetch {WEIGHTS_FILE} again.')


def changed_since(name: str) -> BadCheckpointError:
    """The error for a model folder that is no longer what it was when it was listed."""
    return BadCheckpointError(f'The model "{name}" has changed since this program started. Start it again to use it.')


def foreign_weights(name: str) -> BadCheckpointError:
    """The error for weights of another network than the config describes."""
    return BadCheckpointError(
        f'The weights of the model "{name}" do not fit its {CONFIG_FILE}: they belong to another network.'
    )


def _download(repo_id: str, revision: str | None) -> Path:
    wanted = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
    try:
        try:
            found = huggingface_hub.snapshot_download(
                repo_id, revision=revision, allow_patterns=wanted, local_files_only=True
            )
            if not all(Path(found, name).exists() for name in (CONFIG_FILE, WEIGHTS_FILE)):  # interrupted before
                raise LocalEntryNotFoundError("incomplete")
        except LocalEntryNotFoundError:
            found = huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=wanted)
    except HFValidationError as error:
        raise BadCheckpointError(f'There is no model folder "{Path(repo_id).name}".') from error
    except Exception as error:  # besides OSError, anything of whichever HTTP library the Hub client uses
        raise BadCheckpointError(
            f'There is no model folder "{Path(repo_id).name}" here, and no model "{repo_id}" could be had from the Hub.'
        ) from error
    return Path(found)
