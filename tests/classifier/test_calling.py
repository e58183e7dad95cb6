"""What a user's module may be and do, through every entry: it works, or one sentence names the thing and the fix."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.helpers.models import SmallNet
from tests.helpers.untouched import state
from whyfooled import (
    CAM,
    FGSM,
    LIME,
    LRP,
    CarliniWagner,
    Classifier,
    GradCAM,
    Gradient,
    GuidedBackprop,
    Untargeted,
    attack_files,
    explain,
    run_attack,
)
from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ImageError, MethodError, ModelError, ParameterError, WhyfooledWarning

SIDE = 12


class Doing(nn.Module):
    """A small network, and something that is done with its logits."""

    def __init__(self, do=lambda z: z):
        super().__init__()
        self.net, self.do = SmallNet(), do

    def forward(self, x):
        return self.do(self.net(x))


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = SmallNet(), reentrant

    def forward(self, x):
        x = checkpoint(lambda x: F.relu(self.net.first(x)), x, use_reentrant=self.reentrant)
        return self.net.head(F.relu(self.net.second(x)).mean((2, 3)))


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x)


def raising(error):
    def do(z):
        raise error

    return Doing(do)


def classifier_of(module):
    return Classifier(module, size=(SIDE, SIDE))


def image():
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


CLASS = torch.tensor([1])
EXPLAIN = {"attack": FGSM(epsilon=0.2), "methods": ["gradient"]}
ENTRIES = {
    "logits": lambda classifier, images: classifier.logits(images),
    "gradient": lambda classifier, images: Gradient()(classifier, images, CLASS),
    "guided": lambda classifier, images: GuidedBackprop()(classifier, images, CLASS),
    "lrp": lambda classifier, images: LRP()(classifier, images, CLASS),
    "gradcam": lambda classifier, images: GradCAM()(classifier, images, CLASS),
    "cam": lambda classifier, images: CAM()(classifier, images, CLASS),
    "lime": lambda classifier, images: LIME(samples=8)(classifier, images, CLASS),
    "attack": lambda classifier, images: run_attack(
        FGSM(), classifier, images, Untargeted(classifier.predict(image().to(images.dtype)))
    ),
    "search": lambda classifier, images: run_attack(
        CarliniWagner(steps=3, rounds=2), classifier, images, Untargeted(classifier.predict(image()))
    ),
    "explain": lambda classifier, images: explain(classifier, images, **EXPLAIN),
}
ENTRY = pytest.mark.parametrize("entry", ENTRIES)
MAPS = {"gradient", "guided", "lrp", "gradcam", "cam"}
GRADIENTS = {"gradient", "guided", "lrp", "gradcam", "attack", "search", "explain"}


def one_sentence(entry, classifier, images, *errors):
    """Return the sentence with which an entry refuses; "" if it works."""
    try:
        ENTRIES[entry](classifier, images)
    except errors as error:
        return str(error)
    return ""


FAILURES = {
    "assertion": (raising(AssertionError("three channels, please")), "AssertionError: three channels, please."),
    "bare assertion": (raising(AssertionError()), "AssertionError."),
    "key": (raising(KeyError("logits")), "KeyError: 'logits'."),
    "runtime": (raising(RuntimeError("out of order")), ": out of order."),
    "exit": (raising(SystemExit(3)), "it called sys.exit(3)."),
}


@ENTRY
@pytest.mark.parametrize("name", FAILURES)
def test_what_a_model_says_when_it_fails_is_passed_on(entry, name):
    module, said = FAILURES[name]
    before = state(module)
    sentence = one_sentence(entry, classifier_of(module), image(), ModelError)
    assert sentence.startswith("The model failed on images of the shape (")
    assert said in sentence
    assert state(module) == before


@ENTRY
@pytest.mark.parametrize(
    ("do", "given"), [(lambda z: (100 * z).long(), "torch.int64"), (lambda z: torch.complex(z, z), "torch.complex64")]
)
def test_logits_that_are_no_floating_point_numbers_are_refused(entry, do, given):
    said = f"The model must return logits as floating-point numbers; got {given}. Return what it has before"
    assert said in one_sentence(entry, classifier_of(Doing(do)), image(), ModelError)


def test_ctrl_c_stays_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        classifier_of(raising(KeyboardInterrupt())).logits(image())


@pytest.mark.parametrize(
    "change", [lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_grad_enabled(False)]
)
@ENTRY
def test_what_a_model_changes_for_all_of_pytorch_is_set_back(entry, change):
    expected = ENTRIES[entry](classifier_of(Doing()), image())

    def do(z):
        change()
        return z

    result = ENTRIES[entry](classifier_of(Doing(do)), image())
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    if isinstance(expected, torch.Tensor):
        assert torch.equal(result, expected)


def test_a_checkpoint_around_the_classifier_is_its_callers():
    classifier, images = classifier_of(SmallNet()), image().requires_grad_()
    (expected,) = torch.autograd.grad(classifier(images)[:, 1].sum(), images)
    logits = checkpoint(classifier, images, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(logits[:, 1].sum(), images)[0], expected)


SCRIPTED = {
    "guided": r"\(a ScriptModule\)\. Give the plain Python module",
    "lrp": r"scripted or traced, .* Give the plain Python module\.",
    "gradcam": r"scripted or traced, where nobody can look\. Give the plain Python module\.",
    "cam": r"scripted or traced, where nobody can look\. Give the plain Python module\.",
}
REENTRANT = (
    "A part of this model has a re-entrant checkpoint, through which PyTorch gives no gradient of the image. Call "
    "torch.utils.checkpoint with use_reentrant=False, or switch checkpoints off."
)


@ENTRY
@pytest.mark.parametrize("make", [torch.jit.script, lambda module: torch.jit.trace(module, image())])
def test_a_scripted_model_works_or_says_that_it_is_scripted(entry, make):
    classifier = classifier_of(make(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))))
    if entry in SCRIPTED:
        with pytest.raises(MethodError, match=SCRIPTED[entry]):
            ENTRIES[entry](classifier, image())
    else:
        ENTRIES[entry](classifier, image())


@ENTRY
def test_a_checkpointed_model_works_or_says_that_it_is_checkpointed(entry):
    sentence = one_sentence(entry, classifier_of(Checkpointed(False)), image(), MethodError)
    assert ("without checkpoints" in sentence) == (entry in ("guided", "lrp"))


@ENTRY
def test_a_reentrant_checkpoint_is_named_with_its_fix(entry):
    sentence = one_sentence(entry, classifier_of(Checkpointed(True)), image(), ModelError, MethodError)
    if entry in ("gradient", "attack", "search", "explain"):
        assert sentence == REENTRANT
    assert bool(sentence) == (entry in GRADIENTS - {"gradcam"})


@ENTRY
def test_autocast_inside_a_model_is_warned_of(entry):
    classifier = classifier_of(Autocast())
    if entry == "explain":
        (note,) = [note for note in explain(classifier, image(), **EXPLAIN).notes if "autocast" in note]
        assert note.startswith("The model computes in torch.bfloat16, though its parameters are torch.float32")
        return
    with pytest.warns(WhyfooledWarning, match=r"computes in torch\.bfloat16, .* torch\.autocast inside"):
        sentence = one_sentence(entry, classifier, image(), MethodError)
    assert bool(sentence) == (entry in ("lrp", "cam"))


HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


@HALF
@ENTRY
def test_a_model_of_half_precision_works_or_says_so(entry, dtype):
    classifier = classifier_of(SmallNet().to(dtype))
    if entry in MAPS | {"explain"}:
        with pytest.raises(ModelError) as refused:
            ENTRIES[entry](classifier, image())
        assert str(refused.value).endswith(
            f"its parameters are {dtype}. Run a copy of it: classifier.float32(), on the command line --float32."
        )
    elif entry in ("attack", "search"):
        with pytest.warns(WhyfooledWarning, match=r"in half precision, .* classifier\.float32\(\)"):
            ENTRIES[entry](classifier, image())
    else:
        assert ENTRIES[entry](classifier, image()).dtype == torch.float32
        assert classifier.logits(image().double()).dtype == torch.float64
        assert classifier.logits(image().to(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@ENTRY
def test_in_single_precision_on_a_copy_everything_works(entry, dtype):
    module = SmallNet().to(dtype)
    classifier = Classifier(module, (0.5,) * 3, (0.25,) * 3, (SIDE, SIDE), ["a", "b", "c", "d", "e"], name="half")
    single = classifier.float32()
    ENTRIES[entry](single, image())
    assert (single.class_names, single.name, single.fit) == (classifier.class_names, "half", classifier.fit)
    assert all(value.dtype == torch.float32 for value in single.state_dict().values())
    assert all(parameter.dtype == dtype for parameter in module.parameters())
    expected = Classifier(SmallNet().to(dtype).float(), (0.5,) * 3, (0.25,) * 3).logits(image())
    assert torch.allclose(single.logits(image()), expected, atol=1e-6)
    assert single.float32() is single


@ENTRY
def test_a_model_of_double_precision_takes_images_of_single_precision(entry):
    classifier = classifier_of(SmallNet().double())
    if entry == "explain":
        with pytest.raises(ModelError, match=r"single precision .* torch\.float64\. Run a copy of it"):
            ENTRIES[entry](classifier, image())
    else:
        ENTRIES[entry](classifier, image())
    assert classifier.logits(image()).dtype == torch.float32
    assert classifier.logits(image().double()).dtype == torch.float64


IMAGES = {
    "numpy": (lambda: np.zeros((1, 3, SIDE, SIDE), np.float32), r"got ndarray\. .*torch\.as_tensor\(images?\)"),
    "bytes": (lambda: (255 * image()).to(torch.uint8), r"torch\.uint8\. .*images?\.float\(\) / 255"),
}


@ENTRY
@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_other_types_are_refused_with_the_fix(entry, kind, monkeypatch):
    import jaxtyping

    # As users have it, without these tests' own check of every argument's type.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    make, said = IMAGES[kind]
    classifier, goal = classifier_of(SmallNet()), Untargeted(CLASS)
    entries = {**ENTRIES, "attack": lambda c, x: run_attack(FGSM(), c, x, goal)}
    entries["search"] = lambda c, x: run_attack(CarliniWagner(), c, x, goal)
    with pytest.raises((ParameterError, ImageError), match=said):
        entries[entry](classifier, make())


@ENTRY
def test_images_that_require_a_gradient_are_as_good(entry):
    classifier, leaf = classifier_of(SmallNet()), image().requires_grad_()
    for images in (leaf, leaf * 1):
        result = ENTRIES[entry](classifier, images)
        if isinstance(result, torch.Tensor):
            assert torch.equal(result, ENTRIES[entry](classifier, image()))
    assert leaf.grad is None


@ENTRY
def test_inference_mode_works_or_is_named(entry):
    classifier = classifier_of(SmallNet())
    with torch.inference_mode():
        made_there, module = image(), SmallNet()
        sentence = one_sentence(entry, classifier, made_there, MethodError)
    inside = "Gradients cannot be taken inside torch.inference_mode(). Leave it; inside torch.no_grad() they can."
    assert sentence == (inside if entry in GRADIENTS else "")
    # Images that were made inside of it are no trouble afterwards; a model is.
    ENTRIES[entry](classifier, made_there)
    sentence = one_sentence(entry, classifier_of(module), image(), ModelError)
    assert ("were made inside torch.inference_mode()" in sentence) == (entry in GRADIENTS)


def test_photographs_on_which_a_model_fails_are_left_out_with_its_words(tmp_path):
    class AtNight(SmallNet):
        def forward(self, x):
            return super().forward(x) if x.mean((1, 2, 3)).amin() > 0.3 else {}["night"]

    for name, grey in (("day", 200), ("night", 20)):
        Image.new("RGB", (SIDE, SIDE), (grey, grey, grey)).save(tmp_path / f"{name}.png")
    done, errors = attack_files(classifier_of(AtNight()), [tmp_path], FGSM(), tmp_path / "out")
    assert done.names == ("day.png",)
    assert list(errors) == ["night.png"]
    assert "KeyError: 'night'. " in errors["night.png"]


def test_a_model_is_loaded_in_single_precision_if_one_says_so(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 3, bias=False)).half()\n"
    )
    model = f"{tmp_path / 'nets.py'}:make"
    assert load_classifier(model).is_half
    single = load_classifier(model, float32=True)
    assert {parameter.dtype for parameter in single.parameters()} == {torch.float32}
    assert (single.name, single.module.training) == (model, False)
