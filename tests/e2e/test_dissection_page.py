"""The page of a dissection in a real browser: sorted, filtered and grouped as asked, and built as it is scrolled."""

import html
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.chromium import CHROMIUM, brightness, chromium
from tests.helpers.made_dissections import made_dissection

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

NASTY = "</script><img src=x onerror=alert(1)>"
LONG = "a_name_without_a_blank_" * 4
CONCEPTS = {"sky": "object", "road": "object", "red": "colour", LONG: "colour", NASTY: "texture"}


@pytest.fixture(scope="module")
def dissection():
    return made_dissection({"blocks.0": 6, "blocks.1": 30}, CONCEPTS)


@pytest.fixture(scope="module")
def folder(dissection, tmp_path_factory):
    return dissection.save(tmp_path_factory.mktemp("page") / "out")


def in_frame(folder, width, script, first=""):
    """Lay the page out in a frame of a width; run a first script and, when that has worked, return what another finds.

    Both know the page's document and window as d and w.
    """
    page = html.escape((folder / "index.html").read_text(), quote=True)
    (folder / "frame.html").write_text(
        f'<iframe id="f" width="{width}" height="800" style="border:0" srcdoc="{page}"></iframe><pre id="found"></pre>'
        f"<script>f.onload = () => {{ const d = f.contentDocument, w = f.contentWindow; {first};"
        f"const look = () => {{ {script} }};"
        f"setTimeout(() => {{ found.textContent = 'found ' + JSON.stringify(look()) }}, 2000) }}</script>"
    )
    # Without a frame drawn, nothing is ever in sight.
    options = ["--virtual-time-budget=5000", "--run-all-compositor-stages-before-draw", "--dump-dom"]
    dom = chromium(folder / f"profile-{width}", *options, f"file://{folder}/frame.html")
    return json.loads(html.unescape(re.findall(r"found ([^<]*)</pre>", dom)[0]))


SHOW = """
const set = (id, value) => {
  const control = d.getElementById(id);
  control[control.type === 'checkbox' ? 'checked' : 'value'] = value;
  control.dispatchEvent(new w.Event('input'));
};
const shown = () => [...d.querySelectorAll('.unit')].map(unit => unit.dataset.unit);
const count = () => d.getElementById('count').textContent;
set('grouped', false); set('detectors', false);
"""


def names(frame):
    return [f"{layer}/{unit}" for layer, unit in zip(frame["layer"], frame["unit"], strict=True)]


def test_units_are_sorted(folder, dissection):
    found = in_frame(
        folder,
        1000,
        SHOW + "return ['iou', 'ratio', 'unit', 'concept'].map(order => { set('order', order); return shown(); })",
    )
    frame = dissection.to_frame()
    frame["ratio"] = (frame["iou"] / frame["chance_iou"]).fillna(0)
    # As many as are built before anything is scrolled; equal ones by layer and unit.
    by = {"iou": ["iou"], "ratio": ["ratio", "iou"], "unit": []}
    for one, (order, columns) in zip(found, by.items(), strict=False):
        expected = frame.sort_values(columns, ascending=False, kind="stable") if columns else frame
        assert len(one) >= 30, order
        # The page knows four digits of each.
        assert one[:30] == names(expected)[:30], order
    concepts = [frame["concept"][names(frame).index(one)] for one in found[3]]
    first = list(dict.fromkeys(concepts))
    assert first == sorted(first, key=str.lower)
    assert len(concepts) == len(found[3])


def test_units_are_filtered_and_counted(folder, dissection):
    script = """
    const found = [];
    const note = () => found.push([count(), shown().length]);
    note(); set('detectors', true); note(); set('layer', '0'); note(); set('category', '1'); note();
    set('layer', ''); set('category', ''); set('detectors', false); set('concept', ' RO'); note();
    set('concept', 'nothing is called so'); note();
    return found;
    """
    found = in_frame(folder, 1000, SHOW + script)
    frame = dissection.to_frame()
    first = frame["detector"] & (frame["layer"] == "blocks.0")
    road = frame["concept"].str.lower().str.contains("ro", na=False)
    expected = [
        len(frame),
        int(frame["detector"].sum()),
        int(first.sum()),
        int((first & (frame["category"] == "colour")).sum()),
        int(road.sum()),
        0,
    ]
    assert [count for count, _ in found] == [f"{number} of 36 units" for number in expected]
    # At most a chunk is built at once.
    assert [built for _, built in found[2:]] == [min(30, number) for number in expected[2:]]
    assert 0 < expected[3] < expected[2]


def test_units_say_what_they_rest_on(folder, dissection):
    script = """
    set('detectors', false); set('order', 'unit');
    const texts = [...d.querySelectorAll('.unit')].map(unit => unit.textContent);
    set('above', true); const above = count(); set('above', false); set('several', true);
    return [texts[1], texts.some(text => text.includes('undefined')), above, count()];
    """
    text, undefined, above, several = in_frame(folder, 1000, SHOW + script)
    frame = dissection.to_frame()
    own = frame.iloc[1]
    assert f"active in {own['active_images']} of {len(dissection.images)} images; " in text
    assert f"{100 * own['in_one_image']:.0f}\xa0% of the overlap in one" in text
    assert not undefined
    assert above == f"{int((frame['p'] <= frame['p'].min()).sum())} of 36 units"
    assert several == f"{int((frame['in_one_image'] <= 0.5).sum())} of 36 units"
    assert frame["p"].min() == pytest.approx(1 / 4)


def test_a_click_enlarges_a_picture_and_those_without_activity_are_pale(folder, dissection):
    script = """
    set('detectors', false); set('order', 'unit');
    const tops = [...d.querySelectorAll('.top')], width = tops[0].offsetWidth;
    tops[0].click();
    const larger = tops[0].offsetWidth / width;
    tops[0].click();
    return [larger, tops[0].offsetWidth === width, tops.map(top => top.classList.contains('idle'))];
    """
    larger, back, pale = in_frame(folder, 1000, SHOW + script)
    assert larger > 2.5
    assert back
    idle = [(one.top_values <= one.threshold.unsqueeze(1))[~one.dead].flatten() for one in dissection.layers]
    expected = torch.cat(idle).tolist()[: len(pale)]
    assert pale == expected
    assert set(expected) == {True, False}


def test_units_are_grouped_by_their_concept(folder, dissection):
    script = """
    set('detectors', true); set('layer', '0'); set('grouped', true);
    const groups = [];
    for (const one of d.getElementById('units').children)
      if (one.tagName === 'H3') groups.push([one.textContent, []]); else groups.at(-1)[1].push(one.dataset.unit);
    return groups;
    """
    found = in_frame(folder, 1000, SHOW + script)
    frame = dissection.to_frame()
    frame = frame[frame["detector"] & (frame["layer"] == "blocks.0")].sort_values("iou", ascending=False, kind="stable")
    expected = {concept: names(group) for concept, group in frame.groupby("concept", sort=False)}
    assert [units for _, units in found] == list(expected.values())
    for (heading, units), concept in zip(found, expected, strict=True):
        assert heading.startswith(concept)
        assert f"{len(units)} unit" in heading


@pytest.mark.parametrize("width", [360, 400, 1280])
def test_nothing_runs_off_the_screen_and_nothing_is_requested(folder, width):
    script = """
    const asked = w.performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:'));
    d.querySelectorAll('details').forEach(one => one.open = true);
    return {width: d.documentElement.scrollWidth, asked: asked.length,
            drawn: [...d.images].filter(one => one.naturalWidth).length,
            outlined: d.querySelectorAll('.area').length, masks: d.querySelectorAll('svg .mask').length};
    """
    found = in_frame(folder, width, script, first="d.getElementById('browse').scrollIntoView()")
    assert found["width"] <= width
    # Files beside the page are not among them.
    assert found["asked"] == 0
    assert found["drawn"] > 5
    assert found["outlined"] > 10
    assert found["masks"] > 10


def test_names_are_text_and_thumbnails_are_there(folder, dissection):
    script = """
    const lists = [...d.querySelectorAll('.unit img')];
    return {lazy: lists.every(one => one.loading === 'lazy'),
            files: [...new Set(lists.map(one => one.getAttribute('src')))],
            text: d.getElementById('units').textContent, injected: d.querySelectorAll('img[src=x]').length};
    """
    found = in_frame(folder, 1000, script)
    assert found["lazy"]
    assert found["injected"] == 0
    assert NASTY in found["text"]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [f"{number}.webp" for number in range(6)]
    for file in found["files"]:
        assert Image.open(folder / file).size == (16, 16)


def test_thousands_of_units_are_built_some_at_a_time(tmp_path):
    folder = made_dissection({"wide": 1200}, CONCEPTS, source=False).save(tmp_path / "out")
    # What the page does when the end of the list comes into sight; in a browser without a screen that may never be.
    script = """
    const built = () => d.querySelectorAll('.unit').length, found = [built()];
    for (let number = 0; number < 60; number++) { w.more(); found.push(built()); }
    return {built: found, count: d.getElementById('count').textContent};
    """
    found = in_frame(folder, 1000, script)
    assert re.fullmatch(r"1\d{3} of 1200 units", found["count"])
    steps = np.diff(found["built"])
    assert 25 <= found["built"][0] <= 120
    assert 20 <= steps[0] <= steps.max() <= 30
    assert found["built"][-1] == int(found["count"].split()[0])


def test_light_and_dark_have_their_own_colours(folder):
    found = brightness(folder, "index.html")
    assert found["dark"] < 90
    assert found["light"] > 180
