"""How far one image's maps move under a universal perturbation: by hand, and by brute force."""

import json
import re

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.models import linear, small
from whyfooled import BIM, EnhancedGuidedBackprop, GradCAM, Gradient, GuidedBackprop, explain
from whyfooled.errors import ImageError, MethodError, ParameterError
from whyfooled.images import content_digest
from whyfooled.saliency import Enhanced
from whyfooled.universal import UniversalPerturbation, changes
from whyfooled.universal import trust as module
from whyfooled.universal.evaluation import random_like
from whyfooled.universal.trust import find_trust


def draw(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def perturbation(size=1.0, side=16, **more):
    delta = draw(9, 3, side, side) - 0.5
    return UniversalPerturbation(size * delta / delta.norm(), size, fitted_to=frozenset(), **more)


@pytest.fixture(scope="module")
def image():
    return draw(4, 1, 3, 16, 16)


def test_it_is_what_each_image_alone_gives(image):
    classifier, made = small(), perturbation(3.0)
    methods = [Enhanced(), Gradient(), GuidedBackprop(), GradCAM()]
    found = find_trust(classifier, image, 2, 0, made, methods, seed=7, draws=3)
    images = [made.apply(image), *(random_like(made, image, 7 + number).clamp(0, 1) for number in range(3))]
    assert all(one.min() >= 0 and one.max() <= 1 for one in images)

    def enhanced(classifier, images, classes):
        return EnhancedGuidedBackprop()(classifier, images, classes, contrast=torch.zeros_like(classes))

    for own, method in zip(found.methods, [enhanced, *methods[1:]], strict=True):
        expected = [changes(method, classifier, image, torch.tensor([2]), moved) for moved in images]
        for name, value in own.universal.items():
            assert value == pytest.approx(float(expected[0][name]), abs=1e-6)
            torch.testing.assert_close(
                own.random[name], torch.cat([one[name] for one in expected[1:]]), atol=1e-5, rtol=1e-5
            )
        torch.testing.assert_close(own.maps.sum((1, 2)), torch.ones(3))
    assert [own.contrastive for own in found.methods] == [True, False, False, False]
    torch.testing.assert_close(found.logits, classifier.logits(images[0])[0])
    torch.testing.assert_close(found.delta, (images[0] - image)[0])
    seen = [int(classifier.predict(one)) == 2 for one in images[1:]]
    assert found.stays.tolist() == seen


def test_chunks_do_not_change_it(image, monkeypatch):
    few = find_trust(small(), image, 2, 0, perturbation(), [Gradient()], draws=5)
    monkeypatch.setattr(module, "_AT_ONCE", 100)
    many = find_trust(small(), image, 2, 0, perturbation(), [Gradient()], draws=5)
    for name, values in few.methods[0].random.items():
        torch.testing.assert_close(values, many.methods[0].random[name])


def test_a_linear_classifier_has_one_map_and_its_logits_move_by_hand():
    weight = draw(1, 2, 3 * 64) - 0.5
    clean = 0.4 + 0.2 * draw(2, 1, 3, 8, 8)
    made = perturbation(0.5, side=8)
    found = find_trust(linear(weight), clean, 1, 0, made, [Gradient()], draws=2)
    assert found.methods[0].universal["dissimilarity"] == 0
    assert found.methods[0].universal["top_overlap"] == 1
    assert found.methods[0].random["dissimilarity"].tolist() == [0, 0]
    torch.testing.assert_close(found.logits - found.clean_logits, weight @ made.delta.flatten())


def test_an_empty_map_has_no_numbers():
    weight = torch.stack([torch.zeros(3 * 64), torch.ones(3 * 64)])
    found = find_trust(linear(weight), draw(2, 1, 3, 8, 8), 0, 1, perturbation(side=8), [Gradient()], draws=2)
    numbers = found.methods[0].universal
    assert numbers["dissimilarity"] != numbers["dissimilarity"]
    assert numbers["top_overlap"] != numbers["top_overlap"]


@pytest.mark.parametrize("ball", ["l2", "linf"])
def test_random_directions_have_the_size_of_the_perturbation(ball):
    grey = torch.full((1, 3, 16, 16), 0.5)
    made = UniversalPerturbation(perturbation().delta * 0.1, 1.0, ball)
    drawn = random_like(made, grey, 3) - grey
    size = drawn.norm() if ball == "l2" else drawn.abs().max()
    assert float(size) == pytest.approx(made.l2 if ball == "l2" else made.linf, rel=1e-4)


def test_notes_say_where_the_perturbation_comes_from(image):
    classifier = small()

    def notes(digests=(), **more):
        made = perturbation()
        made = UniversalPerturbation(made.delta, made.epsilon, **{"fitted_to": frozenset({"other"}), **more})
        return find_trust(classifier, image, 0, 1, made, [Gradient()], draws=1, digests=digests).notes

    assert notes() == ()
    assert notes(model="small", model_digest=classifier.digest()) == ()
    (transfer,) = notes(model="large", model_digest="0")
    assert transfer == ("The universal perturbation was made on another model, large: what it does here is transfer.")
    (weights,) = notes(model="small", model_digest="0")
    assert "on a small with other weights" in weights
    (unknown,) = notes(fitted_to=None)
    assert unknown.startswith("It is not known which images")
    (fitted,) = notes(fitted_to=frozenset({content_digest(image[0]), "other"}))
    assert fitted.startswith("The universal perturbation was fitted to this very image")
    assert notes(digests=["other"]) == (fitted,)


def test_what_cannot_be_measured_is_refused(image):
    with pytest.raises(ImageError, match=r"resized\(\(16, 16\)\), on the command line --resize"):
        find_trust(small(), image, 0, 1, perturbation(side=8), [Gradient()])
    with pytest.raises(ParameterError, match="`draws` must be at least 1; got 0"):
        find_trust(small(), image, 0, 1, perturbation(), [Gradient()], draws=0)
    with pytest.raises(MethodError, match="Grad-CAM needs a layer"):
        find_trust(linear(draw(1, 2, 3 * 256), side=16), image, 0, 1, perturbation(), [GradCAM()], draws=1)


def explained(image, **more):
    return explain(small(), image, attack=BIM(epsilon=0.1), methods=["gradient", "gradcam"], **more)


def test_a_report_holds_it_and_changes_nothing_else(image, tmp_path):
    perturbation(2.0, method="random").save(tmp_path / "delta.safetensors")
    found = explained(image, trust=tmp_path / "delta.safetensors")
    plain = explained(image)
    assert plain.trust is None
    assert found.trust.seen == int(plain.clean_logits.argmax())
    assert found.trust.contrast == int(plain.clean_logits.topk(2).indices[1])
    assert found.parameters["trust"] == "delta.safetensors"
    assert found.passes["trust"].forwards > 0
    numbers, before = found.to_dict(), plain.to_dict()
    assert [one["method"] for one in numbers["trust"]["methods"]] == ["enhanced", "gradient", "gradcam"]
    assert set(numbers) - set(before) == {"trust"}
    assert numbers["recovery"] == before["recovery"]
    assert "trust" not in before["parameters"]
    said, before_said = found.summary().splitlines(), plain.summary().splitlines()
    # What comes last, of the checks of maps, speaks of the universal perturbation too.
    assert said[: len(before_said) - 1] == before_said[:-1]
    assert len(said) == len(before_said) + 4

    folder = found.save(tmp_path / "out")
    page = (folder / "report.html").read_text()
    assert "Do the maps change under a universal perturbation?" in page
    assert re.search(r"the map keeps \d+\s% of its top pixels", page)
    assert json.loads((folder / "explanation.json").read_text())["trust"] == numbers["trust"]
    tensors = load_file(folder / "tensors.safetensors")
    torch.testing.assert_close(tensors["trust/delta"], found.trust.delta)
    torch.testing.assert_close(tensors["trust/maps/gradient"], found.trust.methods[1].maps)
    drawn = {path.stem for path in (folder / "pictures").glob("trust-*")}
    assert "trust-delta" in drawn
    assert {"trust-gradient-clean", "trust-gradient-universal", "trust-gradient-random"} <= drawn


def test_a_photograph_that_was_fitted_to_is_known_before_it_is_resized(tmp_path):
    photograph = Image.effect_noise((40, 30), 80).convert("RGB")
    photograph.save(tmp_path / "noise.png")
    made = perturbation()
    made = UniversalPerturbation(made.delta, made.epsilon, fitted_to=frozenset({content_digest(photograph)}))
    for given in (photograph, tmp_path / "noise.png"):
        notes = explained(given, trust=made).notes
        assert any("fitted to this very image" in note for note in notes)


def test_a_perturbation_of_another_size_is_refused_before_the_work(image):
    with pytest.raises(ImageError, match="must have the size of the images"):
        explain(small(), image, attack="no such attack", trust=perturbation(side=8))
    with pytest.raises(ImageError, match="There is no file"):
        explain(small(), image, trust="nowhere.safetensors")
