"""The report in a real browser: short, valid, usable by everyone; nothing is requested or runs off a phone's screen."""

import base64
import hashlib
import html
import re

import pandas as pd
import pytest
import torch

from tests.helpers.chromium import CHROMIUM, brightness, chromium
from tests.helpers.made_dissections import made_dissection
from tests.helpers.models import SmallNet, small
from tests.helpers.page_checks import list_barriers, list_errors, needs_axe, needs_checker
from tests.helpers.page_words import read_words
from tests.helpers.unit_pairs import detecting, dissection_of
from whyfooled import BIM, Classifier, explain, explain_perturbation
from whyfooled.explanations.report.effect import KIND_WORDS
from whyfooled.universal import UniversalPerturbation

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


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
    """Lay the page out in a frame of a width, and return what a script finds in it, or promises to find."""
    page = html.escape((folder / "report.html").read_text(), quote=True)
    (folder / "frame.html").write_text(
        f'<iframe id="f" width="{width}" height="800" style="border:0" srcdoc="{page}"></iframe><pre id="found"></pre>'
        "<script>f.onload = async () => { const d = f.contentDocument; found.textContent = 'found ' + await ("
        + script
        + ") }</script>"
    )
    dom = chromium(
        folder / f"profile-{width}", "--virtual-time-budget=5000", "--dump-dom", f"file://{folder}/frame.html"
    )
    return re.findall(r"found ([^<]*)</pre>", dom)[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Explain a photograph of the usual size by the usual methods, and nothing more."""
    names = ["espresso", "consomme", "soup bowl", "coffee mug", "chocolate sauce"]
    module = SmallNet().eval()
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        # So that the classes are nearly as likely as each other, and the attack succeeds.
        module.head.bias -= module(image)[0] - torch.tensor([0.01, 0, 0, 0, 0])
    found = explain(Classifier(module, size=(224, 224), class_names=names), image, attack=BIM(epsilon=0.1, steps=5))
    assert found.outcome == "fooled"
    return found.save(tmp_path_factory.mktemp("plain") / "out")


@pytest.fixture(scope="module")
def page_of_units(tmp_path_factory):
    dissection = made_dissection({"blocks.0": 6, "blocks.1": 30}, {"sky": "object", "red": "colour"})
    return dissection.save(tmp_path_factory.mktemp("units") / "out") / "index.html"


def test_a_report_begins_with_pictures_and_few_words(plain):
    page = (plain / "report.html").read_text()
    words, before_picture = read_words(page)
    assert before_picture <= 120
    assert len(words) <= 500
    # The verdicts are among them, and no method's name stands in their way.
    text = " ".join(words)
    assert text.index("What happened?") < text.index("Can the explanation be trusted?") < text.index("Where does")
    assert "Deconvnet" not in page


def test_a_report_with_every_section_is_no_longer(folder):
    words = read_words((folder / "report.html").read_text())[0]
    assert len(words) <= 500, " ".join(words)


def test_a_report_of_the_usual_size_is_small_and_shows_each_method_once(plain):
    page = plain / "report.html"
    assert page.stat().st_size <= 4_000_000
    assert len(re.findall(r'alt="Grad-CAM for [^"]*: clean"', page.read_text())) == 2


@needs_checker
def test_pages_are_valid(folder, plain, page_of_units):
    assert list_errors(folder / "report.html", plain / "report.html", page_of_units) == []


@needs_axe
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_everyone_can_use_the_pages(folder, page_of_units, tmp_path, width, dark):
    for page in (folder / "report.html", page_of_units):
        assert list_barriers(page, tmp_path, dark=dark, width=width) == []


@needs_checker
def test_the_validator_finds_what_is_wrong(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><html lang="en"><title>x</title><p id="a"></p><p id="a"><img src="x"></p></html>')
    found = list_errors(page)
    assert any("Duplicate ID" in error for error in found)
    assert any("alt" in error for error in found)


@needs_axe
def test_the_accessibility_check_finds_what_is_wrong(folder, tmp_path):
    page = tmp_path / "page.html"
    text = (folder / "report.html").read_text()
    page.write_text(text.replace("--soft:#59636d", "--soft:#b0b8c0").replace(' alt="the image after the attack"', ""))
    found = " ".join(list_barriers(page, tmp_path))
    assert "color-contrast" in found
    assert "image-alt" in found


@needs_chromium
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_runs_off_the_screen(folder, width):
    widths = in_frame(
        folder,
        width,
        "(d.querySelectorAll('details').forEach(one => one.open = true), d.documentElement.scrollWidth) + ' ' + "
        "d.images.length + ' ' + [...d.images].every(i => i.naturalWidth)",
    )
    scroll, images, drawn = widths.split()
    assert int(scroll) <= width
    assert int(images) > 20
    assert drawn == "true"


@needs_chromium
def test_long_names_of_classes_do_not_run_off_the_screen(tmp_path):
    names = [f"{'a_name_without_a_blank_' * 4}{number}" for number in range(5)]
    classifier = Classifier(SmallNet().eval(), size=(16, 16), class_names=names)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    folder = explain_perturbation(classifier, image, 1 - image).save(tmp_path / "out")
    assert int(in_frame(folder, 360, "d.documentElement.scrollWidth")) <= 360


@needs_chromium
def test_the_page_requests_nothing(folder):
    assert (
        in_frame(
            folder,
            800,
            "f.contentWindow.performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length",
        )
        == "0"
    )


@needs_chromium
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


@needs_chromium
def test_the_photographs_flicker_by_button_and_by_keys(folder):
    script = """(() => {
      const button = d.getElementById('flicker'), photos = d.getElementById('photos'), said = [];
      const over = d.querySelector('.over'), seen = () => said.push(photos.dataset.shown + ':'
        + f.contentWindow.getComputedStyle(over).visibility + ':' + button.getAttribute('aria-pressed'));
      const press = key => button.dispatchEvent(new f.contentWindow.KeyboardEvent('keydown', {key: key}));
      seen(); button.click(); seen(); press('ArrowLeft'); seen(); press('ArrowRight'); seen();
      button.click(); seen(); button.click(); seen();
      return said.join(' ');
    })()"""
    first, clicked, left, right, again, stopped = in_frame(folder, 802, script).split()
    assert first == left == "clean:hidden:false"
    assert clicked == "adversarial:visible:true"
    assert right == "adversarial:visible:false"
    assert again == "clean:hidden:true"
    assert stopped == "clean:hidden:false"


@needs_chromium
def test_a_region_tells_its_numbers_to_pointer_finger_and_keys(folder):
    script = """(() => {
      const output = d.getElementById('region-numbers'), [first, second] = d.querySelectorAll('.regions');
      const said = [], note = () => said.push(
        output.textContent + "|" + second.querySelector(".mark").getAttribute("d"));
      const press = key => first.firstElementChild.dispatchEvent(
        new f.contentWindow.KeyboardEvent('keydown', {key: key, bubbles: true}));
      press('ArrowRight'); note(); press('ArrowRight'); note(); press('ArrowLeft'); note();
      const shapes = second.querySelectorAll('.shape'), weakest = shapes[0];
      weakest.dispatchEvent(new f.contentWindow.PointerEvent('pointermove', {bubbles: true})); note();
      shapes[1].dispatchEvent(new f.contentWindow.MouseEvent('click', {bubbles: true})); note();
      return said.join('#') + '#' + weakest.getAttribute('d');
    })()"""
    strongest, next_, back, pointed, tapped, weakest = html.unescape(in_frame(folder, 803, script)).split("#")
    total = re.findall(r"number 1 of (\d+) by effect", strongest)[0]
    assert "number 2 of" in next_
    assert back == strongest
    assert f"number {total} of {total}" in pointed
    assert pointed.endswith(f"|{weakest}")
    assert f"number {int(total) - 1} of {total}" in tapped
    table = pd.read_csv(folder / "regions.csv").sort_values("score", ascending=False, kind="stable").iloc[0]
    said = f"Region {table['region']:.0f}, number 1 of {total} by effect, {KIND_WORDS[table['kind']]}: "
    assert strongest.startswith(said)
    assert f"{-table['true_drop']:+.3f}, " in strongest
    assert f"ℓ2 {table['l2']:.3g}, ℓ∞ {255 * table['linf']:.2f}/255" in strongest


@needs_chromium
@pytest.mark.parametrize("width", [391, 1281])
def test_a_table_that_scrolls_says_so_and_one_that_fits_does_not(folder, width):
    script = """(() => {
      d.querySelectorAll('details').forEach(one => one.open = true);
      const style = (one, part) => f.contentWindow.getComputedStyle(one, part);
      const tables = [...d.querySelectorAll('table')];
      const alone = tables.filter(one => !one.closest('.wide') && one.scrollWidth > one.parentElement.clientWidth);
      const wide = [...d.querySelectorAll('.wide')], scrolls = one => one.scrollWidth > one.clientWidth;
      const describe = () => alone.length + ' ' + wide.map(one => scrolls(one) + ':' + style(one, '::before').display
        + ':' + style(one.querySelector('td')).position + ':' + (one.tabIndex === 0)).join(' ');
      // On a busy machine the page takes a while to see that its folds are open.
      let looks = 100;
      const seen = () => wide.every(one => one.classList.contains('scrolls') === scrolls(one));
      const look = done => seen() || !looks-- ? done(describe()) : setTimeout(look, 50, done);
      return new Promise(look);
    })()"""
    alone, *tables = in_frame(folder, width, script).split()
    assert alone == "0"
    assert len(tables) > 5
    assert set(tables) <= {"true:block:sticky:true", "false:none:sticky:true"}
    assert any(one.startswith("true") for one in tables) == (width < 400)


@needs_chromium
def test_a_number_of_the_table_is_found_on_the_picture(folder):
    script = """(() => {
      d.querySelectorAll('details').forEach(one => one.open = true);
      const picture = d.querySelector('.regions svg'), buttons = [...d.querySelectorAll('button.find')];
      const shapes = [...picture.querySelectorAll('.shape')].reverse(), mark = picture.querySelector('.mark');
      const read = list => [...list].map(one => one.textContent).join(',');
      const inside = [...picture.querySelectorAll('text')].every((text, rank) => shapes[rank].isPointInFill(
        new f.contentWindow.DOMPoint(Number(text.getAttribute('x')),
          Number(text.getAttribute('y')) - 0.36 * Number(text.getAttribute('font-size')))));
      buttons[2].dispatchEvent(new f.contentWindow.FocusEvent('focus'));
      const marked = mark.getAttribute('d') === shapes[2].getAttribute('d');
      return [read(picture.querySelectorAll('text')), read(buttons), inside, marked,
        read(d.querySelectorAll('tr.chosen button')), d.getElementById('region-numbers').textContent].join('#');
    })()"""
    labels, buttons, inside, marked, chosen, said = in_frame(folder, 804, script).split("#")
    assert labels == buttons
    assert len(labels.split(",")) == 10
    assert (inside, marked) == ("true", "true")
    assert chosen == labels.split(",")[2]
    assert said.startswith(f"Region {chosen}, number 3 of ")


def test_what_the_policy_allows_is_that_script_alone(folder):
    page = (folder / "report.html").read_text()
    policy = html.unescape(re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[0])
    allowed = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert allowed["script-src"] == [f"'sha256-{digest}'"]
    assert allowed["default-src"] == ["'none'"]
    assert allowed["img-src"] == ["data:"]


@needs_chromium
def test_light_and_dark_have_their_own_colours(folder):
    found = brightness(folder, "report.html")
    assert found["dark"] < 90
    assert found["light"] > 180
