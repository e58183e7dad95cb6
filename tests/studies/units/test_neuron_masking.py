"""Neuron masking: on a classifier in which one unit carries the attack, with saved images, and stopped and gone on."""

import json
import math
import re
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import BIM, FMN, Classifier, attack_files, load_adversaries
from whyfooled.errors import ImageError, ParameterError
from whyfooled.sources import open_source
from whyfooled.studies import NeuronMasking, run_study
from whyfooled.studies.parts.held_out import split
from whyfooled.studies.parts.ranked_units import UNITS_FILE
from whyfooled.studies.units.neuron_masking_account import Point, _verdict
from whyfooled.tensors.randomness import choose
from whyfooled.tensors.statistics import Interval
from whyfooled.units.sensitivity import unit_sensitivity

SIDE, STEP = 8, 0.4


class Colours(nn.Module):
    """Units are the image's red, green and blue; green speaks for class 0, blue four times as much for class 1."""

    def __init__(self):
        super().__init__()
        self.units = nn.Identity()

    def forward(self, x):
        _, green, blue = self.units(x).mean((2, 3)).T
        return torch.stack([green, 4 * blue + 0.2], 1)


def colours():
    return Classifier(Colours(), size=(SIDE, SIDE), name="colours")


def strongest_colour(classifier, images, goal):
    """Move the colour that the margin depends on most, as far as it may."""
    inputs = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(goal.margin(classifier(inputs)).sum(), inputs)
    largest = slope.abs().amax((2, 3), keepdim=True)
    return (images - STEP * slope.sign() * (largest == largest.amax(1, keepdim=True))).clamp(0, 1)


def world(path, greens, labels=None, blue=3):
    """Write images of one green each, of noisy red and of next to no blue."""
    pixels = np.random.default_rng(0).integers(0, 255, (len(greens), SIDE, SIDE, 3), dtype=np.uint8)
    pixels[..., 1] = np.asarray(greens)[:, None, None]
    pixels[..., 2] %= blue
    np.savez(path, images=pixels, labels=np.zeros(len(greens), int) if labels is None else np.asarray(labels))
    return str(path)


STUDY = NeuronMasking(attacks=(strongest_colour,), target=None, layers=("units",), counts=(1,), draws=2)
BRIGHT, DARK = 242, 128
GREENS = [BRIGHT, DARK] * 12


def run(images, folder, study=STUDY, model=None, **more):
    # Drawing takes longer than all the rest; it is tested once, below.
    with mock.patch.object(NeuronMasking, "draw", staticmethod(lambda table, seed: Figure())):
        return run_study(study, images, folder, model=model or colours(), workers=1, batch_size=5, **more)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    return run(world(folder / "images.npz", GREENS), folder / "out")


def rows(result, choice):
    table = result.table.read()
    return table[table["choice"] == choice]


def test_half_of_the_images_are_kept_for_the_sensitivities_and_the_others_tested(planted):
    first, others = split(range(24), 0.5, 0)
    assert sorted(first + others) == list(range(24))
    assert sorted(planted.table.read()["index"].unique()) == others
    kept = json.loads((planted.folder / UNITS_FILE).read_text())
    (name,) = kept["pairs"]
    assert kept["pairs"][name] == 12
    red, green, blue = kept["sensitivity"][name]["units"]
    assert red == green == 0
    assert blue > 100
    assert f"by successful adversaries: 12 of {name}." in planted.summary
    assert planted.about["findings"][0].startswith("24 images: 12 to rank the units, 12 tested; 0 that")


def test_masking_the_unit_that_carries_the_attack_undoes_it_but_not_a_new_one(planted):
    none, most = rows(planted, "none"), rows(planted, "most sensitive")
    assert none["clean"].all()
    assert not none["old"].any()
    assert not none["again"].any()
    assert most["clean"].all()
    assert most["old"].all()
    # Without blue, green is what can be moved: from .95 to .55 and from .5 to .1, where .2 speaks for class 1.
    bright = [GREENS[index] == BRIGHT for index in most["index"]]
    assert 0 < sum(bright) < len(bright)
    assert most["again"].tolist() == bright
    # One colour of 64 pixels, either time.
    np.testing.assert_allclose(none["length"], STEP * 8, rtol=1e-5)
    np.testing.assert_allclose(most["length"].dropna(), STEP * 8, rtol=1e-5)
    assert most["length"].isna().tolist() == bright
    assert most["forwards"].tolist() == most["backwards"].tolist() == [1] * len(most)


def test_of_units_that_are_moved_equally_the_first_comes_first(planted):
    # Red and green are not moved; so green is last. Without it no clean image is right, and there is nothing to attack.
    least = rows(planted, "least sensitive")
    assert not least[["clean", "old", "again"]].astype(bool).any().any()
    assert least[["length", "forwards", "backwards"]].isna().all().all()


def test_random_units_are_drawn_by_the_seed_and_only_the_first_draw_is_attacked_again(planted):
    random = rows(planted, "random")
    for draw in (0, 1):
        own = random[random["draw"] == draw]
        (unit,) = choose(3, 1, draw)
        assert own["clean"].tolist() == [unit != 1] * len(own)
        assert own["old"].tolist() == [unit == 2] * len(own)
        assert own["again"].notna().all() == (draw == 0)


def test_the_summary_has_the_means_and_says_what_they_are_worth(planted):
    shown = {row["units masked"]: row for row in planted.about["results"][0]["rows"]}
    bright = float(rows(planted, "most sensitive")["again"].astype(float).mean())
    assert shown["most sensitive"]["old adversaries"]["mean"] == 1
    assert shown["most sensitive"]["attacked again"]["mean"] == pytest.approx(bright)
    change = {row["units masked"]: row for row in planted.about["results"][1]["rows"]}
    assert change["least sensitive"]["clean images"]["mean"] == -1
    assert change["most sensitive"]["times as long"]["mean"] == pytest.approx(1)
    over = {row["units masked"]: row for row in planted.about["results"][2]["rows"]}
    both = rows(planted, "random").groupby("index")["old"].mean().mean()
    assert over["most sensitive"]["old adversaries"]["mean"] == pytest.approx(1 - both)
    # The first draw, the one that is attacked again, happens to be blue, too.
    assert choose(3, 1, 0) == [2]
    dark = sum(GREENS[index] == DARK for index in split(range(24), 0.5, 0)[1])
    assert over["most sensitive"]["times as long"]["mean"] == pytest.approx(1)
    assert over["most sensitive"]["times as long"]["images"] == dark
    (verdict,) = planted.about["findings"][2:]
    assert (
        "masking the 1 most sensitive of 3 units brings the accuracy on old adversaries from 0.000 to 1.000" in verdict
    )
    assert f"masking as many random ones to {both:.3f}: random units do " in verdict
    assert "It is surely higher than without a mask with 1 unit masked" in verdict
    clean = rows(planted, "random").groupby("index")["clean"].mean().mean()
    assert f"Clean accuracy is 1.000, against {clean:.3f} with random ones and 1.000 without a mask" in verdict
    # As far to either side: no image changed.
    assert re.search(r"\(change \+0.000 \[-(0.\d+), \+\1\]\); with no number of units is it surely lower\.", verdict)
    assert f"Attacked again, the accuracy is {bright:.3f} with 1 masked" in verdict


UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)


def point(choice, units, clean, old, change=(0.0, 0.0, 0.0), over=(0.0, 0.0, 0.0)):
    """Make what a mask came to, with the change of clean accuracy and what old adversaries are over random ones."""
    right = {"clean": Interval(clean, clean, clean, 20), "old": Interval(old, old, old, 20), "again": UNKNOWN}
    unknown = {"again": UNKNOWN, "length": UNKNOWN}
    changed = {"clean": Interval(*change, 20), "old": Interval(old, 0.0, 0.6, 20), **unknown}
    overs = {"clean": UNKNOWN, "old": Interval(*over, 20), **unknown}
    sides = {("change", "clean"): changed["clean"].side(), ("over", "old"): overs["old"].side()}
    return Point("cw", "bn2", choice, units, 100, right, changed, overs, sides)


def test_random_units_and_the_price_are_told_in_numbers_even_where_nothing_is_sure():
    none = point("none", 0, 1.0, 0.0)
    own = [
        point("most sensitive", 5, 0.6, 0.1, (-0.4, -0.8, 0.0)),
        point("random", 5, 0.95, 0.1),
        point("most sensitive", 32, 0.7, 0.2, (-0.3, -0.6, 0.0), (-0.067, -0.3, 0.233)),
        point("random", 32, 0.9, 0.267),
    ]
    text = _verdict(none, own)
    assert (
        "from 0.000 to 0.200 (+0.200 [+0.000, +0.600]), masking as many random ones to 0.267: random units do" in text
    )
    assert "random units do as well (difference -0.067 [-0.300, +0.233])." in text
    assert "Clean accuracy is 0.700, against 0.900 with random ones and 1.000 without a mask (change -0.300 [" in text
    assert "at worst 0.600 with 5 units masked (-0.400 [-0.800, +0.000]); with no number of units is it surely" in text


@pytest.mark.parametrize(
    ("over", "said"),
    [((0.2, 0.1, 0.3), "do less"), ((-0.2, -0.3, -0.1), "do more"), ((0.2, 0.0, 0.3), "do as well")],
)
def test_what_random_units_do_is_what_the_interval_shows(over, said):
    own = [point("most sensitive", 5, 1.0, 0.4, over=over), point("random", 5, 1.0, 0.2)]
    assert f"random units {said} (difference" in _verdict(point("none", 0, 1.0, 0.0), own)


def test_the_figure_has_a_panel_for_each_measure_and_a_line_for_each_choice(planted):
    figure = NeuronMasking.draw(planted.table, 0)
    panels = {panel.get_title(): panel for part in figure.subfigs for panel in part.axes}
    assert list(panels) == [
        "clean images",
        "old adversaries",
        "attacked again",
        "new perturbation, times as long",
    ]
    for panel in panels.values():
        names = [line.get_label() for line in panel.get_lines() if line.get_label()[0] != "_"]
        assert names == ["none", "most sensitive", "random", "least sensitive"]
    lines = [line for line in panels["old adversaries"].get_lines() if line.get_label()[0] != "_"]
    heights = {line.get_label(): line.get_ydata()[0] for line in lines}
    assert (heights["none"], heights["most sensitive"], heights["least sensitive"]) == (0, 1, 0)


def test_a_run_that_goes_on_does_not_attack_the_fitting_images_again(tmp_path):
    images = world(tmp_path / "images.npz", GREENS)
    calls = []

    def counted(classifier, images, goal):
        calls.append(len(images))
        return strongest_colour(classifier, images, goal)

    study = replace(STUDY, attacks=(counted,), again=False)
    whole = run(images, tmp_path / "out", study)
    assert sum(calls) == 24
    before = (tmp_path / "out" / "table.parquet").read_bytes()
    run(images, tmp_path / "out", study)
    assert sum(calls) == 24
    (tmp_path / "out" / "shards" / "000000.parquet").unlink()
    again = run(images, tmp_path / "out", study)
    assert sum(calls) == 36
    assert (tmp_path / "out" / "table.parquet").read_bytes() == before
    assert again.about["forwards"] == whole.about["forwards"]
    (tmp_path / "out" / UNITS_FILE).write_text('{"key": ')
    assert run(images, tmp_path / "out", study).about["forwards"] == whole.about["forwards"]
    assert sum(calls) == 48


def test_without_new_attacks_nothing_is_said_about_them(tmp_path):
    result = run(world(tmp_path / "images.npz", GREENS), tmp_path / "out", replace(STUDY, again=False))
    assert result.table.read()[["again", "forwards"]].isna().all().all()
    assert "The attack was not run again, so nothing is known of an attacker who knows of the mask." in result.summary


def test_images_that_are_wrong_before_do_not_count(tmp_path):
    labels = [int(number % 3 == 0) for number in range(24)]
    result = run(world(tmp_path / "images.npz", GREENS, labels), tmp_path / "out")
    table = result.table.read()
    wrong = table["index"].map(lambda index: labels[index] == 1)
    assert (table["outcome"] == "already wrong").tolist() == wrong.tolist()
    assert table[wrong]["choice"].isna().all()
    left_out = table[wrong]["index"].nunique()
    assert f"{left_out} that the classifier gets wrong without a mask" in result.summary
    assert f"24 images: 12 to rank the units, {12 - left_out} tested; {left_out} that" in result.summary


def test_an_image_that_sensitivities_were_measured_on_is_not_tested_under_another_name(tmp_path):
    path = world(tmp_path / "images.npz", GREENS)
    arrays = dict(np.load(path))
    first, others = split(range(24), 0.5, 0)
    arrays["images"][others[0]] = arrays["images"][first[0]]
    np.savez(path, **arrays)
    result = run(path, tmp_path / "out")
    errors = result.table.errors()
    assert errors["index"].tolist() == [others[0]]
    assert errors["error"].tolist() == [
        "Unit sensitivities were measured on the same image under another name, so it is not tested."
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    (root / "photographs").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photographs" / f"{number}.png")
    attack_files(small(), [root / "photographs"], FMN(steps=30), root / "fmn", target="random")
    attack_files(small(), [root / "photographs"], BIM(epsilon=0.1, steps=8), root / "bim")
    attack_files(small(), [root / "photographs"], darker, root / "darker")
    return root


def darker(classifier, images, goal):
    return strongest_colour(classifier, images, goal)


def test_saved_images_of_several_attacks_against_classifiers_with_zeros_for_weights(saved, tmp_path):
    study = NeuronMasking(layers=("second",), counts=(6,))
    result = run([saved / "fmn", saved / "bim"], tmp_path / "out", study, small())
    table = result.table.read()
    first, others = split(range(8), 0.5, 0)
    assert set(table["index"]) == set(others)
    for name, folder in {"fmn(steps=30)": "fmn", "bim(epsilon=0.1, steps=8)": "bim"}.items():
        adversaries = load_adversaries(saved / folder)
        fooled = [place for place in first if bool(adversaries[[place]].success[0])]
        known = adversaries[fooled]
        values = unit_sensitivity(small(), "second", known.clean, known.attempted)["second"]
        order = values.argsort(descending=True)
        for choice, units in {"most sensitive": order[:6], "least sensitive": order[-6:]}.items():
            zeroed = small()
            zeroed.module.second.weight.data[units], zeroed.module.second.bias.data[units] = 0, 0
            own = table[(table["attack"] == name) & (table["choice"] == choice)].sort_values("index")
            tested = adversaries[others]
            seen = small().predict(tested.clean)
            assert own["clean"].tolist() == (zeroed.predict(tested.clean) == seen).tolist()
            assert own["old"].tolist() == (zeroed.predict(tested.attempted) == seen).tolist()
            assert own["again"].notna().all()


def test_a_saved_attack_that_is_not_known_here_is_not_run_again_and_a_note_says_so(saved, tmp_path):
    study = NeuronMasking(layers=("second",), counts=(6,))
    name = open_source(saved / "darker").attacks[0]
    result = run(saved / "darker", tmp_path / "out", study, small())
    assert f"{name} cannot be run again, so masks are tested on its old adversaries alone" in result.summary
    table = result.table.read()
    assert table["old"].notna().all()
    assert table["again"].isna().all()
    # Given among the attacks, it is known.
    known = run(saved / "darker", tmp_path / "known", replace(study, attacks=(darker,)), small())
    assert rows(known, "most sensitive")["again"].notna().all()


def harmless(classifier, images, goal):
    return images.clone()


def test_an_attack_that_fools_on_no_fitting_image_is_left_out_and_named(tmp_path):
    images = world(tmp_path / "images.npz", GREENS)
    result = run(images, tmp_path / "out", replace(STUDY, attacks=(strongest_colour, harmless)))
    assert result.table.read()["attack"].nunique() == 1
    assert "harmless was left out, because it fooled the classifier on none of the images" in result.summary
    said = r"on any of the 12 images that sensitivities .* or more images\. .*harmless was left out"
    with pytest.raises(ImageError, match=said):
        run(images, tmp_path / "none", replace(STUDY, attacks=(harmless,)))


def test_an_image_that_cannot_be_read_is_left_out_of_the_sensitivities_and_named(saved, tmp_path):
    for path in (saved / "photographs").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    first, _ = split(range(8), 0.5, 0)
    (tmp_path / f"{first[1]}.png").write_bytes(b"\x89PNG damaged")
    study = NeuronMasking(attacks=(FMN(steps=30),), target=None, layers=("second",), counts=(6,), again=False)
    result = run(tmp_path, tmp_path / "out", study, small())
    assert f"Note: {first[1]}.png was left out: " in result.summary
    assert json.loads((result.folder / UNITS_FILE).read_text())["pairs"] == {"fmn(steps=30)": 3}


def test_shares_are_of_each_layers_units_and_at_least_one(tmp_path):
    study = NeuronMasking(
        attacks=(FMN(steps=20),), target=None, layers=("first", "second"), shares=(0.01, 0.02, 0.5, 0.99), again=False
    )
    table = run(write_images(tmp_path / "images.npz", count=6), tmp_path / "out", study, small()).table.read()
    masked = table[table["layer"].notna()]
    found = {layer: sorted(own["units"].unique()) for layer, own in masked.groupby("layer", observed=True)}
    assert found == {"first": [1, 6, 11], "second": [1, 8, 15]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attacks": ()}, "`attacks` must have at least one entry"),
        ({"target": "any"}, "`target` must be one of"),
        ({"layers": ()}, "`layers` must have at least one entry, and each once"),
        ({"shares": (0.1, 0.1)}, "`shares` must have at least one entry, and each once"),
        ({"shares": (0.1, 1.0)}, "`shares` must be above 0 and under 1; got 1.0"),
        ({"counts": (0, 4)}, "`counts` must be at least 1; got 0"),
        ({"fit": 0.0}, "`fit` must be above 0 and under 1; got 0.0"),
        ({"draws": 0}, "`draws` must be at least 1; got 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(changed, said):
    with pytest.raises(ParameterError, match=said):
        replace(STUDY, **changed)


def test_what_the_model_or_the_images_do_not_allow_is_refused(tmp_path):
    images = world(tmp_path / "images.npz", GREENS)
    with pytest.raises(ParameterError, match="`counts` must leave a unit of 'units', which has 3; got 3"):
        # Before any attack.
        run(images, tmp_path / "many", replace(STUDY, counts=(1, 3), attacks=(harmless,)))
    with pytest.raises(ParameterError, match="`layers` must name a layer of the model"):
        run(images, tmp_path / "layer", replace(STUDY, layers=("unit",)))
    with pytest.raises(ParameterError, match="`images` must be at least 2, because some are learned from"):
        run(world(tmp_path / "one.npz", [BRIGHT]), tmp_path / "one")
