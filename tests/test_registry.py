"""How a name on the command line becomes an attack or a saliency method, and a method becomes its name again."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib import metadata
from typing import ClassVar, get_args

import jaxtyping
import pytest

import whyfooled
from whyfooled import registry
from whyfooled.attacks import ATTACKS, BIM, FGSM, PGD, CarliniWagner, Refined
from whyfooled.defences import DETECTORS, PENALTIES
from whyfooled.errors import ParameterError
from whyfooled.registry import Card, available, build, describe, number, parameters, parse, refused, split_list
from whyfooled.saliency import LRP, METHODS, Enhanced, GradCAM, Gradient, GuidedBackprop, InputXGradient

LISTS = {"attacks": ATTACKS, "saliency": METHODS, "detectors": DETECTORS, "penalties": PENALTIES}
EVERY = [(kind, method) for kind, methods in LISTS.items() for method in methods]


@pytest.mark.parametrize(("kind", "method"), EVERY, ids=lambda value: getattr(value, "__name__", value))
def test_every_method_is_public(kind, method):
    assert getattr(whyfooled, method.__name__) is method
    assert method.__name__ in whyfooled.__all__


# A value other than the default for every parameter of every method.
OTHER = {
    "attention": "attnlrp",
    "alpha": 2.0,
    "attack": BIM(steps=5),
    "ball": "l2",
    "base": GradCAM("features.3"),
    "baseline": "mean",
    "beta": 0.5,
    "cam": GradCAM("features.3"),
    "cell": 2,
    "cells": 7,
    "bias": True,
    "bits": 3,
    "by_class": False,
    "candidates": 3,
    "confidence": 0.5,
    "confidence_share": 0.5,
    "decision": "l1",
    "decoy": "square",
    "epsilon": 0.1,
    "eta": 2.5,
    "evidence": "odds",
    "fill": "mean",
    "first": "flat",
    "gamma": 0.2,
    "gamma_final": 0.01,
    "group_size": 8,
    "jitter": 0.1,
    "form": "concentration",
    "keep": 0.2,
    "kernel_width": 0.5,
    "l1": 0.3,
    "layer": "features.3",
    "learning_rate": 0.02,
    "loss": "dlr",
    "margin": 1.5,
    "method": Enhanced(norm="max"),
    "methods": (GradCAM("features.3"), Gradient()),
    "momentum": 0.5,
    "noise": 0.3,
    "norm": "max",
    "others": "logits",
    "output": "probability",
    "overshoot": 0.1,
    "refine": False,
    "restarts": 3,
    "rho": 3.0,
    "ridge": 0.5,
    "ring": 3,
    "rounds": 5,
    "queries": 50,
    "samples": 4,
    "searches": 5,
    "rule": "epsilon",
    "seed": 7,
    "share": 0.3,
    "sigma": 0.01,
    "size": 3,
    "step_size": 1 / 255,
    "steps": 11,
    "stride": 4,
    "superpixels": 9,
    "targets": 4,
    "tau": 0.7,
    "threshold": 0.2,
    "threshold_step": 0.02,
    "tv": 0.9,
    "views": ("identity", "median"),
    "weight": 2.0,
    "where": "sensitivity",
    "window": 0.2,
    "variant": "clrp2",
}


def other(method, name):
    """Return a value of a parameter that is not its default."""
    own = {
        ("DeepFool", "ball"): "linf",
        ("FMN", "ball"): "linf",
        ("MinimalAPGD", "ball"): "linf",
        ("ContrastiveLRP", "base"): LRP("alpha-beta", alpha=2.0),
        ("MeaningfulPerturbation", "beta"): 2.0,
        ("PredictionDifference", "fill"): "marginal",
        ("PredictionDifference", "stride"): 1.0,
    }
    return own.get((method.__name__, name), OTHER[name])


EVERY_PARAMETER = [(kind, method, name) for kind, method in EVERY for name in parameters(method)]


class TestParse:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("cw", CarliniWagner()),
            ("cw()", CarliniWagner()),
            (" bim ( steps = 3 , epsilon = 0.5 ) ", BIM(epsilon=0.5, steps=3)),
            ("fgsm(epsilon=4/255)", FGSM(4 / 255)),
            ("pgd(epsilon=0.5/255)", PGD(0.5 / 255)),
            ("pgd(epsilon=.1/255)", PGD(1 / 2550)),
            ("fgsm(epsilon=8 / 255)", FGSM(8 / 255)),
            ("fgsm(epsilon=1e-2)", FGSM(0.01)),
            ("fgsm(epsilon=1)", FGSM(1.0)),
            ("bim(step_size=1/255)", BIM(step_size=1 / 255)),
            ("bim(step_size=none)", BIM()),
            ("pgd(ball=l2, epsilon=1/2, seed=-3)", PGD(0.5, ball="l2", seed=-3)),
            ("refined(attack=bim(steps=5), where=sensitivity, keep=0.2)", Refined(BIM(steps=5), "sensitivity", 0.2)),
            ("refined(cam=gradcam(layer=conv1), attack=fgsm)", Refined(FGSM(), cam=GradCAM("conv1"))),
        ],
    )
    def test_an_attack_is_made_from_its_name_and_parameters(self, text, expected):
        assert parse("attacks", text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("guided", GuidedBackprop()),
            ("gradcam(layer=features.28)", GradCAM("features.28")),
            ("gradcam(layer=None)", GradCAM()),
            ("enhanced(base=gradient, norm=max)", Enhanced(Gradient(), "max")),
            ("enhanced(norm=energy, base=gradcam(layer=conv1))", Enhanced(GradCAM("conv1"), "energy")),
            ("enhanced(base=gradcam(layer=conv1), norm=energy)", Enhanced(GradCAM("conv1"), "energy")),
        ],
    )
    def test_a_saliency_method_is_made_from_its_name_and_parameters(self, text, expected):
        assert parse("saliency", text) == expected

    def test_options_given_elsewhere_come_on_top(self):
        assert parse("attacks", "pgd(steps=3, seed=1)", {"seed": 5, "epsilon": "2/255"}) == PGD(
            2 / 255, steps=3, seed=5
        )

    def test_values_may_be_given_without_text(self):
        assert build("saliency", Enhanced, {"base": Gradient(), "norm": "max"}) == Enhanced(Gradient(), "max")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("cw", ["cw"]),
            (" guided , gradient,", ["guided", "gradient"]),
            ("bim(steps=3, epsilon=0.1), cw", ["bim(steps=3, epsilon=0.1)", "cw"]),
            (
                "enhanced(base=gradcam(layer=a), norm=max), guided",
                ["enhanced(base=gradcam(layer=a), norm=max)", "guided"],
            ),
            (
                "enhanced(norm=max, base=gradcam(layer=a)), guided",
                ["enhanced(norm=max, base=gradcam(layer=a))", "guided"],
            ),
            ("", []),
        ],
    )
    def test_a_list_is_split_at_the_commas_outside_parentheses(self, text, expected):
        assert split_list(text) == expected


class TestDescribe:
    def test_only_what_differs_from_the_default_is_written(self):
        assert describe(PGD()) == "pgd"
        assert describe(PGD(steps=3, ball="l2")) == "pgd(steps=3, ball=l2)"
        assert describe(Enhanced(GradCAM("conv1"), "max")) == "enhanced(base=gradcam(layer=conv1), norm=max)"

    @pytest.mark.parametrize(("kind", "method"), EVERY)
    def test_every_method_is_read_back_from_its_description(self, kind, method):
        assert describe(method()) == method.card.name
        assert parse(kind, method.card.name) == method()

    @pytest.mark.parametrize(("kind", "method", "name"), EVERY_PARAMETER)
    def test_every_parameter_is_read_back_from_the_description(self, kind, method, name):
        changed = replace(method(), **{name: other(method, name)})
        assert changed != method()
        assert parse(kind, describe(changed)) == changed

    @pytest.mark.parametrize(("kind", "method"), EVERY)
    def test_all_parameters_together_are_read_back_from_the_description(self, kind, method):
        changed = method(**{name: other(method, name) for name in parameters(method)})
        assert parse(kind, describe(changed)) == changed

    def test_the_parameters_of_a_method_have_their_defaults(self):
        assert parameters(Enhanced) == {"base": GuidedBackprop(), "norm": "channel"}
        assert parameters(InputXGradient) == {}

    def test_what_is_refused_is_not_offered_and_has_a_reason(self):
        assert not refused("saliency").keys() & available("saliency").keys()
        assert all(reason.endswith(".") for reason in refused("saliency").values())
        assert refused("attacks") == {}

    def test_no_two_methods_have_the_same_name(self):
        assert len(available("attacks")) == len(ATTACKS)
        assert len(available("saliency")) == len(METHODS)


@pytest.fixture
def unchecked_types(monkeypatch) -> None:
    """Leave every argument to the library, as users have it, without these tests' own check of its type."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unchecked_types")
class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ("pdg", "Did you mean pgd"),
            ("PGD", "Did you mean pgd"),
            ("boundary", "`attack` must be the name of a known attack; got 'boundary'"),
            ("guided", "known attack"),
            ("", "must look like name"),
            ("bim(steps=3", "must look like name"),
            ("bim steps=3", "must look like name"),
            ("bim(3)", "`bim` takes its parameters as parameter=value; got '3'"),
            ("bim(step=3)", "`step` must be a parameter of bim; got 'step'. Did you mean step"),
            ("bim(steps=many)", "`steps` must be a whole number; got 'many'"),
            ("bim(steps=2.5)", "`steps` must be a whole number; got '2.5'"),
            ("bim(steps=3)(steps=4)", "`steps` must be a whole number"),
            ("bim(steps=0)", "`steps` must be at least 1; got 0"),
            ("bim(step_size=small)", "`step_size` must be a number"),
            ("fgsm(epsilon=large)", "`epsilon` must be a number or a fraction such as 4/255; got 'large'"),
            ("fgsm(epsilon=1/0)", "`epsilon` must be a number or a fraction"),
            ("fgsm(epsilon=1/0.0)", "`epsilon` must be a number or a fraction"),
            ("fgsm(epsilon=1/2/3)", "`epsilon` must be a number or a fraction such as 4/255; got '1/2/3'"),
            ("fgsm(epsilon=/255)", "`epsilon` must be a number or a fraction"),
            ("fgsm(epsilon=4/)", "`epsilon` must be a number or a fraction"),
            ("fgsm(epsilon=1e999999/255)", "`epsilon` must be a number or a fraction"),
            ("fgsm(epsilon=1/1e999999)", "`epsilon` must be a number or a fraction"),
            ("fgsm(epsilon=nan)", "`epsilon` must be a number or a fraction"),
            ("fgsm(epsilon=1e400)", "`epsilon` must be"),
            ("fgsm(epsilon=4)", "Did you mean 4/255?"),
            ("pgd(ball=l3)", "`ball` must be one of linf, l2; got l3"),
            ("apgd(loss=hinge)", "`loss` must be one of ce, dlr; got hinge"),
        ],
    )
    def test_a_bad_attack_is_refused_with_advice(self, text, fragment):
        with pytest.raises(ParameterError) as caught:
            parse("attacks", text)
        assert fragment in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ("gided", "`methods` must be the name of a known saliency method; got 'gided'. Did you mean guided"),
            ("real-time-saliency", "got 'real-time-saliency'. Real-time image saliency (Dabkowski & Gal 2017"),
            ("enhanced(base=real-time-saliency)", "must first be trained for each classifier"),
            ("input-x-gradient(layer=a)", "got 'layer'. input-x-gradient has no parameters."),
            ("lrp(attention=values)", "`attention` must be one of value, attnlrp; got values"),
            ("enhanced(norm=chanel)", "`norm` must be one of channel, energy, max; got chanel"),
            ("enhanced(base=gided)", "Did you mean guided"),
            (
                "enhanced(base=gradcam(lyer=a))",
                "`lyer` must be a parameter of gradcam; got 'lyer'. Did you mean layer?",
            ),
        ],
    )
    def test_a_bad_saliency_method_is_refused_with_advice(self, text, fragment):
        with pytest.raises(ParameterError) as caught:
            parse("saliency", text)
        assert fragment in str(caught.value)

    def test_an_option_that_the_method_does_not_have_is_refused(self):
        with pytest.raises(
            ParameterError,
            match=r"`steps` must be left out with fgsm, which has no such parameter; got 3\. It is one of bim",
        ):
            parse("attacks", "fgsm", {"steps": 3})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4/255", 4 / 255),
        (" 4 / 255 ", 4 / 255),
        ("-0.5", -0.5),
        ("1e-3", 0.001),
        ("2", 2.0),
        ("0.5/255", 1 / 510),
        (".1/255", 1 / 2550),
        ("-.5 / 2.55e2", -1 / 510),
        ("1./3", 1 / 3),
    ],
)
def test_a_number_may_be_a_fraction(text, expected):
    assert number("epsilon", text) == expected


@dataclass(frozen=True)
class Sobel:
    """A saliency method of somebody else."""

    absolute: bool = False
    width: float = 1.0

    card: ClassVar[Card] = Card("sobel", "Sobel", "Edges.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        return images


@pytest.fixture
def sobel(monkeypatch) -> None:
    """Have Sobel installed by another package."""
    entry = metadata.EntryPoint("sobel", f"{__name__}:Sobel", "whyfooled.saliency")
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [entry] if group == entry.group else [])
    # They are scanned once a process.
    monkeypatch.setattr(registry, "_find_entry_points", registry._find_entry_points.__wrapped__)


@pytest.mark.usefixtures("sobel")
class TestOtherPackages:
    def test_their_methods_come_after_ours(self):
        assert list(available("saliency").values()) == [*METHODS, Sobel]
        assert list(available("attacks").values()) == list(ATTACKS)

    @pytest.mark.parametrize(
        "method", [Sobel(), Sobel(absolute=True), Sobel(True, 0.5), Enhanced(Sobel(absolute=True), "max")]
    )
    def test_their_methods_are_read_and_described(self, method):
        assert parse("saliency", describe(method)) == method

    def test_their_methods_are_suggested(self):
        with pytest.raises(ParameterError, match="Did you mean sobel"):
            parse("saliency", "soble")

    @pytest.mark.parametrize(("text", "expected"), [("true", True), ("False", False)])
    def test_yes_and_no_are_written_true_and_false(self, text, expected):
        assert parse("saliency", f"sobel(absolute={text})") == Sobel(absolute=expected)

    def test_another_word_for_yes_is_refused(self):
        with pytest.raises(ParameterError, match="`absolute` must be true or false; got 'yes'"):
            parse("saliency", "sobel(absolute=yes)")


@pytest.mark.usefixtures("unchecked_types")
class TestHostileTexts:
    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ("fgsm(epsilon=1e99999999)", "`epsilon` must be a number or a fraction such as 4/255; got '1e99999999'."),
            ("fgsm(epsilon=1E+99999999)", "`epsilon` must be a number or a fraction"),
            ("fgsm(epsilon=1e-99999999)", "`epsilon` must be a number or a fraction"),
            (f"fgsm(epsilon=1e{'9' * 5000})", "`epsilon` must be a number or a fraction"),
            (f"fgsm(epsilon={'1' * 5000})", f"got '{'1' * 40}'… (5000 characters)."),
            (f"fgsm(epsilon=1/{'1' * 5000})", "`epsilon` must be a number or a fraction"),
            (f"pgd(seed={'9' * 5000})", f"`seed` must be a whole number; got '{'9' * 40}'… (5000 characters)."),
            (f"fgsm(epsilon={' ' * 100_000}1)", "`attack` must have at most 20000 characters; got 100015."),
            (f"fgsm{' ' * 100_000}x", "`attack` must have at most 20000 characters"),
            (f"fgsm{' ' * 19_000}x", "must look like name or name(parameter=value, ...); got 'fgsm  "),
            (
                "refined(attack=" * 1000 + "fgsm" + ")" * 1000,
                "`attack` must be nested at most 20 deep; got 'refined(at",
            ),
            (f"refined(attack={'[' * 21}])", "`attack` must be nested at most 20 deep"),
            ("x" * 19_000, f"known attack; got '{'x' * 40}'… (19000 characters)."),
            (f"fgsm({'x' * 19_000}=1)", "must be a parameter of fgsm; got 'xxx"),
        ],
    )
    def test_they_are_refused_at_once_and_in_short(self, text, fragment):
        began = time.perf_counter()
        with pytest.raises(ParameterError) as caught:
            parse("attacks", text)
        assert fragment in str(caught.value)
        assert len(str(caught.value)) < 500
        assert time.perf_counter() - began < 5

    def test_options_given_elsewhere_are_bounded_too(self):
        for more in ({"epsilon": "1e99999999"}, {"steps": "1" * 5000}, {"steps": "1" * 30_000}, {"ball": "(" * 21}):
            with pytest.raises(ParameterError, match=next(iter(more))):
                parse("attacks", "bim" if "ball" not in more else "pgd", more)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("1e-300", 1e-300),
            ("1e300", 1e300),
            ("2e-400", 0.0),
            ("1e-0007", 1e-7),
            (f"0.{'3' * 98}", 1 / 3),
            (".5", 0.5),
        ],
    )
    def test_unusual_numbers_are_read_exactly(self, text, expected):
        assert number("epsilon", text) == expected

    def test_nesting_and_length_have_room(self):
        deep = "enhanced(base=gradcam(layer=features.3), norm=max)"
        assert parse("saliency", deep + " " * 15_000) == Enhanced(GradCAM("features.3"), "max")


def test_what_other_packages_add_is_looked_for_once(monkeypatch):
    looked = []
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: looked.append(group) or [])
    registry._find_entry_points.cache_clear()
    try:
        for _ in range(3):
            parse("saliency", "enhanced(base=guided)")
            available("saliency")
        assert sorted(looked) == sorted(set(looked))
        assert "whyfooled.saliency" in looked
    finally:
        registry._find_entry_points.cache_clear()


def test_an_attack_that_keeps_the_class_is_made_before_it_is_explained():
    with pytest.raises(ParameterError, match=r"that keeps the class: make it first \(whyfooled attack\), then explain"):
        parse("attacks", "per-image")


def test_a_parameter_of_other_methods_is_said_to_be_theirs():
    with pytest.raises(ParameterError) as raised:
        parse("attacks", "cw(epsilon=4/255)")
    assert str(raised.value).startswith(
        "`epsilon` must be left out with cw, which has no such parameter; got 4/255. It is one of fgsm, bim, pgd"
    )


@pytest.mark.parametrize("kind", get_args(registry.Kind))
def test_every_parameter_is_explained(kind):
    for method in registry.available(kind).values():
        texts = registry.parameter_texts(method)
        assert list(texts) == list(parameters(method)), method
        assert all(len(text) > 8 for text in texts.values()), method
