"""How fluently the Live tab runs on this machine: python tests/measure_live.py

The page in a process of its own, and Chromium beside it with a moving face for a camera, 640 x 480. Prints what the
page itself says of its frames, and the server's memory. Needs what the tests need (tests/requirements.txt, Chromium).
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from moving import film, write_camera
from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright
from served import CHROMIUM_FLAGS, CHROMIUM_NAMES, ROOT, page

sys.path.insert(0, str(ROOT))  # as pytest does

from cyclegan.bench import EXAMPLE  # noqa: E402
from cyclegan.faces.detect import FaceDetector  # noqa: E402
from cyclegan.images import load_image  # noqa: E402
from cyclegan.model import read_config  # noqa: E402

SETTLED = 10  # seconds until frames have found their size


def main() -> int:
    """Measure once, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=70, help="how long, from the first frame on (70)")
    parser.add_argument("--viewers", type=int, default=1, help="how many at once (1)")
    parser.add_argument("--model", default="glasses", help="which model (glasses)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp, sync_playwright() as playwright:
        folder = Path(temp)
        camera = write_camera(folder / "camera.mjpeg", film(*_portrait()))
        executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
        chromium = playwright.chromium.launch(
            executable_path=executable, args=[*CHROMIUM_FLAGS, f"--use-file-for-fake-video-capture={camera}"]
        )
        with page(folder, "--checkpoints", str(ROOT / "checkpoints")) as server:
            tabs = [_watch(chromium.new_page(), server.url, args.model) for _ in range(args.viewers)]
            rates, lags, memory = [], [], []
            started = time.monotonic()
            while (passed := time.monotonic() - started) < args.seconds:
                tabs[0].wait_for_timeout(1000)
                memory.append(server.memory())
                if passed > SETTLED:
                    for tab in tabs:
                        rate, lag = tab.evaluate(
                            "(({rate, lag}) => [rate, lag])(document.querySelector('#stage .live').dataset)"
                        )
                        rates.append(float(rate))
                        lags.append(float(lag))
            size = tabs[0].evaluate("document.querySelector('#stage canvas').width")
        chromium.close()
    print(f"{args.model}, {args.viewers} viewer(s), {args.seconds} seconds, frames {size} pixels wide at the end")
    print(f"frames per second and viewer  {median(rates):6.1f} (median), {min(rates):.1f} at least")
    print(f"milliseconds behind           {median(lags):6.0f} (median), {max(lags):.0f} at most")
    early = median(memory[60:70]) if len(memory) > 120 else median(memory[:10])
    print(f"memory of the server          {early:6.0f} MB at first, {median(memory[-10:]):.0f} MB at the end")
    return 0


def _portrait():
    photo = load_image(EXAMPLE)
    return photo, FaceDetector().detect(photo)[0].landmarks


def _watch(tab: Tab, url: str, model: str) -> Tab:
    tab.set_default_timeout(120_000)
    tab.goto(url)
    tab.get_by_role("tab", name="Live").click()
    tab.get_by_role("radio", name=read_config(ROOT / "checkpoints" / model).title, exact=True).check()
    tab.get_by_role("button", name="Switch the camera on").click()
    tab.wait_for_function(f"document.querySelector('#stage canvas').dataset.model === '{model}'")
    return tab


if __name__ == "__main__":
    sys.exit(main())
