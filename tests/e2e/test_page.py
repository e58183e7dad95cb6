"""The report in a real browser: nothing is requested, nothing runs off a phone's screen, light and dark differ."""

import base64
import hashlib
import html
import re

import pytest
import torch

from tests.helpers.chromium import CHROMIUM, brightness, chromium
from tests.helpers.models import SmallNet, small
from tests.helpers.unit_pairs import detecting, dissection_of
from whyfooled import BIM, Classifier, explain, explain_perturbation
from whyfooled.universal import UniversalPerturbation

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    universal = UniversalPerturbation(0.05 * image[0].flip(0), 2.0, method="a_name_without_a_blank_" * 4)
    concepts = {"a_concept_without_a_blank_" * 4: "object", "sky": "object"}
    detects = detecting(*[number % 2 for number in range(16)], concepts=2)
    dissection = dissection_of(small(), "second", concepts=concepts, threshold=torch.full((16,), 0.1), **detects)
    found = explain(small(), image, attack=BIM(epsilon=0.3), trust=universal, units=dissection)
    return found.save(tmp_path_factory.mktemp("page") / "out")


def in_frame(folder, width, script):
    """Lay the page out in a frame of a width, and return what a script finds in it."""
    page = html.escape((folder / "report.html").read_text(), quote=True)
    (folder / "frame.html").write_text(
        f'<iframe id="f" width="{width}" height="800" style="border:0" srcdoc="{page}"></iframe><pre id="found"></pre>'
        "<script>f.onload = () => { const d = f.contentDocument; found.textContent = 'found ' + ("
        + script
        + ") }</script>"
    )
    dom = chromium(
        folder / f"profile-{width}", "--virtual-time-budget=5000", "--dump-dom", f"file://{folder}/frame.html"
    )
    return re.findall(r"found ([^<]*)</pre>", dom)[0]


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_runs_off_the_screen(folder, width):
    widths = in_frame(
        folder,
        width,
        "d.documentElement.scrollWidth + ' ' + d.images.length + ' ' + [...d.images].every(i => i.naturalWidth)",
    )
    scroll, images, drawn = widths.split()
    assert int(scroll) <= width
    assert int(images) > 20
    assert drawn == "true"


def test_long_names_of_classes_do_not_run_off_the_screen(tmp_path):
    names = [f"{'a_name_without_a_blank_' * 4}{number}" for number in range(5)]
    classifier = Classifier(SmallNet().eval(), size=(16, 16), class_names=names)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    folder = explain_perturbation(classifier, image, 1 - image).save(tmp_path / "out")
    assert int(in_frame(folder, 360, "d.documentElement.scrollWidth")) <= 360


def test_the_page_requests_nothing(folder):
    assert (
        in_frame(
            folder,
            800,
            "f.contentWindow.performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length",
        )
        == "0"
    )


def test_its_own_script_runs_and_no_other(folder):
    script = """(() => {
      const slider = d.querySelector('.slider input'), root = d.documentElement;
      slider.value = 0.5; slider.dispatchEvent(new Event('input'));
      const colours = [...d.querySelectorAll('input[name=palette]')].at(-1);
      colours.checked = true; colours.dispatchEvent(new Event('change'));
      const stranger = d.createElement('script');
      stranger.textContent = 'window.ran = true'; d.body.append(stranger);
      d.body.insertAdjacentHTML('beforeend', '<p onclick="window.ran = true"></p>'); d.body.lastChild.click();
      return [root.style.getPropertyValue('--photo'), root.dataset.palette === colours.value,
              'ran' in f.contentWindow].join(' ');
    })()"""
    assert in_frame(folder, 801, script) == "0.5 true false"


def test_what_the_policy_allows_is_that_script_alone(folder):
    page = (folder / "report.html").read_text()
    policy = html.unescape(re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[0])
    allowed = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert allowed["script-src"] == [f"'sha256-{digest}'"]
    assert allowed["default-src"] == ["'none'"]
    assert allowed["img-src"] == ["data:"]


def test_light_and_dark_have_their_own_colours(folder):
    found = brightness(folder, "report.html")
    assert found["dark"] < 90
    assert found["light"] > 180
