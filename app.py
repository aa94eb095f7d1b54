"""Open the page: ``python app.py``, then http://127.0.0.1:7860."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

# Before Gradio is imported: no telemetry, no version check.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def parse_args() -> argparse.Namespace:
    # On Hugging Face Spaces the page must answer to the outside.
    host = os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1")
    port = os.environ.get("GRADIO_SERVER_PORT")
    parser = argparse.ArgumentParser(description="Open the face translation page.")
    parser.add_argument("--host", type=_host, default=host, help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=_port,
        default=port,
        help=f"port to listen on (default: {port or 'the first free one from 7860'})",
    )
    parser.add_argument(
        "--root-path",
        metavar="PATH",
        default=os.environ.get("GRADIO_ROOT_PATH"),
        help="where a reverse proxy serves the page, such as /faces",
    )
    parser.add_argument("--share", action="store_true", help="open a public link through gradio.live for a week")
    parser.add_argument(
        "--auth", type=_account, action="append", metavar="USER:PASSWORD", help="ask for this; may be given repeatedly"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="cpu" if ZERO_GPU else "auto",
                        help="where models run (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--checkpoints", type=_folder, metavar="DIR", help="folder of models (default: checkpoints/ here)"
    )
    parser.add_argument(
        "--add-models",
        action=argparse.BooleanOptionalAction,
        help="whether visitors may add models for their visit (default: only on 127.0.0.1 without --share or "
        "--root-path; behind a proxy or tunnel that others use give --no-add-models)",
    )
    args = parser.parse_args()
    if args.add_models is None:
        args.add_models = args.host in ("127.0.0.1", "localhost") and not (args.share or args.root_path)
    return args


def _host(text: str) -> str:
    if ":" in text:  # Gradio makes addresses of it that are none
        raise argparse.ArgumentTypeError("IPv6 is not served: give a name, an IPv4 address, or 0.0.0.0 for all.")
    return text


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f'there is no folder "{Path(text).name}".')
    return Path(text)


def _port(text: str) -> int:
    if not 1 <= (port := int(text)) <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535.")
    return port


def _account(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise argparse.ArgumentTypeError("give a user and a password as USER:PASSWORD.")
    return user, password


def keep_files_apart() -> None:
    """Have Gradio keep photos where only this user can see them, and not where all of its programs do.

    What others keep there is not ours to delete, and we may not be allowed to write there.
    """
    if "GRADIO_TEMP_DIR" in os.environ or not hasattr(os, "getuid"):
        return
    folder = Path(tempfile.gettempdir(), f"face-translation-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        ours = folder.stat().st_uid == os.getuid() and not folder.is_symlink()
        if ours:
            folder.chmod(0o700)
    except FileExistsError:  # no folder
        ours = False
    os.environ["GRADIO_TEMP_DIR"] = str(folder) if ours else tempfile.mkdtemp(prefix="face-translation-")


def join_zero_gpu() -> None:
    """Meet ZeroGPU's one condition: a function that may ask for a GPU.

    It is never called. A face takes the processor less time than it takes to borrow a GPU, which would be charged to
    the visitor's daily quota.
    """
    import spaces  # first: it has to come before PyTorch

    spaces.GPU(lambda: None)


def main() -> None:
    args = parse_args()
    keep_files_apart()
    if ZERO_GPU:
        join_zero_gpu()
    # Imported here so that --help and wrong usage answer at once.
    from cyclegan.errors import CycleGANError
    from cyclegan.translator import Translator
    from cyclegan.ui import build_demo, launch, warm_up
    from cyclegan.zoo import Zoo

    try:
        translator = Translator(Zoo(args.checkpoints) if args.checkpoints else Zoo(), device=args.device)
    except CycleGANError as error:
        sys.exit(str(error))
    demo = build_demo(translator, args.add_models)
    signal.signal(signal.SIGTERM, _stop)
    try:
        launch(
            demo,
            server_name=args.host,
            server_port=args.port,
            root_path=args.root_path,
            share=args.share,
            auth=args.auth,
            prevent_thread_lock=True,
        )
        warm_up(translator)  # only now: the page comes first
        demo.block_thread()
    except KeyboardInterrupt:  # `block_thread` minds its own
        demo.close(verbose=False)
    except OSError:
        where = f"{args.host}:{args.port}" if args.port else f"{args.host}, from port 7860 on"
        sys.exit(f"The page cannot open at {where}. Choose another --port or --host.")


def _stop(*_) -> None:
    """Have what stops services end as Ctrl-C does, which deletes the photos that are left."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
