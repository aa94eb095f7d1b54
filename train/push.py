"""A model folder to the Hugging Face Hub, where it is a model repository as it stands."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from cyclegan.model import CARD_FILE, CONFIG_FILE, PICTURE_FILES, WEIGHTS_FILE, CycleGAN
from train.errors import TrainingError

_NEEDED = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)


@dataclass(frozen=True)
class ModelFile:
    """A file that goes to the Hub."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal."""

    def __str__(self) -> str:
        return f"{self.path.name:<18} {self.size:>11,} bytes  sha256 {self.sha256}"


def model_files(folder: Path) -> list[ModelFile]:
    """What a model consists of: config, weights, card and the pictures it shows; nothing else of the folder.

    Raises BadCheckpointError for a model that the app could not load, and TrainingError for a card that is missing,
    that the Hub would not read, or that shows a picture which is not there.
    """
    if not folder.is_dir():
        raise TrainingError(f"There is no model folder {folder}.")
    CycleGAN.from_pretrained(folder)
    try:
        card = (folder / CARD_FILE).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{folder / CARD_FILE} is not in UTF-8, as the Hub wants it. Save it as UTF-8.") from error
    except FileNotFoundError as error:
        raise TrainingError(
            f"{folder} has no {CARD_FILE}. Have one written: python -m train evaluate --checkpoint {folder} --save ..."
        ) from error
    if not card.startswith("---\n"):
        raise TrainingError(f"{folder / CARD_FILE} does not begin with the Hub's metadata, between two lines of ---.")
    shown = [name for name in PICTURE_FILES if f"({name})" in card]
    for name in shown:
        if not (folder / name).exists():
            raise TrainingError(f"{folder / CARD_FILE} shows {name}, which is not in the folder.")
    paths = [folder / name for name in (*_NEEDED, *shown)]
    return [ModelFile(path, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Upload the files of `model_files` to the model repository ``repo`` ("user/name") in one commit.

    Creates the repository where it does not exist: ``private``, or as the owner's settings have it. Returns the address
    of the commit. Raises as `model_files` does, and TrainingError without a token, without a connection, when the Hub
    refuses, and for a public repository that is meant to be ``private``.
    """
    files = model_files(folder)
    if huggingface_hub.get_token() is None:
        raise TrainingError("You are not logged in to the Hub. Run `hf auth login`, or set HF_TOKEN to a write token.")
    api = HfApi()
    try:
        repo_id = api.create_repo(repo, repo_type="model", private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise TrainingError(
                f"{repo_id} exists and is public. Make it private on the Hub, or choose another --repo."
            )
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(file.path.name, file.path) for file in files],
            commit_message=f"Upload {folder.resolve().name}",
            repo_type="model",
        )
    except HFValidationError as error:
        raise TrainingError(f'"{repo}" cannot be the name of a repository: {error}') from error
    except HfHubHTTPError as error:
        raise TrainingError(_refusal(repo, error)) from error
    except TrainingError:
        raise
    except Exception as error:  # besides OSError, anything of the HTTP and storage libraries that the Hub client uses
        if isinstance(error, ValueError) and "metadata" in str(error):
            raise TrainingError(f"The Hub does not accept {folder / CARD_FILE}: {error}") from error
        raise TrainingError(f"The Hub could not be reached, or broke off ({error}). Try again later.") from error
    return commit.commit_url


def _refusal(repo: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return "The Hub does not accept your token. Run `hf auth login` again, or set HF_TOKEN to another."
    if status == 403:
        return f'Your token may not write to "{repo}". Make one with write access, or choose another --repo.'
    reason = error.server_message or f"status {status}"
    return f'The Hub refused the upload to "{repo}": {reason}'
