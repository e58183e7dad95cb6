"""Hugging Face's models: the logits are those of their own preprocessing, and what cannot be followed is refused."""

import json
import shutil

import pytest
import torch
from PIL import Image

from tests.helpers.command_line import command
from tests.helpers.untouched import state
from whyfooled import Classifier, Fit, Gradient, load_classifier
from whyfooled.classifier.huggingface import read_processor
from whyfooled.errors import ModelError, ParameterError
from whyfooled.images import example_photograph

transformers = pytest.importorskip("transformers")

NAMES = {0: "tabby, tabby cat", 1: "lynx", 2: "crane"}


def make_vit(names=NAMES):
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label=names,
    )
    return seeded(transformers.ViTForImageClassification, config)


def make_resnet(names=NAMES):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", id2label=names
    )
    return seeded(transformers.ResNetForImageClassification, config)


def seeded(make, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(config).eval()


def make_vit_processor(**options):
    return transformers.ViTImageProcessor(size={"height": 32, "width": 32}, **options)


def make_convnext_processor(**options):
    return transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, **options)


def make_timm_processor(**options):
    about = {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "interpolation": "bicubic"}
    return transformers.TimmWrapperImageProcessor(pretrained_cfg=about | options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models with their processors, as ``save_pretrained`` writes them."""
    made = {}
    for name, model, processor in (
        ("vit", make_vit(), make_vit_processor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25])),
        ("resnet", make_resnet(), make_convnext_processor(crop_pct=0.8)),
    ):
        made[name] = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(made[name])
        processor.save_pretrained(made[name])
    return made


def their_logits(folder, photograph):
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**processor(images=photograph, return_tensors="pt")).logits


PHOTOGRAPHS = {
    "across": lambda: example_photograph(),
    "upright": lambda: example_photograph().crop((100, 0, 333, 400)),
    "small": lambda: example_photograph().resize((21, 25)),
}


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_logits_are_those_of_their_own_preprocessing(folders, name, photograph):
    classifier, picture = load_classifier(f"hf:{folders[name]}"), PHOTOGRAPHS[photograph]()
    ours, theirs = classifier.logits(classifier.prepare(picture)), their_logits(folders[name], picture)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert classifier.class_names == tuple(NAMES.values())
    assert classifier.size == (32, 32)
    assert classifier.name == f"hf:{folders[name]}"


CLIP = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 28}}
PROCESSORS = {
    "ViT": lambda: make_vit_processor(),
    "ViT by Pillow": lambda: transformers.ViTImageProcessorPil(size={"height": 32, "width": 24}, resample=3),
    "ViT of another scale": lambda: make_vit_processor(rescale_factor=1 / 127.5, do_normalize=False),
    "ViT that does not normalise": lambda: make_vit_processor(do_normalize=False, do_rescale=False),
    "ViT by Lanczos": lambda: make_vit_processor(resample=1),
    "ConvNeXt": lambda: make_convnext_processor(),
    "ConvNeXt by Pillow": lambda: transformers.ConvNextImageProcessorPil(size={"shortest_edge": 33}),
    "ConvNeXt from 384 on": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "CLIP": lambda: transformers.CLIPImageProcessor(**CLIP),
    "CLIP by Pillow": lambda: transformers.CLIPImageProcessorPil(**CLIP),
    "DeiT": lambda: transformers.DeiTImageProcessor(
        size={"height": 40, "width": 36}, crop_size={"height": 32, "width": 32}
    ),
    "LeViT": lambda: transformers.LevitImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ),
    "EfficientNet": lambda: transformers.EfficientNetImageProcessor(
        size={"height": 32, "width": 32}, rescale_offset=True, rescale_factor=1 / 127.5
    ),
    "MobileViT, blue first": lambda: transformers.MobileViTImageProcessor(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    ),
    "timm": lambda: make_timm_processor(crop_pct=0.875),
    "timm, squashed and cut": lambda: make_timm_processor(crop_pct=0.9, crop_mode="squash", interpolation="bilinear"),
    "timm, squashed": lambda: make_timm_processor(crop_pct=1.0, crop_mode="squash"),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_photographs_are_prepared_as_the_processor_prepares_them(name):
    processor = PROCESSORS[name]()
    mean, std, fit, flip = read_processor(processor)
    assert flip == isinstance(processor, transformers.MobileViTImageProcessor)
    classifier = Classifier(torch.nn.Flatten(), mean, std, fit=fit)
    for picture in (make() for make in PHOTOGRAPHS.values()):
        theirs = processor(images=picture, return_tensors="pt")["pixel_values"]
        ours = (classifier.prepare(picture) - classifier.mean) / classifier.std
        ours = ours.flip(1) if flip else ours
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs.float(), rtol=1e-5, atol=2e-5)


class GreenFirst(transformers.ViTImageProcessor):
    def __call__(self, *given, **named):
        made = super().__call__(*given, **named)
        return {"pixel_values": made["pixel_values"][:, [1, 0, 2]]}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GreenFirst(size={"height": 32, "width": 32}), "It mixes the colours, or has green first."),
        (lambda: make_vit_processor(resample=4), "It failed on a picture: "),
        (
            lambda: transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=4),
            "It resizes with the filter 4.",
        ),
        (
            lambda: make_vit_processor(do_pad=True, pad_size={"height": 40, "width": 40}),
            "It puts a margin around photographs.",
        ),
    ],
)
def test_a_processor_that_cannot_be_followed_is_refused(make, said):
    with pytest.raises(ModelError) as refused:
        read_processor(make())
    assert str(refused.value).startswith(f"The image processor {type(make()).__name__} cannot be followed. {said}")
    assert str(refused.value).endswith("Say what the model takes: Classifier(model, mean=..., std=..., fit=Fit(...)).")


@pytest.mark.parametrize("processor", [None, "vit", dict])
def test_what_is_no_image_processor_is_refused(processor):
    with pytest.raises(ParameterError, match=r"`processor` must be an image processor of transformers; got \w+\."):
        Classifier.from_huggingface(make_resnet(), processor)


def test_a_model_in_memory_is_a_classifier_and_stays_as_it_is():
    model = make_vit({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}).train()
    before = state(model)
    classifier = Classifier.from_huggingface(model, make_vit_processor(), name="mine")
    images = classifier.prepare(example_photograph())
    assert Gradient()(classifier, images, classifier.predict(images)).any()
    assert (classifier.class_names, classifier.name, classifier.class_count()) == (None, "mine", 3)
    assert state(model) == before


def test_a_model_that_takes_blue_first_is_given_it():
    model, processor = make_resnet(), PROCESSORS["MobileViT, blue first"]()
    classifier = Classifier.from_huggingface(model, processor)
    with torch.no_grad():
        theirs = model(**processor(images=example_photograph(), return_tensors="pt")).logits
    assert torch.allclose(classifier.logits(classifier.prepare(example_photograph())), theirs, atol=1e-4)
    assert classifier.name == "ResNetForImageClassification"


def test_a_model_that_was_trained_for_several_labels_gives_several():
    model = make_vit()
    assert not Classifier.from_huggingface(model, make_vit_processor()).several_labels
    model.config.problem_type = "multi_label_classification"
    assert Classifier.from_huggingface(model, make_vit_processor()).ask("lynx").class_names == ("not lynx", "lynx")


def test_an_explanation_of_a_folder_names_its_classes(folders, tmp_path, capsys, monkeypatch):
    example_photograph().resize((60, 40)).save(tmp_path / "cup.png")
    options = [
        "-o",
        str(tmp_path / "out"),
        "--attack",
        "fgsm(epsilon=0.2)",
        "--methods",
        "gradient",
        "--model",
        f"hf:{folders['vit']}",
    ]
    code = command(monkeypatch, "explain", str(tmp_path / "cup.png"), *options)
    assert code in (0, None), capsys.readouterr().err
    numbers = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert any(name in json.dumps(numbers) for name in ("tabby", "lynx", "crane"))


class TestWeights:
    def test_an_untrained_model_has_other_weights(self, folders):
        one, other = (load_classifier(f"hf:{folders['resnet']}", weights="random", seed=seed) for seed in (0, 1))
        assert one.digest() != other.digest()

    def test_other_weights_and_other_classes_are_loaded(self, folders, tmp_path):
        torch.save(make_resnet({0: "a", 1: "b"}).state_dict(), tmp_path / "two.pt")
        assert load_classifier(f"hf:{folders['resnet']}", weights=tmp_path / "two.pt").class_count() == 2
        with pytest.raises(
            ModelError, match=r"resnet has 3 classes, and `class_names` names 5, from a to e\. Give 3 names, or"
        ):
            load_classifier(f"hf:{folders['resnet']}", class_names=list("abcde"))
        five = load_classifier(f"hf:{folders['resnet']}", class_names=list("abcde"), new_head=True)
        assert five.logits(five.prepare(example_photograph())).shape == (1, 5)

    def test_a_model_without_a_head_is_refused(self, tmp_path):
        make_vit().vit.save_pretrained(tmp_path)
        make_vit_processor().save_pretrained(tmp_path)
        with pytest.raises(
            ModelError, match=r"has no weights for 2 tensors of an image classifier \(classifier\.bias\)"
        ):
            load_classifier(f"hf:{tmp_path}")

    def test_what_a_folder_lacks_is_said(self, folders, tmp_path):
        name = f"hf:{tmp_path}"

        def refuse():
            with pytest.raises(ModelError) as refused:
                load_classifier(name)
            return str(refused.value)

        assert refuse() == f"{name} has no config.json: give a folder that save_pretrained wrote."
        (tmp_path / "config.json").write_text("{")
        assert refuse() == f"{name} has a config.json that is no JSON: give a folder that save_pretrained wrote."
        shutil.copy(folders["vit"] / "config.json", tmp_path)
        assert refuse() == (
            f"{name} has no preprocessor_config.json, which says how photographs are prepared. Save the model's image "
            "processor there: processor.save_pretrained(folder)."
        )
        shutil.copy(folders["vit"] / "preprocessor_config.json", tmp_path)
        assert (
            refuse()
            == f"{name} has no weights, such as model.safetensors: save the model there, model.save_pretrained(folder)."
        )
        (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
        assert refuse() == f"{name} has damaged weights: model.safetensors cannot be read. Copy or save it again."
        (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
        assert refuse() == f"{name} is a model of the kind 'bert', of which transformers has no image classifier."

    @pytest.mark.parametrize("name", ["nonexist", "./no/where", "a/b/c", "", "/tmp/none"])
    def test_what_is_no_folder_and_no_name_on_the_hub_is_asked_for_nowhere(self, name, monkeypatch):
        monkeypatch.setattr("whyfooled.classifier.zoo.import_extra", None)
        with pytest.raises(ParameterError) as refused:
            load_classifier(f"hf:{name}")
        assert str(refused.value) == (
            f"`model` must be a folder, or OWNER/NAME on the hub, after hf:; got {name!r}. There is no such folder."
        )

    def test_without_the_package_the_command_that_installs_it_is_said(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "transformers", None)
        with pytest.raises(ModelError) as refused:
            load_classifier("hf:some/where")
        assert str(refused.value) == (
            "hf:some/where needs the package transformers, which is not installed. Install whyfooled with its extra "
            "huggingface: pip install '.[huggingface]' in the clone that it was installed from."
        )


def test_a_fit_is_written_as_before_unless_it_is_of_a_new_kind(monkeypatch):
    # Runs are told apart by it.
    assert str(Fit(8, 9)) == "Fit(size=(8, 8), shorter_side=9, interpolation='bicubic', squash=False)"
    new = Fit(8, squashed=9, engine="torchvision", floor=True)
    assert str(new).endswith("squash=False, squashed=(9, 9), engine='torchvision', floor=True)")
    assert new.seen((40, 20)) == (0, 0, 8 / 9, 8 / 9)
    assert new(Image.new("RGB", (40, 20))).size == (8, 8)
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ParameterError, match="`engine` must be one of pillow, torchvision; got opencv"):
        Fit(8, engine="opencv")
