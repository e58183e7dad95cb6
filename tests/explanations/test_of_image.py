"""`explain`, end to end, on a small network: every outcome, every way in, everything it writes."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.models import SmallNet, small
from whyfooled import (
    BIM,
    FGSM,
    LIME,
    LRP,
    Classifier,
    Deconvnet,
    DeepLIFT,
    Enhanced,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GuidedBackprop,
    GuidedGradCAM,
    SmoothGrad,
    Targeted,
    explain,
    run_attack,
)
from whyfooled.cli import app
from whyfooled.errors import ImageError, MethodError, ModelError, OutputError, ParameterError
from whyfooled.explanations import shown_maps
from whyfooled.explanations.shown_maps import DEFAULT_METHODS, check_methods
from whyfooled.images import to_picture
from whyfooled.registry import make_every, title
from whyfooled.running.provenance import Stages
from whyfooled.types import silent

NAMES = ["ash, ash tree", "birch", "cedar", "elm", "<oak & co>"]


def named(module=None):
    return Classifier((module or SmallNet()).eval(), (0.5,) * 3, (0.25,) * 3, (16, 16), NAMES, name="trees")


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def fooled(image):
    return explain(named(), image, attack=BIM(epsilon=0.3))


@pytest.mark.parametrize(("size", "seen"), [((16, 16), 1.0), ((17, 16), 16 / 17), ((32, 16), 0.5), ((16, 64), 0.25)])
def test_a_report_says_what_part_of_the_photograph_the_model_sees(image, size, seen, tmp_path):
    photograph = to_picture(image[0]).resize(size)
    explained = explain(named(), photograph, attack=FGSM(epsilon=0.3), methods=["gradient"], checks=False)
    width, height = size
    assert explained.parameters["photograph"] == {"width": width, "height": height, "seen": round(seen, 4)}
    page = (explained.save(tmp_path / "out") / "report.html").read_text()
    sentence = f"the part that the model sees, {100 * seen:.0f} % of the photograph"
    assert (sentence in page) == (seen < 0.9)


def test_pixels_are_no_photograph(fooled):
    assert "photograph" not in fooled.parameters


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Enhanced(), "Enhanced guided backpropagation"),
        (Enhanced(Gradient(), "max"), "Enhanced gradient (max)"),
        (Enhanced(LIME()), "Enhanced LIME"),
        (Enhanced(GradCAMPlusPlus()), "Enhanced Grad-CAM++"),
        (Enhanced(GuidedGradCAM()), "Enhanced guided Grad-CAM"),
        (Enhanced(LRP()), "Enhanced layer-wise relevance propagation"),
        (DeepLIFT(), "DeepLIFT"),
        (SmoothGrad(), "SmoothGrad"),
        (SmoothGrad(GuidedBackprop(), noise=0.2), "SmoothGrad guided backpropagation (noise=0.2)"),
    ],
)
def test_a_title_keeps_the_capitals_of_names(method, expected):
    assert title(method) == expected


def test_the_seed_reaches_the_methods(image):
    found = explain(named(), image, attack=BIM(epsilon=0.3), methods=["smoothgrad(samples=2)"], seed=5)
    assert [one.method for one in found.evidence] == ["smoothgrad(samples=2, seed=5)"]


def test_a_map_that_is_meant_to_have_all_of_the_logit_says_what_it_lacks(image):
    classifier = named()
    notes = explain(classifier, image, attack=BIM(epsilon=0.3), methods=[LRP()]).notes
    (said,) = [note for note in notes if "adds up to" in note]
    found = re.search(r"Layer-wise relevance propagation: the map of (\w+) adds up to (-?\d+)% of its logit", said)
    adversarial = explain(classifier, image, attack=BIM(epsilon=0.3)).adversarial.unsqueeze(0)
    seen = classifier.predict(adversarial)
    assert found[1] == classifier.class_name(int(seen))
    assert int(found[2]) == pytest.approx(100 * float(1 - LRP().leak(classifier, adversarial, seen)), abs=1)
    with torch.no_grad():
        for layer in (classifier.module.first, classifier.module.second, classifier.module.head):
            layer.bias.zero_()
    whole = explain(classifier, image, attack=BIM(epsilon=0.3), methods=[LRP("epsilon")])
    assert not any("adds up to" in note for note in whole.notes)


def test_it_says_what_the_image_was_and_is_taken_for(fooled, image):
    classifier = named()
    assert fooled.outcome == "fooled"
    assert fooled.true == int(classifier.predict(image))
    assert fooled.wrong == int(classifier.predict(fooled.adversarial[None])) != fooled.true
    found = fooled.to_dict()
    assert found["true"]["name"] == fooled.names[fooled.true]
    for when, logits in (("clean", fooled.clean_logits), ("adversarial", fooled.logits)):
        rows = found["predictions"][when]
        assert [row["index"] for row in rows] == logits.argsort(descending=True).tolist()
        assert sum(row["probability"] for row in rows) == pytest.approx(1)


def test_norms_are_those_of_the_perturbation(fooled):
    delta = (fooled.adversarial - fooled.clean).double()
    found = fooled.to_dict()["perturbation"]
    assert found["l1"] == pytest.approx(float(delta.abs().sum()), rel=1e-5)
    assert found["l2"] == pytest.approx(float(delta.pow(2).sum().sqrt()), rel=1e-5)
    assert found["linf"] == pytest.approx(float(delta.abs().max()), rel=1e-5)
    assert found["l0"] == int(delta.ne(0).any(0).sum())


def test_the_headline_is_enhanced_guided_backpropagation_in_both_directions(fooled):
    classifier, both = named(), torch.stack([fooled.clean, fooled.adversarial])
    wrong, true = torch.tensor([fooled.wrong] * 2), torch.tensor([fooled.true] * 2)
    expected = [Enhanced()(classifier, both, wrong, contrast=true), Enhanced()(classifier, both, true, contrast=wrong)]
    assert fooled.headline.method == "enhanced"
    torch.testing.assert_close(fooled.headline.maps, torch.stack(expected, dim=1), rtol=1e-4, atol=1e-7)


def test_methods_with_the_same_base_share_their_passes(image):
    only = explain(named(), image, attack=FGSM(epsilon=0.3), methods=["enhanced"])
    more = explain(named(), image, attack=FGSM(epsilon=0.3), methods=["enhanced", "guided", "enhanced(norm=max)"])
    assert [one.method for one in more.evidence] == ["guided", "enhanced(norm=max)"]
    assert more.passes["saliency"] == only.passes["saliency"]
    assert (only.passes["saliency"].forwards, only.passes["saliency"].backwards) == (2, 4)


def test_recovery_has_every_map_every_fill_and_both_references(fooled):
    titles = [one.title for one in fooled.recovery]
    assert titles[0] == "Enhanced guided backpropagation"
    assert titles[-3:] == [
        "Control: size of the perturbation",
        "Control: the first map, shifted",
        "Control: random order",
    ]
    assert [one.control for one in fooled.recovery][-4:] == [False, True, True, True]
    assert len(titles) == 1 + len(fooled.evidence) + 3
    for one in fooled.recovery:
        assert set(one.curves) == ({"zero"} if "shifted" in one.title else {"zero", "mean", "noise", "blur"})
    assert len(fooled.recovery[-2].curves["zero"].recovered) == 19
    assert len(fooled.recovery[-1].curves["zero"].recovered) > 1


def test_a_target_is_reached_by_name_or_index(image):
    true = int(named().predict(image))
    target = (true + 2) % 5
    by_name = explain(named(), image, attack="bim(epsilon=0.5, steps=50)", target=NAMES[target].split(", ")[0].upper())
    by_index = explain(named(), image, attack="bim(epsilon=0.5, steps=50)", target=target)
    assert by_name.wrong == by_index.wrong == target
    assert torch.equal(by_name.adversarial, by_index.adversarial)


def test_an_attack_that_fails_is_said_and_explained(image):
    found = explain(named(), image, attack=FGSM(epsilon=1e-6))
    assert found.outcome == "failed"
    assert found.wrong != found.true
    assert any("attack failed" in note for note in found.notes)
    name = found.names[found.true]
    assert re.search(f"The model saw {name} .* and still sees {name} ", found.summary())
    assert found.summary().startswith("Note: The attack failed")
    assert found.headline.maps.any()


def test_an_image_that_is_wrong_already_is_said_and_explained(image):
    seen = int(named().predict(image))
    found = explain(named(), image, label=(seen + 1) % 5)
    assert found.outcome == "already wrong"
    assert (found.true, found.wrong) == ((seen + 1) % 5, seen)
    assert found.passes["attack"].backwards == 0
    assert any("nothing to fool" in note for note in found.notes)
    assert torch.equal(found.clean, found.adversarial)
    assert "Control: size of the perturbation" not in [one.title for one in found.recovery]


def test_an_example_made_elsewhere_is_explained(image, tmp_path):
    classifier = named()
    target = (classifier.predict(image) + 1) % 5
    made = run_attack(BIM(epsilon=0.5, steps=60), classifier, image, Targeted(target)).adversarial
    save_file({"x": made}, tmp_path / "made.safetensors")
    for given in (made, tmp_path / "made.safetensors"):
        found = explain(classifier, image, adversarial=given)
        assert found.outcome == "fooled"
        assert found.wrong == int(target)
        assert torch.equal(found.adversarial, made[0])
        assert found.passes["attack"].backwards == 0


def test_a_pair_that_is_no_pair_is_noted(image):
    found = explain(named(), image, adversarial=1 - image)
    assert any("too much for one perturbation" in note for note in found.notes)


def test_an_eight_bit_picture_is_noted(image, tmp_path):
    to_picture((image[0] + 0.02).clamp(0, 1)).save(tmp_path / "made.png")
    found = explain(named(), image, adversarial=tmp_path / "made.png")
    assert any("8 bits a channel" in note for note in found.notes)


class Smooth(SmallNet):
    def forward(self, x):
        return self.head(torch.nn.functional.softplus(self.first(x)).mean((2, 3)).repeat(1, 2)[:, :16])


def test_on_a_network_with_another_activation_the_gradient_is_enhanced_and_it_is_said(image):
    found = explain(named(Smooth()), image, attack=FGSM(epsilon=0.3))
    assert found.headline.method == "enhanced(base=gradient)"
    assert {one.method for one in found.evidence} == {"gradient", "input-x-gradient", "gradcam"}
    assert any("Softplus" in note for note in found.notes)


class Tokens(SmallNet):
    """Patches that go on as tokens, and with `heads` as several of them for each patch, which are no channels."""

    def __init__(self, *, heads=False):
        super().__init__()
        self.norm = torch.nn.LayerNorm(6 if heads else 12)
        self.tokens_head = torch.nn.Linear(12, 5)
        self.heads = heads

    def forward(self, x):
        tokens = self.first(x).flatten(2).transpose(1, 2)
        tokens = tokens.unflatten(2, (2, 6)).transpose(1, 2) if self.heads else tokens
        tokens = torch.nn.functional.gelu(self.norm(tokens))
        return self.tokens_head((tokens.transpose(1, 2).flatten(2) if self.heads else tokens).mean(1))


def test_on_a_network_of_tokens_every_method_of_a_report_works(image):
    found = explain(named(Tokens()), image, attack=FGSM(epsilon=0.3))
    assert found.headline.method == "enhanced"
    assert {one.method for one in found.evidence} == {"guided", "gradient", "input-x-gradient", "gradcam"}
    assert not any("is not shown" in note for note in found.notes)


def test_where_places_cannot_be_told_grad_cam_is_left_out_and_it_is_said(image):
    found = explain(named(Tokens(heads=True)), image, attack=FGSM(epsilon=0.3))
    assert {one.method for one in found.evidence} == {"guided", "gradient", "input-x-gradient"}
    assert any("Grad-CAM is not shown" in note and "tokens" in note for note in found.notes)


def test_of_all_methods_those_that_do_not_hold_are_left_out_and_it_is_said(image, monkeypatch):
    assert {Gradient(), Deconvnet(), GradCAM()} <= set(make_every("saliency"))
    monkeypatch.setattr(shown_maps, "make_every", lambda kind: [Gradient(), Deconvnet(), GradCAM()])
    found = explain(named(Tokens(heads=True)), image, attack=FGSM(epsilon=0.3), methods=["all"])
    assert {one.method for one in found.evidence} == {"gradient"}
    for name in ("Deconvnet", "Grad-CAM"):
        assert any(note.startswith(f"{name} is not shown. ") for note in found.notes)


def test_a_method_that_was_asked_for_and_does_not_hold_is_an_error(image):
    with pytest.raises(MethodError, match=r"does not work on this model\. .*Softplus"):
        explain(named(Smooth()), image, attack=never, methods=["gradient", GuidedBackprop()])


def never(classifier, images, goal):
    pytest.fail("It was attacked before it was found that a method does not work.")


def test_whether_methods_work_is_told_by_one_pass_of_each(image, monkeypatch):
    forward, seen = SmallNet.forward, []
    monkeypatch.setattr(SmallNet, "forward", lambda net, images: seen.append(len(images)) or forward(net, images))
    stages = Stages(named(), silent)
    check_methods(stages.classifiers[0], image, [Enhanced(), "smoothgrad(samples=50)", LIME(samples=500)], 0, stages)
    passes = stages.passes["methods"]
    # What is seen, one of guided backpropagation, and eight that SmoothGrad and LIME each send at once.
    assert seen == [1, 1, 8, 8]
    assert (passes.forwards, passes.backwards) == (18, 9)


def test_a_file_of_another_photograph_is_refused_and_one_that_is_changed_much_is_not(image, tmp_path):
    other = torch.rand(image.shape, generator=torch.Generator().manual_seed(99))
    save_file({"adversarial": other[0]}, tmp_path / "other.safetensors")
    with pytest.raises(ImageError, match=r"other.safetensors shows another picture than the photograph: their values"):
        explain(named(), image, adversarial=tmp_path / "other.safetensors", methods=["gradcam"])
    signs = torch.where(other > 0.5, 0.25, -0.25)
    save_file({"adversarial": (image + signs).clamp(0, 1)[0]}, tmp_path / "strong.safetensors")
    strong = explain(named(), image, adversarial=tmp_path / "strong.safetensors", methods=["gradcam"])
    assert any("too much for one perturbation" in note for note in strong.notes)


def test_the_same_seed_gives_the_same_explanation(image):
    first, second = (explain(named(), image, attack="pgd(epsilon=0.3)", seed=3).to_dict() for _ in range(2))
    for found in (first, second):
        del found["seconds"], found["seconds_in_all"]
    assert first == second
    other = explain(named(), image, attack="pgd(epsilon=0.3)", seed=4)
    assert other.to_dict()["perturbation"] != first["perturbation"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": 7}, "`label` must be a class index from 0 to 4"),
        ({"target": "elme"}, "`target` must be the name or the index of a class; got 'elme'. Did you mean elm"),
        ({"methods": ["guide"]}, "Did you mean guided"),
        ({"attack": "fsgm"}, "Did you mean fgsm"),
        ({"attack": "fgsm", "adversarial": "x.npy"}, "exclude each other"),
        ({"attack": "fgsm(epsilon=4)"}, "Did you mean 4/255"),
        ({"methods": ["enhanced(norm=sum)"]}, "norm"),
    ],
)
def test_bad_arguments_are_named(image, arguments, message):
    # The shape checks of the tests refuse a bad norm before the library does.
    with pytest.raises(Exception, match=re.escape(message) if message != "norm" else message) as caught:
        explain(named(), image, **arguments)
    assert message == "norm" or isinstance(caught.value, ParameterError)


def test_the_target_must_not_be_the_true_class(image):
    with pytest.raises(ParameterError, match="another class than the true one"):
        explain(named(), image, target=int(named().predict(image)))


def test_other_libraries_warnings_are_passed_on(image):
    class Warning_(SmallNet):
        def forward(self, x):
            import warnings

            warnings.warn("from elsewhere", DeprecationWarning, stacklevel=1)
            return super().forward(x)

    with pytest.warns(DeprecationWarning, match="from elsewhere"):
        explain(named(Warning_()), image, attack=FGSM(epsilon=0.3), methods=[Gradient()])


class References(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "action")]


def test_saving_writes_everything_and_the_page_needs_nothing_else(fooled, tmp_path):
    folder = fooled.save(tmp_path / "new" / "out")
    assert {path.name for path in folder.iterdir()} == {
        "report.html",
        "explanation.json",
        "tensors.safetensors",
        "regions.csv",
        "pictures",
    }
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    assert {"clean.png", "adversarial.png", "delta.png", "perturbation-size.png", "effect.png", "ratio.png"} <= pictures
    assert {"recovery-zero.png", "recovery-mean.png", "recovery-noise.png", "recovery-blur.png"} <= pictures
    assert {"regions-paper.png", "regions-colour-blind.png"} <= pictures
    assert len(pictures) == 12 + 6 * (1 + len(fooled.evidence))
    page = (folder / "report.html").read_text()
    assert "under a universal perturbation?" not in page
    references = References()
    references.feed(page)
    assert references.found
    assert all(reference.startswith(("data:", "#")) for reference in references.found)
    assert "url(http" not in page
    assert "@import" not in page
    assert "<oak" not in page


def test_every_number_on_the_page_is_in_the_json(fooled, tmp_path):
    found = json.loads((fooled.save(tmp_path / "out") / "explanation.json").read_text())
    assert found == json.loads(json.dumps(fooled.to_dict()))
    assert found["parameters"]["seed"] == 0
    assert found["parameters"]["attack"] == "bim(epsilon=0.3)"
    assert {"python", "whyfooled", "torch"} <= set(found["parameters"]["versions"])
    page = (tmp_path / "out" / "report.html").read_text()
    for row in found["predictions"]["adversarial"]:
        assert f"{row['logit']:.2f}" in page


def test_saved_tensors_are_float32_and_can_be_explained_again(fooled, tmp_path):
    path = fooled.save(tmp_path / "out") / "tensors.safetensors"
    tensors = load_file(path)
    whole = {"regions/labels", "regions/kind"}
    assert {tensor.dtype for name, tensor in tensors.items() if name not in whole} == {torch.float32}
    assert {tensors[name].dtype for name in whole} == {torch.int64}
    torch.testing.assert_close(tensors["adversarial"] - tensors["clean"], tensors["delta"])
    assert torch.equal(tensors["maps/enhanced/adversarial/wrong"], fooled.headline.maps[1, 0])
    again = explain(named(), tensors["clean"][None], adversarial=path)
    assert torch.equal(again.headline.maps, fooled.headline.maps)


def test_saving_again_leaves_no_picture_of_before_and_nothing_else_touched(fooled, image, tmp_path):
    folder = fooled.save(tmp_path / "out")
    (folder / "mine.txt").write_text("mine")
    explain(named(), image, attack=FGSM(epsilon=0.3), methods=["gradcam"]).save(folder)
    assert not list((folder / "pictures").glob("deconvnet*"))
    assert list((folder / "pictures").glob("gradcam*"))
    assert (folder / "mine.txt").read_text() == "mine"


def test_saving_again_leaves_no_table_of_a_section_of_before(fooled, tmp_path):
    folder = fooled.save(tmp_path / "out")
    (folder / "units.csv").write_text("of a report with units")
    assert (folder / "regions.csv").exists()
    image = fooled.clean[None]
    found = explain(named(), image, adversarial=image, methods=["gradcam"])
    assert found.effect is None
    found.save(folder)
    assert not {"units.csv", "regions.csv"} & {path.name for path in folder.iterdir()}
    # Without a page beside it, it is somebody's own.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "units.csv").write_text("mine")
    found.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "units.csv").read_text() == "mine"


def test_an_image_that_rounding_made_of_the_clean_one_is_told(image, tmp_path):
    to_picture(image[0]).save(tmp_path / "rounded.png")
    found = explain(named(), image, adversarial=tmp_path / "rounded.png", methods=["gradcam"])
    assert any(
        "at most, which is what rounding to 8 bits gives: the perturbation is gone" in note for note in found.notes
    )
    assert "the model is not fooled" in found._repr_html_()
    assert "the attack failed" not in found._repr_html_()


def test_the_attacks_parameters_are_recorded_defaults_too(fooled):
    assert fooled.to_dict()["parameters"]["attack_parameters"] == {
        "epsilon": 0.3,
        "step_size": None,
        "steps": 20,
        "ball": "linf",
    }


def test_it_has_a_short_name(fooled):
    assert repr(fooled) == f"Explanation(fooled: {fooled.names[fooled.true]} -> {fooled.names[fooled.wrong]})"


def test_an_example_that_fools_nobody_is_not_called_an_attack(image):
    found = explain(named(), image, adversarial=image)
    assert found.outcome == "failed"
    assert any("does not fool the model" in note for note in found.notes)
    assert not any("attack" in note for note in found.notes)


def test_a_strong_attack_of_ours_is_not_taken_for_a_wrong_file(image):
    found = explain(named(), image, attack=FGSM(epsilon=1.0))
    assert not any("same photograph" in note for note in found.notes)


def test_a_network_for_another_size_is_named(image):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    with pytest.raises(ModelError, match=r"shape \(1, 3, 16, 16\).*size="):
        explain(Classifier(module, size=(16, 16)), image)


@pytest.mark.parametrize("precision", [torch.float16, torch.float64])
def test_a_model_that_is_not_in_single_precision_is_named(image, precision):
    classifier = named().to(precision)
    for given in (image, to_picture(image[0])):
        with pytest.raises(ModelError, match=rf"must be in single precision .* its parameters are {precision}"):
            explain(classifier, given)


def test_saving_onto_a_file_is_refused(fooled, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        fooled.save(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_notebook_shows_the_page_in_a_frame(fooled):
    frame = fooled._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts" srcdoc=')
    assert "<main>" not in frame
    assert "&lt;main&gt;" in frame


def test_a_photograph_is_brought_to_the_input_size():
    photograph = Image.new("RGB", (40, 30), (200, 100, 50))
    found = explain(small(), photograph, attack=FGSM(epsilon=0.3), methods=[Gradient()])
    assert found.clean.shape == (3, 16, 16)


def test_the_help_names_the_methods_that_are_shown():
    (option,) = (one for one in typer.main.get_command(app).commands["explain"].params if one.name == "methods")
    assert option.show_default == ",".join(method.card.name for method in DEFAULT_METHODS)
