"""`explain_units`, and the same section in `explain`: what they find, what they refuse, everything they write."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.unit_pairs import LAST, a_pair, detecting, dissection_of, pooled
from whyfooled import BIM, explain, explain_perturbation, explain_units
from whyfooled.errors import ImageError, OutputError, ParameterError
from whyfooled.units.changes import find_unit_changes

NAMES = ["ash, ash tree", "birch", "<oak & co>", "elm"]


@pytest.fixture(scope="module")
def classifier():
    return pooled(names=NAMES)


@pytest.fixture(scope="module")
def dissection(classifier):
    return dissection_of(
        classifier,
        "body.2",
        LAST,
        threshold=torch.full((5,), 0.1),
        **detecting(0, 1, -1, 0, 2),
        concepts={"<sky>": "object", "road": "object", "red": "colour", "blue": "colour"},
    )


def wrong_for(classifier, clean):
    return int(classifier.logits(clean).topk(2).indices[0, 1])


def test_it_holds_what_the_library_computes(classifier, dissection):
    clean, adversarial = a_pair()
    true, wrong = int(classifier.predict(clean)), wrong_for(classifier, clean)
    found = explain_units(classifier, clean, adversarial, dissection, target=wrong, draws=2, seed=5)
    assert (found.true, found.wrong) == (true, wrong)
    alone = find_unit_changes(classifier, dissection, clean, adversarial, true, wrong, draws=2, seed=5)
    for one, other in zip(found.units.layers, alone.layers, strict=True):
        assert torch.equal(one.effect, other.effect)
        assert torch.equal(one.chance, other.chance)
    assert found.passes["units"].forwards == 4
    assert found.parameters["seed"] == 5
    assert found.parameters["dissection"] == str(dissection)
    assert set(alone.notes) <= set(found.notes)
    assert repr(found).startswith("UnitsExplanation(")


def test_everything_is_written(classifier, dissection, tmp_path):
    found = explain_units(classifier, *a_pair(), dissection)
    found.save(tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"report.html", "units.json", "units.csv", "tensors.safetensors", "pictures"}
    pictures = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
    assert {"clean.png", "adversarial.png", "delta.png"} <= pictures
    assert len([name for name in pictures if name.startswith("units-body_3-")]) == 8
    assert json.loads((tmp_path / "out" / "units.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    table = pd.read_csv(tmp_path / "out" / "units.csv")
    assert len(table) == 10
    torch.testing.assert_close(
        torch.tensor(table["true_effect"]), torch.cat([one.effect[0] for one in found.units.layers])
    )
    tensors = load_file(tmp_path / "out" / "tensors.safetensors")
    assert torch.equal(tensors["units/body.3/maps"], found.units.layers[1].maps)
    assert torch.equal(tensors["units/body.2/chance"], found.units.layers[0].chance.float())
    page = (tmp_path / "out" / "report.html").read_text()
    for part in ("What does it do to hidden units?", "body.3: 5, of which 4 detect a concept", "by chance"):
        assert part in page
    assert "<oak" not in page
    assert "<sky" not in page
    assert "&lt;sky&gt;" in page
    for reference in ('src="http', 'href="http', 'src="pictures', "url(http", "<script src", "None", "nan"):
        assert reference not in page
    assert "srcdoc" in found._repr_html_()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        found.save(tmp_path / "file")


def test_the_page_says_what_falls_and_when_not_to_trust_single_effects(classifier, dissection):
    found = explain_units(classifier, *a_pair(), dissection)
    last = found.units.layers[1]

    def page(**columns):
        units = replace(found.units, layers=(replace(last, **columns),))
        return replace(found, units=units)._repr_html_()

    plain = page()
    for part in (
        "Falling contribution to",
        "Rising contribution to",
        "of this image",
        "but no less than half the layer",
        "changes by 0.00 (0: not at all, 1: to its opposite)",
        "where the gradient changes by more than 0.5, or where the sum is off by more than 33 %",
        "of the 5 units that change at all",
    ):
        assert part in plain
    warning = "do not trust the effects of single units here"
    assert warning not in plain
    assert page(nonlinearity=torch.tensor([0.7, 0.2]).double()).count(warning) == 1
    assert "no unit changes at all" in page(distance=0 * last.distance, chance=0 * last.chance)
    assert "1 unit that gives the same everywhere on the annotated images and the clean one; 1 of them change" in page(
        std=last.std * torch.tensor([1.0, 0, 1, 1, 1]).double()
    )


def test_the_same_section_is_in_the_report_of_an_explanation(classifier, dissection, tmp_path):
    pair = a_pair()
    whole = explain(classifier, pair[0], adversarial=pair[1], methods=["gradient"], units=dissection)
    alone = explain_units(classifier, *pair, dissection)
    plain = explain(classifier, pair[0], adversarial=pair[1], methods=["gradient"])
    assert whole.to_dict()["units"] == alone.to_dict()["units"]
    # But for what the trust in each rests on.
    own = [
        line for line in alone.summary().splitlines() if line.startswith("Can the effects of single units be trusted?")
    ]
    assert len(own) == 1
    assert set(alone.summary().splitlines()) - set(own) <= set(whole.summary().splitlines())
    assert whole.passes["units"].forwards == 6
    assert whole.parameters["units"] == str(dissection)
    assert plain.units is None
    assert "units" not in plain.parameters
    assert set(whole.to_dict()) - set(plain.to_dict()) == {"units"}
    assert whole.to_dict()["recovery"] == plain.to_dict()["recovery"]
    assert "What does it do to hidden units?" not in plain._repr_html_()
    folder = whole.save(tmp_path / "out")
    assert (folder / "units.csv").exists()
    assert (folder / "regions.csv").exists()
    assert "units/body.3/effect" in load_file(folder / "tensors.safetensors")
    assert "What does it do to hidden units?" in (folder / "report.html").read_text()
    assert json.loads((folder / "explanation.json").read_text())["units"] == whole.to_dict()["units"]
    assert "units" not in explain_perturbation(classifier, *pair).to_dict()


def test_an_attack_of_ours_is_explained_too(classifier, dissection):
    found = explain(classifier, a_pair()[0], attack=BIM(epsilon=0.1), methods=["gradient"], units=dissection)
    (last,) = [one for one in found.units.layers if one.name == LAST]
    torch.testing.assert_close(last.accounted, found.units.logit_change, atol=1e-5, rtol=1e-3)
    change = (found.logits - found.clean_logits)[[found.true, found.wrong]].double()
    torch.testing.assert_close(found.units.logit_change, change, atol=1e-5, rtol=1e-4)


def test_an_image_that_nothing_was_done_to_has_no_section(classifier, dissection):
    clean = a_pair()[0]
    found = explain(classifier, clean, adversarial=clean, methods=["gradient"], units=dissection)
    assert found.units is None
    assert "What does it do to hidden units?" not in found._repr_html_()
    with pytest.raises(ImageError, match="there is no perturbation to explain"):
        explain_units(classifier, clean, clean, dissection)


def test_another_models_dissection_is_refused_before_the_work(dissection):
    other = pooled()
    with torch.no_grad():
        other.module.head.bias += 1
    with pytest.raises(
        ParameterError, match=r"`units` must be of the model that was attacked, pooled; got one of a pooled"
    ):
        explain(other, a_pair()[0], attack="no such attack", units=dissection)
    with pytest.raises(ParameterError, match="`dissection` must be of the model that was attacked"):
        explain_units(other, "nothere.png", "nothere.npy", dissection)


def test_a_dissection_is_read_from_its_folder(classifier, dissection, tmp_path):
    folder = dissection.save(tmp_path / "dissection")
    found = explain_units(classifier, *a_pair(), folder)
    assert found.parameters["dissection"] == "dissection"
    known = explain_units(classifier, *a_pair(), dissection).to_dict()["units"]
    assert found.to_dict()["units"] == known
    whole = explain(classifier, a_pair()[0], adversarial=a_pair()[1], methods=["gradient"], units=str(folder))
    assert whole.parameters["units"] == "dissection"
    assert whole.to_dict()["units"] == known
    with pytest.raises(ImageError, match="holds no dissection"):
        explain_units(classifier, *a_pair(), tmp_path)
