"""`explain_perturbation`: what it finds, what it refuses, everything it writes."""

import json

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.models import SmallNet, linear, small
from whyfooled import Classifier, Fit, GradCAM, count_passes, explain, explain_perturbation
from whyfooled.errors import ImageError, MethodError, OutputError, ParameterError
from whyfooled.explanations.report.effect_figure import draw_effects
from whyfooled.perturbation import Grid, sensitivity


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(4)
    clean = torch.rand(1, 3, 16, 16, generator=generator)
    return clean, (clean + 0.3 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def named():
    names = ["ash, ash tree", "birch", "cedar", "elm", "<oak & co>"]
    return Classifier(SmallNet().eval(), (0.5,) * 3, (0.25,) * 3, (16, 16), names, name="trees")


def test_it_holds_what_the_library_computes(pair):
    classifier = named()
    clean, adversarial = pair
    true = int(classifier.predict(clean))
    found = explain_perturbation(classifier, clean, adversarial, target=(true + 1) % 5, regions=Grid(4))
    assert (found.true, found.wrong) == (true, (true + 1) % 5)
    alone = sensitivity(classifier, clean, adversarial, torch.tensor([true]), torch.tensor([(true + 1) % 5]), Grid(4))
    assert torch.equal(found.effect.sensitivity.score, alone.score)
    assert (found.passes["regions"].forwards, found.passes["regions"].backwards) == (1 + 16 + 1 + 2, 2)
    maps = GradCAM()(classifier, torch.cat(pair), torch.tensor([[found.wrong, true]] * 2))
    torch.testing.assert_close(found.effect.cams.maps, maps)
    assert found.to_dict()["effect"]["regions"]["count"] == 16


def test_everything_is_written(pair, tmp_path):
    found = explain_perturbation(named(), *pair, regions=Grid(4))
    found.save(tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"report.html", "perturbation.json", "regions.csv", "tensors.safetensors", "pictures"}
    pictures = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
    assert {"clean.png", "delta.png", "perturbation-size.png", "effect.png", "ratio.png"} <= pictures
    assert {"regions-paper.png", "regions-colour-blind.png"} <= pictures
    assert json.loads((tmp_path / "out" / "perturbation.json").read_text())["effect"] == found.to_dict()["effect"]
    table = pd.read_csv(tmp_path / "out" / "regions.csv")
    torch.testing.assert_close(torch.tensor(table["score"]), found.effect.sensitivity.score[0].double())
    tensors = load_file(tmp_path / "out" / "tensors.safetensors")
    torch.testing.assert_close(tensors["regions/ratio"], found.effect.sensitivity.ratio[0])
    assert torch.equal(tensors["regions/labels"], found.effect.sensitivity.labels[0])
    assert tensors["maps/gradcam/clean/true"].shape == (1, 16, 16)
    page = (tmp_path / "out" / "report.html").read_text()
    for part in ("Does it act where Grad-CAM looks?", "colour-blind", "with the regions in colours"):
        assert part in page
    assert "<oak" not in page
    assert page.count("data:image/webp") >= 3 + 4 + 4
    assert "srcdoc" in found._repr_html_()
    assert repr(found).startswith("PerturbationExplanation(")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        found.save(tmp_path / "file")


def test_the_same_section_is_in_the_report_of_an_explanation(pair):
    whole, alone = explain(named(), pair[0], adversarial=pair[1]), explain_perturbation(named(), *pair)
    assert whole.to_dict()["effect"] == alone.to_dict()["effect"]
    # But for what the trust in each rests on.
    own = [line for line in alone.summary().splitlines() if line.startswith("Can the regions be read one by one?")]
    assert len(own) == 1
    assert set(alone.summary().splitlines()) - set(own) <= set(whole.summary().splitlines())
    unchanged = explain(named(), pair[0], adversarial=pair[0])
    assert unchanged.effect is None
    assert unchanged.to_dict()["effect"] is None
    assert "Where does the perturbation act?" not in unchanged._repr_html_()


def test_files_are_read(pair, tmp_path):
    clean, adversarial = pair
    save_file({"clean": clean[0], "adversarial": adversarial[0]}, tmp_path / "both.safetensors")
    both = explain_perturbation(named(), tmp_path / "both.safetensors", tmp_path / "both.safetensors")
    assert torch.equal(both.clean, clean[0])
    assert torch.equal(both.adversarial, adversarial[0])
    Image.new("RGB", (40, 30), (90, 30, 200)).save(tmp_path / "photograph.png")
    photograph = explain_perturbation(named(), tmp_path / "photograph.png", adversarial)
    assert photograph.clean.shape == (3, 16, 16)
    assert any("too much for one perturbation" in note for note in photograph.notes)


def test_a_picture_of_the_inputs_size_goes_in_as_it_is_where_that_is_nearer(tmp_path):
    # Enlarged and cut, as photographs are, it would be another picture.
    fit = Fit((16, 16), shorter_side=24)
    classifier = Classifier(SmallNet().eval(), (0.5,) * 3, (0.25,) * 3, fit=fit, size=(16, 16))
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "clean.png")
    as_it_is = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    fitted = classifier.prepare(picture)
    assert not torch.equal(as_it_is, fitted)
    for clean in (as_it_is, fitted):
        adversarial = (clean + 0.01).clamp(0, 1)
        found = explain_perturbation(classifier, tmp_path / "clean.png", adversarial, target=0, label=1)
        torch.testing.assert_close(found.clean, clean[0])
    with pytest.raises(ImageError, match="there is no perturbation to explain"):
        explain_perturbation(classifier, tmp_path / "clean.png", tmp_path / "clean.png")


def test_a_model_without_spatial_maps_has_its_regions_drawn_on_the_image(tmp_path):
    generator = torch.Generator().manual_seed(0)
    classifier = linear(torch.randn(3, 192, generator=generator))
    clean = torch.rand(1, 3, 8, 8, generator=generator)
    found = explain_perturbation(classifier, clean, (clean + 0.2).clamp(0, 1), regions=Grid(4))
    assert found.effect.cams is None
    assert any("is not compared with class activation maps" in note for note in found.notes)
    assert found.to_dict()["effect"]["cam"] is None
    found.save(tmp_path)
    assert (tmp_path / "pictures" / "regions-paper.png").is_file()
    with pytest.raises(MethodError, match="Grad-CAM needs a layer"):
        explain_perturbation(classifier, clean, (clean + 0.2).clamp(0, 1), cam="gradcam")


def test_what_cannot_be_explained_is_said(pair, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    clean, adversarial = pair
    classifier = named()
    true = int(classifier.predict(clean))
    with pytest.raises(ImageError, match="there is no perturbation to explain"):
        explain_perturbation(classifier, clean, clean)
    with pytest.raises(ParameterError, match="must be another class than the true one"):
        explain_perturbation(classifier, clean, adversarial, target=true)
    with pytest.raises(ParameterError, match="must be one image of the classifier's input size"):
        explain_perturbation(classifier, clean, adversarial[..., :8])
    with pytest.raises(ParameterError, match="`cell` must fit into the image"):
        explain_perturbation(classifier, clean, adversarial, regions=Grid(17))
    with pytest.raises(ParameterError, match="`cam` must be the name of a known saliency method"):
        explain_perturbation(classifier, clean, adversarial, cam="gradcamm")


def test_nothing_about_the_classifier_changes(pair):
    classifier = small()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    with count_passes(classifier):
        explain_perturbation(classifier, *pair)
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())
    assert not classifier._forward_pre_hooks
    assert not any(part._forward_hooks for part in classifier.modules())


def test_maps_that_hold_one_class_against_the_other_are_called_so(pair):
    assert explain_perturbation(named(), *pair, cam="enhanced").to_dict()["effect"]["cam"]["contrastive"]
    assert not explain_perturbation(named(), *pair, cam="gradcam").to_dict()["effect"]["cam"]["contrastive"]


def test_long_names_leave_the_figure_its_room(pair):
    found = explain_perturbation(named(), *pair).effect.sensitivity
    figure = draw_effects(found, "a_long_name_" * 12, "another_" * 20)
    figure.canvas.draw()
    assert all(panel.get_position().width > 0.6 for panel in figure.axes)
    assert figure.legends[0].get_window_extent().x0 > 0
