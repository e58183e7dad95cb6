"""Pages in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = os.environ.get("WHYFOOLED_REQUIRE_BROWSER") == "1"
"""Whether the tests of pages must not be skipped, as in the gate."""
if REQUIRED and CHROMIUM is None:
    raise RuntimeError("WHYFOOLED_REQUIRE_BROWSER is set, and there is no Chromium: install it.")


def chromium(profile, *arguments):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    command += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True).stdout


def brightness(folder, page):
    """Draw a page in the dark and in the light scheme; return how bright each is, from 0 to 255."""
    found = {}
    for scheme, setting in (("dark", 0), ("light", 1)):
        picture = folder / f"{scheme}.png"
        chromium(
            folder / f"profile-{scheme}",
            f"--blink-settings=preferredColorScheme={setting}",
            "--window-size=1000,900",
            f"--screenshot={picture}",
            f"file://{folder}/{page}",
        )
        found[scheme] = np.asarray(Image.open(picture).convert("L")).mean()
    return found
