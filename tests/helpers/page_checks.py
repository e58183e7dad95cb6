"""What others say of a page: the Nu checker, whether it is valid, and axe, whether everyone can use it.

Both come from the npm registry: ``npm install axe-core vnu-jar``. Where their folder ``node_modules`` is, the variable
``WHYFOOLED_NODE_MODULES`` says; if it is not set, it lies beside the tests' folder. The checker needs Java as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chromium import CHROMIUM, chromium

_MODULES = Path(os.environ.get("WHYFOOLED_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))
_AXE = _MODULES / "axe-core" / "axe.min.js"
_CHECKER = _MODULES / "vnu-jar" / "build" / "dist" / "vnu.jar"
_JAVA = shutil.which("java")

needs_checker = pytest.mark.skipif(
    _JAVA is None or not _CHECKER.is_file(), reason="needs Java and the Nu checker (npm install vnu-jar)"
)
needs_axe = pytest.mark.skipif(
    CHROMIUM is None or not _AXE.is_file(), reason="needs Chromium and axe (npm install axe-core)"
)


def list_errors(*pages: Path) -> list[str]:
    """Return what the Nu checker calls an error, with where it is."""
    command = [_JAVA, "-jar", _CHECKER, "--format", "json", "--stdout", "--exit-zero-always", *pages]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    messages = json.loads(found)["messages"]
    return [f"{one['url']}: {one['message']}: {one.get('extract', '')}" for one in messages if one["type"] == "error"]


def list_barriers(page: Path, folder: Path, *, dark: bool = False, width: int = 1280) -> list[str]:
    """Return what axe finds against a page in which everything is unfolded, with the elements."""
    text = page.read_text(encoding="utf-8")
    # The page's own policy would let no script but its own run.
    opened = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    look = (
        "document.querySelectorAll('details').forEach(one => { one.open = true });"
        "axe.run().then(found => { const out = document.createElement('pre'); out.id = 'found';"
        "out.textContent = 'found ' + JSON.stringify([found.passes.length, found.violations.map(one => one.id + ': ' +"
        "one.help + ': ' + one.nodes.map(node => node.html.slice(0, 200) + ' ' + node.failureSummary).join('; '))]);"
        "document.body.append(out) })"
    )
    scripts = f"<script>{_AXE.read_text(encoding='utf-8')}</script><script>{look}</script>"
    checked = folder / f"checked-{page.stem}-{int(dark)}-{width}.html"
    checked.write_text(opened.replace("</body>", f"{scripts}</body>"), encoding="utf-8")
    options = [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={width},900"]
    dom = chromium(folder / "profile-axe", *options, "--virtual-time-budget=20000", "--dump-dom", checked.as_uri())
    passes, violations = json.loads(unescape(re.findall(r'<pre id="found">found (.*?)</pre>', dom, re.DOTALL)[0]))
    # A page that axe found nothing to look at on would have no barriers either.
    assert passes > 10
    return list(violations)


def list_live_barriers(page: Any) -> list[tuple[str, str]]:
    """Return what axe finds against a page that is open in Playwright: the rule, and the element; not inside frames."""
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    passes, violations = page.evaluate(
        "axe.run(document, { iframes: false }).then(found => [found.passes.length, found.violations.flatMap("
        "one => one.nodes.map(node => [one.id, node.html]))])"
    )
    assert passes > 10
    return [(rule, element) for rule, element in violations]
