"""``whyfooled explain`` on several photographs: what it says, how it goes on, its page in a browser."""

import json
import re
import signal

import numpy as np
import pytest
from PIL import Image

from tests.helpers.chromium import CHROMIUM, brightness, chromium
from tests.helpers.command_line import MODELS, command, killed_when
from tests.helpers.page_checks import list_barriers, list_errors, needs_axe, needs_checker
from whyfooled.explanations.report.index import IndexEntry, make_failed_entry, write_index
from whyfooled.running.provenance import versions

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
COMMAND = ["explain", "photographs", "--attack", "bim(epsilon=0.1, steps=3)", "--methods", "gradient", "-o", "out"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(MODELS)
    (tmp_path / "photographs").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(tmp_path / "photographs" / f"{number}.png")
    return tmp_path


def test_a_line_for_each_photograph_then_nothing_left_to_do(folder, monkeypatch, capsys):
    (folder / "photographs" / "2.png").write_text("not an image")
    given = [*COMMAND, "--model", "nets.py:Tiny"]
    assert command(monkeypatch, *given) == 0
    out, err = capsys.readouterr()
    said = (
        r"(Fooled|Not fooled)\. "
        r"(Better than chance|Not clearly better than chance|Worse than chance|This image cannot tell)\."
    )
    lines = err.splitlines()
    for number, line in enumerate(lines[:2]):
        assert re.fullmatch(rf"{number + 1} of 3: {number}\.png: {said}", line)
    assert lines[2:] == ["3 of 3: 2.png: 2.png is not an image of a known format (JPEG, PNG, WebP, BMP, TIFF)."]
    assert "Could not be explained: 1; the table says why." in out
    assert out.endswith("\nIndex: out/index.html\n")
    numbers = json.loads((folder / "out" / "0.png" / "explanation.json").read_text())
    assert numbers["parameters"]["command"].startswith("whyfooled explain photographs --attack 'bim(")
    assert command(monkeypatch, *given) == 0
    again, err = capsys.readouterr()
    assert again == out
    assert err == "3 of 3 photographs were finished already: nothing left to do.\n"
    (folder / "photographs" / "2.png").unlink()
    assert command(monkeypatch, *given) == 2
    assert capsys.readouterr().err == (
        "Error: out holds another run: its photographs are not the same (2.png is gone). "
        "Give another folder, or delete this one.\n"
    )


def test_an_interruption_says_how_to_go_on(folder):
    slow = [*COMMAND, "--model", "nets.py:Slow"]
    code, err = killed_when(folder, lambda: (folder / "out" / "explanations.json").exists(), signal.SIGINT, *slow)
    assert code == 130
    assert err.splitlines()[-1] == "Stopped. What was finished is kept: the same command goes on from there."
    assert not list((folder / "out").glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["photographs", "--adversarial", "x.png"],
            "`--adversarial` belongs to one photograph; got x.png for several. Give one photograph.",
        ),
        (
            ["a.png", "b.png", "--regions", "x.png"],
            "`--regions` belongs to one photograph; got x.png for several. Give one photograph.",
        ),
        (["a.png", "--count", "3"], "`--count` is for several photographs, or folders of them; got 3."),
        (["photographs", "--count", "0", "--model", "nets.py:Tiny"], "`--count` must be at least 1; got 0."),
    ],
)
def test_what_makes_no_sense_is_one_sentence(folder, monkeypatch, capsys, arguments, error):
    assert command(monkeypatch, "explain", *arguments) == 2
    assert capsys.readouterr().err == f"Error: {error}\n"
    assert not (folder / "whyfooled-out").exists()


def entry(name, prediction, l2, right=None):
    row = {
        "file": name,
        "report": f"{name}/report.html",
        "outcome": "fooled",
        **{"true": 1, "true_name": "cat", "clean_prediction": 1, "clean_prediction_name": "cat"},
        **{"clean_probability": 0.9, "prediction": 2, "prediction_name": prediction, "probability": 0.5},
        **{"happened": "Fooled.", "random_changes": 19, "random_changes_fooling": 0},
        **{"trusted": "This image cannot tell.", "l0": 256, "l1": 9.0, "l2": l2, "linf": 0.01, "seconds": 2.0},
    }
    judged = {"shares": 7, "shares_right": right, "random_orders": 5, "shares_right_random": 2.0, "shifted_maps": 19}
    if right is not None:
        row |= judged | {"shares_right_shifted": 1.0, "standing": "no better"}
        row["trusted"] = "Not clearly better than chance."
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    return IndexEntry(row, dot, dot)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    entries = [
        entry("<b>2 & 10%.png", "a_name_without_a_blank_" * 4, 10.0, 3),
        entry("b/10.png", "Ant", 9.5),
        entry("b/9.png", "bee", 100.0, 5),
        make_failed_entry("a_name_without_a_blank_" * 6, "It is no image. " + "x" * 80),
    ]
    path = tmp_path_factory.mktemp("index") / "index.html"
    path.write_text(write_index(entries, 4, {"model": "lite0", "label": None, "versions": versions()}))
    return path


def in_frame(page, width, script):
    """Show the page in a frame of a width, and return what a script finds in it."""
    frame = page.with_name("frame.html")
    # From its text, as a script may look into no other file.
    text = page.read_text().replace("&", "&amp;").replace('"', "&quot;")
    frame.write_text(
        f'<iframe id="f" width="{width}" height="800" style="border:0" srcdoc="{text}"></iframe><pre id="found"></pre>'
        "<script>f.onload = () => { const d = f.contentDocument; "
        f"found.textContent = 'found ' + ({script}) }}</script>"
    )
    dom = chromium(page.with_name(f"profile-{width}"), "--virtual-time-budget=5000", "--dump-dom", frame.as_uri())
    return re.findall(r"found ([^<]*)</pre>", dom)[0]


@needs_checker
def test_the_index_is_valid(page):
    assert list_errors(page) == []


@needs_axe
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_everyone_can_use_the_index(page, tmp_path, width, dark):
    assert list_barriers(page, tmp_path, dark=dark, width=width) == []


@needs_chromium
@pytest.mark.parametrize("width", [360, 390, 1300])
def test_nothing_runs_off_the_screen(page, width):
    assert int(in_frame(page, width, "d.documentElement.scrollWidth")) <= width


@needs_chromium
def test_headings_sort_up_and_down_and_what_has_no_value_stays_last(page):
    script = """(() => {
      const said = [], body = d.querySelector('tbody');
      const rank = new Map([...body.rows].map((row, place) => [row, place]));
      const sort = which => { const head = d.querySelectorAll('th[aria-sort]')[which];
        head.querySelector('button').click();
        said.push([...body.rows].map(row => rank.get(row)).join('') + head.getAttribute('aria-sort')[0]
          + d.querySelectorAll('[aria-sort=none]').length); };
      for (const which of [7, 7, 2, 0, 4, 4]) sort(which);
      return said.join(' ');
    })()"""
    # By l2 (9.5, 10, 100), by class after without regard to case, by name (numbers as numbers), by the verdict.
    l2_up, l2_down, after, name, trust_up, trust_down = in_frame(page, 803, script).split()
    assert (l2_up, l2_down) == ("1023a8", "2013d8")
    assert after == "0123a8"
    assert name == "0321a8"
    # The last two keep the order that they had.
    assert (trust_up, trust_down) == ("0231a8", "2031d8")


@needs_chromium
def test_light_and_dark_have_their_own_colours(page):
    found = brightness(page.parent, page.name)
    assert found["dark"] < 90
    assert found["light"] > 180
