"""The classifier, how a photograph is fitted to it, and what an attack on it is to reach."""

from __future__ import annotations

import math

import jaxtyping
import numpy as np
import pytest
import torch
import torchvision.transforms as T
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from tests.helpers.models import small
from whyfooled.classifier import Classifier, Fit, check_classes
from whyfooled.classifier.goals import Targeted, Untargeted
from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ImageError, ModelError, ParameterError


class Constant(nn.Module):
    """Gives the same answer to everything, and keeps what it was given."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x):
        self.given = x
        return self.answer


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("out of order")


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


IMAGES = torch.full((2, 3, 8, 8), 0.5)


class TestForward:
    def test_the_images_are_normalised_channel_by_channel(self):
        module = Constant(torch.zeros(2, 4))
        Classifier(module, mean=(0.1, 0.25, 0.5), std=(0.5, 0.25, 2.0))(IMAGES)
        assert torch.allclose(module.given[1, :, 3, 4], torch.tensor([0.8, 1.0, 0.0]))

    def test_the_images_go_in_as_they_are_without_normalisation(self):
        module = Constant(torch.zeros(2, 4))
        Classifier(module)(IMAGES)
        assert torch.equal(module.given, IMAGES)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn])
    def test_the_normalisation_has_the_type_of_the_first_parameter_that_is_floating(self, dtype):
        module = Constant(torch.zeros(2, 4))
        module.packed = nn.Parameter(torch.zeros(3, dtype=torch.float32).to(dtype), requires_grad=False)
        mean, std = (0.1, 0.25, 0.5), (0.5, 0.25, 2.0)
        alone = Classifier(module, mean=mean, std=std)
        alone(IMAGES)
        assert torch.allclose(module.given[1, :, 3, 4], torch.tensor([0.8, 1.0, 0.0]))
        assert alone.prepare(noise(300, 300)).max() == 1
        module.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))
        assert Classifier(module, mean=mean, std=std).mean.dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_of_a_module_of_another_precision_it_has_that(self, dtype):
        module = small().module.to(dtype)
        classifier = Classifier(module, mean=(0.1, 0.25, 0.5), std=(0.5, 0.25, 2.0))
        assert (classifier.mean.dtype, classifier.std.dtype) == (dtype, dtype)
        assert torch.equal(classifier.mean.flatten(), torch.tensor([0.1, 0.25, 0.5], dtype=dtype))

    def test_grey_images_go_to_a_model_with_one_channel(self):
        module = Constant(torch.zeros(2, 4))
        Classifier(module, mean=[0.5], std=[0.5])(IMAGES[:, :1])
        assert torch.equal(module.given, torch.zeros(2, 1, 8, 8))

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_a_photograph_is_prepared_in_grey_for_a_model_with_one_channel(self, mode):
        classifier = Classifier(Constant(torch.zeros(1, 4)), mean=[0.5], std=[0.5], size=(8, 8))
        photograph = noise(8, 8).convert(mode)
        prepared = classifier.prepare(photograph)
        assert prepared.shape == (1, 1, 8, 8)
        assert torch.equal(prepared[0, 0] * 255, torch.from_numpy(np.array(photograph.convert("L"))).float())
        assert classifier(prepared).shape == (1, 4)

    def test_the_gradient_reaches_the_images(self):
        images = IMAGES.clone().requires_grad_()
        small()(images)[:, 0].sum().backward()
        assert images.grad.abs().sum() > 0

    def test_prediction_takes_the_largest_logit(self):
        classifier = Classifier(Constant(torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])))
        assert classifier.predict(IMAGES).tolist() == [1, 0]

    def test_an_empty_batch_has_no_predictions(self):
        assert small().predict(torch.zeros(0, 3, 16, 16)).shape == (0,)

    @pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8), (2, 4, 8, 8)])
    def test_images_of_another_shape_are_refused(self, shape):
        with pytest.raises(ImageError, match=r"must have the shape \(n, 3, h, w\)"):
            small()(torch.zeros(shape))

    @pytest.mark.parametrize("std", [(1.0, 1.0, 0.0), (1.0, 1.0)])
    def test_an_impossible_normalisation_is_refused(self, std):
        with pytest.raises(ParameterError, match="`std` must have one positive number"):
            Classifier(Failing(), std=std)


class TestEvaluation:
    @staticmethod
    def training_module(last: nn.Module) -> nn.Module:
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), last).train()
        module[0].eval()
        return module

    @staticmethod
    def flags(module: nn.Module) -> list[bool]:
        return [part.training for part in module.modules()]

    def test_a_module_in_training_mode_is_evaluated(self):
        module = self.training_module(nn.LazyLinear(3))
        found = Classifier(module)(IMAGES)
        assert torch.equal(found, module.eval()(IMAGES))

    def test_every_part_has_its_own_mode_back(self):
        module = self.training_module(nn.LazyLinear(3))
        before = self.flags(module)
        Classifier(module)(IMAGES)
        assert self.flags(module) == before
        assert before == [True, False, True, True, True, True]

    def test_every_part_has_its_own_mode_back_after_an_exception(self):
        module = self.training_module(Failing())
        before = self.flags(module)
        with pytest.raises(ModelError, match="out of order"):
            Classifier(module)(IMAGES)
        assert self.flags(module) == before

    def test_the_batch_statistics_are_not_learned(self):
        module = self.training_module(nn.LazyLinear(3))
        Classifier(module)(IMAGES)
        assert module[1].num_batches_tracked == 0
        assert torch.equal(module[1].running_mean, torch.zeros(4))

    def test_the_classifier_says_that_it_evaluates_and_leaves_the_module_its_flag(self):
        module = self.training_module(nn.LazyLinear(3))
        assert not Classifier(module).training
        assert module.training


class TestOutputs:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_logits_that_are_not_finite_are_refused(self, value):
        classifier = Classifier(Constant(torch.tensor([[1.0, 2.0, 0.0], [value, value, 0.0]])))
        with pytest.raises(ModelError, match="for 1 of 2 images"):
            classifier.logits(IMAGES)

    @pytest.mark.parametrize("rows", [[[2.0, -1.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.6]]])
    @pytest.mark.filterwarnings("error")
    def test_logits_that_only_resemble_probabilities_are_logits(self, rows):
        logits = torch.tensor(rows)
        assert torch.equal(Classifier(Constant(logits)).logits(IMAGES), logits)


class TestFit:
    @given(height=st.integers(8, 200), width=st.integers(8, 200), shorter_side=st.none() | st.integers(1, 60))
    def test_every_photograph_gets_the_size_asked_for(self, height, width, shorter_side):
        assert Fit((24, 40), shorter_side)(Image.new("RGB", (width, height))).size == (40, 24)

    @pytest.mark.parametrize("size", [(8, 8), (20000, 8), (8, 20000), (225, 223), (224, 224)])
    def test_small_and_very_long_photographs_get_the_size_asked_for(self, size):
        assert Fit((64, 64), 72)(Image.new("RGB", size)).size == (64, 64)

    def test_a_photograph_of_the_right_size_stays_as_it_is(self):
        photograph = noise(24, 40)
        assert np.array_equal(np.asarray(Fit((24, 40))(photograph)), np.asarray(photograph))

    def test_the_centre_is_cut_out(self):
        photograph = noise(24, 24)
        expected = np.asarray(photograph)[8:16, 8:16]
        assert np.array_equal(np.asarray(Fit((8, 8), shorter_side=24)(photograph)), expected)

    @pytest.mark.parametrize(
        ("height", "width"),
        [(400, 600), (375, 500), (640, 480), (332, 500), (451, 300), (270, 480), (224, 224), (9, 8)],
    )
    @pytest.mark.parametrize(("shorter_side", "interpolation"), [(256, "bilinear"), (235, "bicubic")])
    def test_it_is_what_torchvision_does(self, height, width, shorter_side, interpolation):
        resize = T.Resize(shorter_side, T.InterpolationMode(interpolation))
        theirs = T.CenterCrop(224)(resize(noise(height, width)))
        ours = Fit((224, 224), shorter_side, interpolation)(noise(height, width))
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))

    def test_an_unknown_interpolation_is_refused_with_a_suggestion(self):
        with pytest.raises(ParameterError, match="Did you mean bicubic"):
            Fit((8, 8), interpolation="bicubc")

    @pytest.mark.parametrize("size", [24, (24,), [24, 24], torch.Size([24, 24]), np.array([24, 24]), np.int64(24)])
    def test_one_number_is_for_both_sides(self, size, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        assert Fit(size) == Fit((24, 24))
        assert hash(Fit(size)) == hash(Fit((24, 24)))
        assert Fit(size, 30)(noise(40, 50)).size == (24, 24)
        assert Classifier(Failing(), size=size).size == (24, 24)

    @pytest.mark.parametrize(
        "size",
        [
            0,
            -3,
            24.0,
            (24.0, 24),
            "24",
            ("24", 24),
            True,
            (24, True),
            None,
            (),
            (1, 2, 3),
            np.array(1.5),
            torch.ones(1),
        ],
    )
    def test_anything_but_one_or_two_positive_whole_numbers_is_refused(self, size, monkeypatch):
        # As users have it, without these tests' own check of every argument's type.
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        for make in (Fit, lambda size: Classifier(Failing(), size=size)):
            with pytest.raises(
                ParameterError, match=r"`size` must be two positive numbers of pixels, .* or one for both"
            ):
                make(size)

    @pytest.mark.parametrize("size", [(0, 8), (8, -1)])
    def test_an_impossible_size_is_refused(self, size):
        with pytest.raises(ParameterError, match="`size` must be two positive numbers"):
            Fit(size)

    def test_a_prepared_photograph_is_a_batch_of_one_between_0_and_1(self):
        prepared = small(side=16).prepare(noise(30, 20))
        assert prepared.shape == (1, 3, 16, 16)
        assert 0 <= prepared.min() < prepared.max() <= 1


NAMES = ["tabby, tabby cat", "Egyptian cat", "crane", "lynx, catamount", "crane, hoist"]


@pytest.fixture
def named() -> Classifier:
    return Classifier(Failing(), class_names=NAMES)


@pytest.fixture(scope="module")
def bundled() -> Classifier:
    return load_classifier()


class TestClassNames:
    def test_classes_are_counted_with_names_and_without(self):
        assert small().class_count() == 5
        assert Classifier(Failing(), class_names=["a", "b"]).class_count() == 2

    @pytest.mark.parametrize(
        ("name", "index"),
        [
            ("tabby", 0),
            ("tabby cat", 0),
            ("tabby, tabby cat", 0),
            ("egyptian CAT", 1),
            (" hoist ", 4),
            (3, 3),
            ("3", 3),
            (0, 0),
        ],
    )
    def test_a_class_is_found_by_its_names_and_its_index(self, named, name, index):
        assert named.class_index(name) == index

    def test_a_name_that_two_classes_have_is_refused_with_their_indices(self, named):
        with pytest.raises(ParameterError, match=r"2 are called so; got 'crane'\. Give one of the indices \[2, 4\]"):
            named.class_index("crane")

    def test_both_cranes_of_imagenet_are_found(self, bundled):
        with pytest.raises(ParameterError, match=r"\[134, 517\]"):
            bundled.class_index("crane")

    def test_an_index_may_be_written_with_a_point(self, named):
        assert [named.class_index(index) for index in ("3.0", "3.", "003.00")] == [3] * 3
        assert Classifier(Failing()).class_index("7.0") == 7

    def test_a_class_that_is_called_like_a_number_with_a_point_is_found_by_its_name(self):
        classifier = Classifier(Failing(), class_names=["1.0", "2.0", "0.0", "1.5"])
        assert [classifier.class_index(name) for name in ("1.0", "2.0", "0.0", "1.5", "1", "3.0")] == [0, 1, 2, 3, 1, 3]

    @pytest.mark.parametrize("index", ["5.0", "-1.0"])
    def test_an_index_with_a_point_out_of_range_is_refused(self, named, index):
        with pytest.raises(ParameterError, match="must be a class index from 0 to 4"):
            named.class_index(index)

    @pytest.mark.parametrize("index", ["2.5", "1e0", ".0", "nan"])
    def test_a_fraction_is_no_index(self, named, index):
        with pytest.raises(ParameterError, match="must be the name or the index of a class"):
            named.class_index(index)

    def test_a_number_of_thousands_of_digits_is_refused(self, named):
        for classifier in (named, Classifier(Failing())):
            with pytest.raises(ParameterError, match=r"must be a class index.*; got a number of 5000 digits"):
                classifier.class_index("9" * 5000)
        assert named.class_index("0" * 99 + "4") == 4

    @pytest.mark.parametrize("index", [5, -1, "5", "-1"])
    def test_an_index_out_of_range_is_refused(self, named, index):
        with pytest.raises(ParameterError, match="must be a class index from 0 to 4"):
            named.class_index(index)

    @pytest.mark.parametrize("text", ["--1", "+-1", "²"])
    def test_what_only_resembles_a_number_is_refused(self, named, text):
        with pytest.raises(ParameterError, match="must be the name or the index of a class"):
            named.class_index(text)

    def test_the_number_of_classes_may_be_given(self):
        classifier = Classifier(Failing())
        assert classifier.class_index(6, classes=7) == 6
        with pytest.raises(ParameterError, match="from 0 to 6"):
            classifier.class_index(7, classes=7)

    def test_an_unknown_name_is_refused_with_a_suggestion(self, named):
        with pytest.raises(ParameterError, match=r"`target` must be the name.*got 'lnyx'.*Did you mean lynx"):
            named.class_index("lnyx", argument="target")

    def test_a_part_of_a_name_is_no_name(self, named):
        with pytest.raises(ParameterError, match="Egyptian cat"):
            named.class_index("Egyptian")

    def test_a_name_is_refused_where_the_classes_have_none(self):
        with pytest.raises(ParameterError, match="has no class names"):
            Classifier(Failing()).class_index("lynx", classes=7)

    def test_a_class_is_called_by_its_first_name(self, named):
        assert named.class_name(3) == "lynx"

    def test_a_class_without_a_name_is_called_by_its_index(self, named):
        assert named.class_name(5) == "class 5"
        assert named.class_name(-1) == "class -1"
        assert Classifier(Failing()).class_name(7) == "class 7"


LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])


def log_odds(row: list[float], index: int) -> float:
    return row[index] - math.log(sum(math.exp(value) for place, value in enumerate(row) if place != index))


class TestGoals:
    def test_an_untargeted_margin_is_the_lead_of_the_true_class(self):
        goal = Untargeted(torch.tensor([0, 0]))
        assert goal.margin(LOGITS).tolist() == [1, -3]
        assert goal.reached(LOGITS).tolist() == [False, True]

    def test_a_targeted_margin_is_what_the_chosen_class_lacks(self):
        goal = Targeted(torch.tensor([2, 1]))
        assert goal.margin(LOGITS).tolist() == [2, -2]
        assert goal.reached(LOGITS).tolist() == [False, True]

    @pytest.mark.parametrize(("kind", "sign"), [(Untargeted, 1), (Targeted, -1)])
    def test_the_loss_is_the_log_odds_of_the_class_with_its_sign(self, kind, sign):
        expected = [sign * log_odds([2, 1, 0], 0), sign * log_odds([0, 3, 1], 2)]
        assert kind(torch.tensor([0, 2])).loss(LOGITS).tolist() == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("kind", [Untargeted, Targeted])
    @pytest.mark.parametrize("images", [torch.tensor([2, 0]), torch.tensor([True, False, True])])
    def test_a_goal_is_kept_for_some_images(self, kind, images):
        classes = torch.tensor([4, 5, 6])
        selected = kind(classes).select(images)
        assert isinstance(selected, kind)
        assert selected.classes.tolist() == classes[images].tolist()

    @pytest.mark.parametrize("kind", [Untargeted, Targeted])
    def test_the_loss_has_a_gradient_where_the_classifier_is_certain(self, kind):
        logits = torch.tensor([[200.0, 0.0, 1.0]], requires_grad=True)
        kind(torch.tensor([0])).loss(logits).sum().backward()
        assert logits.grad[0].abs().sum() > 1

    @pytest.mark.parametrize("kind", [Untargeted, Targeted])
    def test_32_bit_classes_are_as_good(self, kind):
        classes = torch.tensor([0, 2])
        short, long = kind(classes.int()), kind(classes)
        assert torch.equal(short.margin(LOGITS), long.margin(LOGITS))
        assert torch.equal(short.loss(LOGITS), long.loss(LOGITS))
        assert torch.equal(short.reached(LOGITS), long.reached(LOGITS))

    @pytest.mark.parametrize("kind", [Untargeted, Targeted])
    @pytest.mark.parametrize(
        "classes", [torch.tensor(3), torch.tensor([[3]]), torch.tensor([3.0]), torch.tensor([True])]
    )
    def test_anything_but_a_vector_of_indices_is_refused(self, kind, classes, monkeypatch):
        # As users have it, without these tests' own check of every argument's type.
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        with pytest.raises(ParameterError, match="must be a vector of class indices"):
            kind(classes)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8])
    def test_classes_of_another_type_are_refused_with_the_fix(self, dtype, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        for kind, argument in ((Untargeted, "labels"), (Targeted, "classes")):
            with pytest.raises(ParameterError, match=rf"{dtype}\. If that is .* convert them: {argument}\.long\(\)\."):
                kind(torch.ones(2, dtype=dtype))

    @pytest.mark.parametrize("kind", [Untargeted, Targeted])
    @given(data=st.data())
    def test_the_margin_is_above_0_as_long_as_the_goal_is_not_reached(self, kind, data):
        row = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=6))
        goal = kind(torch.tensor([data.draw(st.integers(0, len(row) - 1))]))
        margin = goal.margin(torch.tensor([row])).item()
        assume(margin != 0)
        assert (margin > 0) != goal.reached(torch.tensor([row])).item()

    @pytest.mark.parametrize("kind", [Untargeted, Targeted])
    @given(data=st.data())
    def test_the_margin_does_not_change_with_a_shift_of_all_logits(self, kind, data):
        row = data.draw(st.lists(st.integers(-1000, 1000), min_size=2, max_size=6))
        shift = data.draw(st.integers(-1000, 1000))
        goal = kind(torch.tensor([data.draw(st.integers(0, len(row) - 1))]))
        logits = torch.tensor([row], dtype=torch.float32)
        assert torch.equal(goal.margin(logits + shift), goal.margin(logits))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
def test_classes_may_be_whole_numbers_of_any_size(dtype):
    check_classes(torch.tensor([0, 2], dtype=dtype), LOGITS)
    with pytest.raises(ParameterError, match="from 0 to 2; got values from 0 to 3"):
        check_classes(torch.tensor([0, 3], dtype=dtype), LOGITS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bool, torch.complex64])
def test_classes_of_other_types_are_refused(dtype):
    # 2.9 would be taken for 2, and True for 1.
    with pytest.raises(ParameterError, match=r"whole numbers; got torch.*convert them: classes\.long\(\)"):
        check_classes(torch.tensor([0, 1]).to(dtype), LOGITS)
