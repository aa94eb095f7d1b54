"""Open the page: ``python app.py``, then http://127.0.0.1:7860."""

import argparse
import os
import sys
from pathlib import Path

# Before Gradio is imported: no telemetry, no version check.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def parse_args() -> argparse.Namespace:
    # On Hugging Face Spaces the page must answer to the outside.
    host = os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1")
    port = int(os.environ.get("GRADIO_SERVER_PORT") or 7860)
    parser = argparse.ArgumentParser(description="Open the face translation page.")
    parser.add_argument("--host", default=host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="port to listen on (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="where models run")
    parser.add_argument("--share", action="store_true", help="open a public link through gradio.live")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="folder of models (default: checkpoints/ here)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Imported here so that --help and wrong usage answer at once.
    from cyclegan.errors import CycleGANError
    from cyclegan.translator import Translator
    from cyclegan.ui import build_demo, launch, warm_up
    from cyclegan.zoo import Zoo

    try:
        translator = Translator(Zoo(args.checkpoints) if args.checkpoints else Zoo(), device=args.device)
    except CycleGANError as error:
        sys.exit(str(error))
    demo = build_demo(translator)
    try:
        launch(demo, server_name=args.host, server_port=args.port, share=args.share, prevent_thread_lock=True)
    except OSError:
        sys.exit(f"The page cannot open at {args.host}:{args.port}. Choose another --port or --host.")
    warm_up(translator)  # only now: the page comes first
    demo.block_thread()


if __name__ == "__main__":
    main()
