"""How a source's classes are matched with a classifier's."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.helpers.models import SmallNet, small
from tests.helpers.pictures import photograph
from whyfooled import Classifier
from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ParameterError
from whyfooled.sources import class_map, mapped, open_source


def named(names, classes=None) -> Classifier:
    return Classifier(SmallNet(classes=classes or len(names)).eval(), class_names=names, size=(16, 16))


class TestClassMap:
    @pytest.fixture
    def tree(self, tmp_path):
        def made(*names):
            for name in names:
                photograph(tmp_path / "tree" / name / "1.png")
            return open_source(f"folder:{tmp_path / 'tree'}")

        return made

    def test_names_are_found_in_any_order_and_case(self, tree):
        assert class_map(tree("cat", "Dog"), named(["lynx", "dog", "cat, tabby"])) == (1, 2)

    def test_the_first_of_several_names_will_do(self, tree):
        assert class_map(tree("cat, tabby"), named(["lynx", "cat"])) == (1,)

    def test_ten_synsets_are_found_among_a_thousand(self, tree):
        synsets = [f"n0{number}" for number in (1440764, 2012849, 2123045, 3126707, 3710721)]
        # Crane (the bird), tabby, crane (the machine), maillot: names that are ambiguous or differ between libraries.
        expected = (0, 134, 281, 517, 639)
        bundled = load_classifier()
        bare = Classifier(SmallNet(classes=1000).eval(), size=(16, 16))
        torchvisions = load_classifier("torchvision:squeezenet1_1", weights="random")
        source = tree(*synsets)
        for classifier in (bundled, bare, torchvisions):
            assert class_map(source, classifier) == expected

    def test_a_thousand_other_classes_are_not_imagenets(self, tree):
        with pytest.raises(ParameterError, match="none of the latter, such as n01440764"):
            class_map(tree("n01440764"), named([f"kind {number}" for number in range(1000)]))

    def test_numbers_are_indices(self, tree):
        source = tree("281", "7", "30")
        assert class_map(source, load_classifier()) == (281, 30, 7)
        with pytest.raises(ParameterError, match=r"3 classes, the classifier 31, and 1 of .* such as 281"):
            class_map(source, Classifier(SmallNet(classes=31).eval(), size=(16, 16)))

    def test_equally_many_are_taken_by_position(self, tree):
        source = tree("bird", "cat", "dog")
        assert class_map(source, Classifier(SmallNet(classes=3).eval(), size=(16, 16))) == (0, 1, 2)
        assert class_map(source, named(["bird", "felis", "dog"])) == (0, 1, 2)

    def test_a_position_that_a_name_contradicts_is_refused(self, tree):
        with pytest.raises(ParameterError, match=r"such as cat, and the others stand in another order"):
            class_map(tree("bird", "cat", "dog"), named(["dog", "felis", "bird"]))

    def test_other_counts_are_refused(self, tree):
        with pytest.raises(ParameterError, match=r"2 classes, the classifier 5, and 2 .* Name the classes as the"):
            class_map(tree("cat", "dog"), small())

    def test_labels_without_names_are_the_classifiers_own(self, tmp_path):
        images = np.zeros((2, 9, 9, 3), np.uint8)
        np.savez(tmp_path / "a.npz", images=images, labels=np.array([0, 4]))
        assert class_map(open_source(tmp_path / "a.npz"), small()) is None
        np.savez(tmp_path / "b.npz", images=images, labels=np.array([0, 5]))
        with pytest.raises(ParameterError, match="from 0 to 4; got 5"):
            class_map(open_source(tmp_path / "b.npz"), small())

    def test_no_labels_need_no_map(self, photographs):
        assert class_map(open_source(photographs), small()) is None


class TestNumbers:
    """Labels as pandas writes whole numbers that met a missing one, and other numbers."""

    @pytest.fixture
    def labelled(self, tmp_path):
        def made(*labels):
            shutil.rmtree(tmp_path / "pictures", ignore_errors=True)
            for number in range(len(labels)):
                photograph(tmp_path / "pictures" / f"{number:02}.png")
            rows = "".join(f"{number:02}.png,{label}\n" for number, label in enumerate(labels))
            (tmp_path / "l.csv").write_text(f"file,label\n{rows}")
            return open_source(tmp_path / "pictures", tmp_path / "l.csv")

        return made

    @staticmethod
    def shown(source, classifier):
        found = class_map(source, classifier)
        return [mapped(labels, found) for labels in source.all_labels]

    def test_whole_numbers_written_with_a_point_are_indices(self, labelled):
        bare = Classifier(SmallNet(classes=12).eval(), size=(16, 16))
        source = labelled(*(f"{number}.0" for number in range(12)))
        assert self.shown(source, bare) == [(number,) for number in range(12)]
        assert self.shown(source, named([f"kind {number}" for number in range(12)])) == [(n,) for n in range(12)]

    def test_both_forms_of_a_number_are_one_class(self, labelled):
        assert self.shown(labelled("2.0", "2", "02.;2.00"), small()) == [(2,), (2,), (2,)]

    def test_a_class_that_is_called_so_comes_first(self, labelled):
        assert self.shown(labelled("1.0", "2.0", "3.0"), named(["1.0", "3.0", "2.0"])) == [(0,), (2,), (1,)]
        assert self.shown(labelled("1.5", "2.5"), named(["2.5", "1.5"])) == [(1,), (0,)]

    @pytest.mark.parametrize(
        ("labels", "got"),
        [
            (["0.0", "1.0", "1.5"], "1.5"),
            (["0", "1", "nan"], "nan"),
            (["0.0", "1.0", "NaN"], "NaN"),
            (["0.0", "1.0", "3.0"], "3.0"),
            (["cat", "dog", ".5"], ".5"),
            (["-1.0", "cat", "dog"], "-1.0"),
        ],
    )
    def test_other_numbers_are_not_counted_as_names(self, labelled, labels, got):
        bare = Classifier(SmallNet(classes=3).eval(), size=(16, 16))
        with pytest.raises(ParameterError) as caught:
            class_map(labelled(*labels), bare)
        assert str(caught.value) == (
            f"`labels` must be indices from 0 to 2 where they are numbers, or class names; got {got}. "
            "Write them as whole numbers, and leave out those that are missing."
        )

    def test_a_number_of_thousands_of_digits_is_refused(self, labelled):
        with pytest.raises(ParameterError, match="none of the latter, such as 9999"):
            class_map(labelled("9" * 5000), small())

    def test_numbers_in_names_are_names(self, tmp_path):
        for name in ("2020", "2021", "ten"):
            photograph(tmp_path / "tree" / name / "1.png")
        source = open_source(f"folder:{tmp_path / 'tree'}")
        assert class_map(source, Classifier(SmallNet(classes=3).eval(), size=(16, 16))) == (0, 1, 2)
