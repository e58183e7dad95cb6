"""Make the picture of a report that the README shows: the example's report, as a browser draws it.

    python docs/make_picture.py

Needs Chromium. The picture ends before the maps of the other methods. It has 256 colours, which keeps it small; a page
that is there already can be given in place of the example's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).parent / "report.png"
WIDTH, HEIGHT = 1100, 2400
"""The part of the page that is shown, in the page's own pixels: to the end of the first maps."""
SCALE = 0.8
COLOURS = 256
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def make_report(folder: Path) -> Path:
    """Explain the example photograph, and return the report's page."""
    command = [sys.executable, "-m", "whyfooled", "explain", "--quiet", "--output", str(folder)]
    subprocess.run(command, check=True)
    return folder / "report.html"


def draw_page(page: Path, folder: Path) -> Image.Image:
    """Draw the top of a page, in the light colours, without asking the network for anything."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("This needs Chromium; on Debian: apt-get install chromium")
    screenshot = folder / "screenshot.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{HEIGHT}"]
    command += [f"--force-device-scale-factor={SCALE}", f"--screenshot={screenshot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(screenshot) as picture:
        return picture.convert("RGB")


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = Path(sys.argv[1]) if sys.argv[1:] else make_report(folder / "report")
        picture = draw_page(page.absolute(), folder)
    picture = picture.crop((0, 0, round(WIDTH * SCALE), round(HEIGHT * SCALE)))
    palette = picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=2)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(PICTURE, optimize=True)
    print(f"Written: {PICTURE}, {picture.width} × {picture.height}, {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
