"""Models of one's own: called with arguments that are never evaluated, with what they take and their classes said."""

import json

import pytest
import torch
import typer
from torch import nn

from tests.helpers.command_line import command
from whyfooled import explain
from whyfooled.classifier.inputs import InputFormat, describe_input, wrap_module
from whyfooled.classifier.names import read_class_list
from whyfooled.classifier.own import read_call
from whyfooled.classifier.zoo import load_classifier
from whyfooled.cli import app
from whyfooled.errors import ModelError, ParameterError, WhyfooledWarning

FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=3, width=2, names=(), activation="relu", scale=1.0):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, width, 3), nn.Linear(width, num_classes)
        self.given = num_classes, width, names, activation, scale

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

def classifier():
    from whyfooled import Classifier
    return Classifier(Net(), size=8)

def needy(width, depth, *, wide=False):
    return Net(width=width)
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "nets.py").write_text(FILE)
    return tmp_path / "nets.py"


class TestCalls:
    @pytest.mark.parametrize(
        ("call", "given"),
        [
            ("Net", (3, 2, (), "relu", 1.0)),
            ("Net()", (3, 2, (), "relu", 1.0)),
            ("Net(5, width=4)", (5, 4, (), "relu", 1.0)),
            ("Net(names=['a', \"b:c\"], activation=gelu)", (3, 2, ["a", "b:c"], "gelu", 1.0)),
            ("Net(scale=-2.5e-1, names={'a': (1, None, True)})", (3, 2, {"a": (1, None, True)}, "relu", -0.25)),
        ],
    )
    def test_a_class_is_called_with_plain_values(self, file, call, given):
        classifier = load_classifier(f"{file}:{call}")
        assert classifier.module.given == given
        assert classifier.name == f"{file}:{call}"

    @pytest.mark.parametrize(
        "call",
        [
            "Net(width=__import__('os').getpid())",
            "Net(width=1 + 1)",
            "Net(width=[x for x in (1, 2)])",
            "Net(width=open('x'))",
            "Net(width=f'{1}')",
            "Net(width=(lambda: 2)())",
        ],
    )
    def test_nothing_is_evaluated(self, call):
        with pytest.raises(ParameterError, match=r"`model` must have plain values as arguments; got .*\. Numbers, str"):
            read_call(call)

    @pytest.mark.parametrize("call", ["Net(", "Net)(", "Net.inner()", "Net()()", "Net(**x)", "1", "", "a b", "Net[0]"])
    def test_anything_but_a_name_or_a_call_is_refused(self, call):
        with pytest.raises(ParameterError, match=r"`model` must end in a name, or in name\(argument=value, \.\.\.\)"):
            read_call(call)

    def test_a_text_that_is_nested_without_end_is_refused(self):
        with pytest.raises(ParameterError):
            read_call("f(" * 5000 + ")" * 5000)

    def test_arguments_that_are_missing_or_not_there_are_named(self, file):
        with pytest.raises(ModelError) as refused:
            load_classifier(f"{file}:needy(2)")
        assert str(refused.value) == (
            f"{file}:needy must be given all arguments that it needs; it needs depth. Give them: "
            f"{file}:needy(depth=...)."
        )
        with pytest.raises(ModelError, match=r"has other arguments .*: got an unexpected keyword argument 'depht'\."):
            load_classifier(f"{file}:needy(2, depht=3)")
        assert load_classifier(f"{file}:needy(depth=1, width=2)").class_count() == 3


class TestClasses:
    def test_a_factory_with_the_parameter_is_given_the_number(self, file, tmp_path):
        assert load_classifier(f"{file}:Net", num_classes=7).class_count() == 7
        assert load_classifier(f"{file}:Net", class_names=["a", "b"]).class_count() == 2
        trained = load_classifier(f"{file}:Net", num_classes=7)
        torch.save(trained.module.state_dict(), tmp_path / "w.pt")
        again = load_classifier(f"{file}:Net(width=2)", num_classes=7, weights=tmp_path / "w.pt")
        images = torch.rand(1, 3, 224, 224)
        assert torch.equal(again.logits(images), trained.logits(images))

    def test_another_number_than_the_models_is_refused(self, file):
        with pytest.raises(ModelError, match=r"needy\(2, 1\) has 3 classes, and 4 are asked for\."):
            load_classifier(f"{file}:needy(2, 1)", num_classes=4)
        with pytest.raises(ModelError, match=r"Net\(num_classes=3\) has 3 classes, and 4 are asked for\."):
            load_classifier(f"{file}:Net(num_classes=3)", num_classes=4)

    def test_a_number_beside_names_must_be_theirs(self):
        with pytest.raises(ParameterError, match="`num_classes` must be the number of class names, 2; got 3"):
            load_classifier("lite0", class_names=["a", "b"], num_classes=3)
        with pytest.raises(ParameterError, match="`num_classes` must be at least 2; got 1"):
            load_classifier("lite0", num_classes=1)

    def test_a_librarys_head_that_is_new_is_said_to_be_untrained(self):
        with pytest.warns(WhyfooledWarning, match=r"last layer of lite0 is made anew for 4 classes and untrained, so"):
            assert load_classifier("lite0", num_classes=4).class_count() == 4

    @pytest.mark.filterwarnings("error")
    def test_weights_with_as_many_classes_are_loaded(self, tmp_path):
        model = "torchvision:squeezenet1_1"
        trained = load_classifier(model, weights="random", num_classes=3)
        torch.save(trained.module.state_dict(), tmp_path / "w.pt")
        assert load_classifier(model, weights=tmp_path / "w.pt", num_classes=3).digest() == trained.digest()
        with pytest.raises(ModelError, match=r"w\.pt has 3 classes, and 4 are asked for"):
            load_classifier(model, weights=tmp_path / "w.pt", num_classes=4)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "text", "names"),
        [
            ("a.txt", "tabby, tabby cat\nlynx\n", ("tabby, tabby cat", "lynx")),
            ("a.txt", "\ufeff été \r\nlynx\r\n\r\n", ("été", "lynx")),
            ("a.json", '["a", "b"]', ("a", "b")),
            ("a.json", '{"1": ["n2", "b"], "0": ["n1", "a"], "10": "k", "2": "c", "3": "d"}', None),
            ("a.json", '{"1": ["n2", "b"], "0": ["n1", "a"]}', ("a", "b")),
        ],
    )
    def test_a_file_has_a_name_for_each_class(self, tmp_path, name, text, names):
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        if names is None:
            with pytest.raises(ParameterError, match="Its keys are not the numbers of classes from 0 on"):
                read_class_list(tmp_path / name)
        else:
            assert read_class_list(tmp_path / name) == names

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.txt", b"\n", "with none"),
            ("a.txt", b"one\n\nthree\n", "where that of class 1 is empty"),
            ("a.txt", b"\xff\xfe\x00", "codec can't decode"),
            ("a.json", b"{", "Expecting property name"),
            ("a.json", b"3", "not iterable"),
            ("a.json", b"[1, 2]", "It is no list of names"),
        ],
    )
    def test_anything_else_is_refused_in_a_sentence(self, tmp_path, name, content, said):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ParameterError, match=rf"`--class-names` must be a file with a name .*{said}"):
            read_class_list(tmp_path / name, "--class-names")
        with pytest.raises(ParameterError, match="There is no such file"):
            read_class_list(tmp_path / "none.txt")


class Asking(nn.Module):
    """Gives two pixels of what it takes."""

    def forward(self, x):
        self.given = x
        return x.flatten(1)[:, :2]


IMAGE = torch.tensor([0.2, 0.4, 0.8]).view(1, 3, 1, 1).expand(1, 3, 2, 4)


class TestInputs:
    @pytest.mark.parametrize(
        ("inputs", "expected"),
        [
            (InputFormat(), [0.2, 0.4, 0.8]),
            (InputFormat(mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2)), [0.2, 0.2, 0.25]),
            (InputFormat(mean=(0.2,)), [0, 0.2, 0.6]),
            (InputFormat(scale=255), [51, 102, 204]),
            (InputFormat(scale=255, mean=(127.5,), std=(127.5,)), [-0.6, -0.2, 0.6]),
            # In the order of the channels: blue is 204, its mean 100.
            (InputFormat(scale=255, channels="bgr", mean=(100, 2, 1), std=(1, 2, 5)), [104, 50, 10]),
        ],
    )
    def test_a_module_is_given_what_is_said(self, inputs, expected):
        module = Asking()
        wrap_module(module, inputs)(IMAGE)
        assert module.given[0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-4)

    def test_channels_come_last_where_that_is_said(self):
        module = Asking()
        wrap_module(module, InputFormat(layout="nhwc", channels="bgr"))(IMAGE)
        assert module.given.shape == (1, 2, 4, 3)
        assert module.given[0, 0, 0].tolist() == pytest.approx([0.8, 0.4, 0.2])

    def test_one_number_for_one_channel_is_grey(self):
        assert wrap_module(Asking(), InputFormat(mean=(0.5,), std=(0.5,)), channels=1).channels == 1
        assert wrap_module(Asking(), InputFormat(channels="grey")).channels == 1
        assert wrap_module(Asking(), InputFormat(mean=(0.5,))).channels == 3
        assert wrap_module(Asking(), InputFormat(size=(8, 9))).size == (8, 9)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"mean": (0.1, 0.2)}, r"`std` must be one number|`mean` must be one number, or one for each of the 3"),
            ({"mean": ()}, "`mean` must be a finite number, or one for each channel"),
            ({"mean": (float("nan"),)}, "`mean` must be a finite number"),
            ({"std": (1, 0, 1)}, "`std` must be positive numbers"),
            ({"scale": 0.0}, "`scale` must be a finite number above 0"),
            (
                {"channels": "grey"},
                "`channels` must not be grey, .* file takes 3; got grey",
            ),
            ({"channels": "grb"}, "`channels` must be one of rgb, bgr, grey; got grb"),
            ({"layout": "chw"}, "`layout` must be one of nchw, nhwc; got chw"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, options, said, monkeypatch):
        monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
        with pytest.raises(ParameterError, match=said):
            wrap_module(Asking(), InputFormat(**options), channels=3)

    def test_grey_is_not_passed_over_where_there_are_more_numbers(self):
        with pytest.raises(ParameterError) as refused:
            wrap_module(Asking(), InputFormat(channels="grey", mean=(1, 2, 3)))
        assert str(refused.value) == (
            "`channels` must not be grey, which is one channel, where `mean` or `std` has 3 numbers; got grey. "
            "Give one number of each."
        )
        with pytest.raises(ParameterError, match="must not be bgr, which is three channels, where the file takes 1"):
            wrap_module(Asking(), InputFormat(channels="bgr"), channels=1)

    def test_values_that_nothing_says_are_said_first_in_every_report(self, file):
        with pytest.warns(WhyfooledWarning) as warned:
            classifier = load_classifier(f"{file}:Net", inputs=InputFormat(size=8))
        assert classifier.notes == (
            "nets.py:Net does not say how it wants photographs: it is given values from 0 to 1. If it was trained "
            "otherwise, say so: --mean and --std, in Python inputs=InputFormat(mean=..., std=...).",
        )
        assert [str(warning.message) for warning in warned] == list(classifier.notes)
        (note,) = load_classifier(f"{file}:Net").notes
        assert note == (
            "nets.py:Net does not say how it wants photographs: it is given 224×224 pixels, values from 0 to 1. If it "
            "was trained otherwise, say so: --size, --mean and --std, in Python inputs=InputFormat(size=..., mean=..., "
            "std=...)."
        )
        for said in (InputFormat(mean=(0.0,)), InputFormat(std=(1.0,)), InputFormat(scale=255)):
            assert load_classifier(f"{file}:Net", inputs=said).notes == ()
        assert load_classifier(f"{file}:classifier").notes == ()
        explained = explain(classifier, torch.rand(1, 3, 8, 8), attack="fgsm", methods=["gradient"], checks=False)
        assert explained.notes[0] == classifier.notes[0]
        assert explained.parameters["input"] == {
            "mean": [0.0] * 3,
            "std": [1.0] * 3,
            "scale": 1.0,
            "channels": "rgb",
            "layout": "nchw",
        }

    def test_a_report_has_what_a_module_is_given_as_it_was_said(self):
        said = InputFormat(mean=(104, 117, 123), std=(1,), scale=255, channels="bgr", layout="nhwc", size=8)
        assert describe_input(wrap_module(Asking(), said)) == {
            "mean": [104.0, 117.0, 123.0],
            "std": [1.0] * 3,
            "scale": 255,
            "channels": "bgr",
            "layout": "nhwc",
        }

    def test_a_module_that_cannot_take_what_was_said_blames_it(self, file):
        classifier = load_classifier(f"{file}:Net", inputs=InputFormat(mean=(0.0,), layout="nhwc", size=(8, 9)))
        with pytest.raises(ModelError) as refused:
            classifier.logits(torch.rand(1, 3, 8, 9))
        assert str(refused.value).startswith(
            f"{file}:Net cannot take images of the shape (n, 8, 9, 3), which is what `layout` and `size` say. What it "
            "stumbles over: Given groups=1"
        )

    def test_a_model_that_says_it_by_itself_takes_none(self, file):
        with pytest.raises(
            ParameterError,
            match=r"`inputs` say what .* got them for lite0\. This one says it by itself",
        ):
            load_classifier("lite0", inputs=InputFormat(scale=255))
        for inputs, said in (
            (InputFormat(size=(32, 32)), "size"),
            (InputFormat(mean=(0.5,), std=(1.0,)), "mean and std"),
            (InputFormat(mean=(0.5,), channels="bgr", scale=255), "mean, channels and scale"),
        ):
            with pytest.raises(
                ModelError, match=f"a Classifier, which says by itself what it takes: leave out {said}, or"
            ):
                load_classifier(f"{file}:classifier", inputs=inputs)

    def test_weights_are_those_of_the_module_and_not_of_what_is_around_it(self, file, tmp_path):
        torch.save(load_classifier(f"{file}:Net").module.state_dict(), tmp_path / "w.pt")
        options = {"inputs": InputFormat(channels="bgr"), "weights": tmp_path / "w.pt", "seed": 3}
        assert load_classifier(f"{file}:Net", **options).class_count() == 3


def test_the_command_line_hands_on_what_is_said(file, tmp_path, monkeypatch, capsys):
    from whyfooled.classifier import zoo
    from whyfooled.running import engines

    (tmp_path / "names.txt").write_text("tabby\nlynx\ncrane\n")
    loaded = []

    def load(*given, **options):
        loaded.append(zoo.load_classifier(*given, **options))
        return loaded[0]

    monkeypatch.setattr(engines, "load_classifier", load)
    model = ["--model", f"{file}:Net(width=4)", "--class-names", str(tmp_path / "names.txt"), "--size", "24x32"]
    said = ["--mean", "127.5", "--std", "1,2,255/2", "--scale", "255", "--channels", "bgr", "--layout", "nchw"]
    assert command(monkeypatch, "layers", *model, *said) in (0, None), capsys.readouterr().err
    (classifier,) = loaded
    assert (classifier.size, classifier.class_names) == ((24, 32), ("tabby", "lynx", "crane"))
    assert classifier.mean.flatten().tolist() == pytest.approx([0.5] * 3)
    assert classifier.std.flatten().tolist() == pytest.approx([0.5, 2 / 255, 1 / 255])
    assert json.dumps(classifier.module.module.given) == json.dumps((3, 4, (), "relu", 1.0))


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--size", "big", "`--size` must be a number of pixels, or two: height x width; got 'big'."),
        ("--mean", "0.1,x", "`--mean` must be a number or a fraction such as 4/255; got 'x'."),
        ("--channels", "rbg", "`--channels` must be one of rgb, bgr, grey; got rbg."),
        ("--layout", "hwc", "`--layout` must be one of nchw, nhwc; got hwc."),
        ("--class-names", "none.txt", "`--class-names` must be a file with a name for each class; got none.txt."),
    ],
)
def test_mistakes_in_the_options_are_said_in_one_sentence(option, value, said, monkeypatch, capsys):
    assert command(monkeypatch, "layers", option, value) == 2
    assert capsys.readouterr().err.startswith(f"Error: {said}")


def find_command(words):
    """Return the options of a command."""
    found = typer.main.get_command(app)
    for word in words:
        found = found.commands[word]
    return found.params


def test_every_command_with_a_model_has_all_its_options():
    for words in (
        *(("explain",), ("attack",), ("study",), ("perturbation",), ("dissect",), ("layers",), ("detect",)),
        *(("units", "explain"), ("universal", "fit"), ("universal", "test")),
    ):
        spellings = {spelling for parameter in find_command(words) for spelling in parameter.opts}
        wanted = {"--model", "--weights", "--float32", "--num-classes", "--class-names", "--mean", "--std", "--size"}
        assert wanted | {"--channels", "--layout", "--input-scale", "--scale"} <= spellings, words
