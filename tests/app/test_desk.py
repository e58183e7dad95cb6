"""What a visitor drops and sets is looked at, and becomes a job or a sentence."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from whyfooled.app.classes import Classes
from whyfooled.app.desk import Desk, Look, look_at
from whyfooled.app.jobs import Job
from whyfooled.app.request import Started
from whyfooled.app.uploads import Uploads
from whyfooled.errors import ImageError, ParameterError


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "page")


@pytest.fixture
def desk(uploads, tmp_path, monkeypatch):
    from whyfooled.app.jobs import Jobs

    # No job is run and no model is asked: only what it would be is looked at.
    monkeypatch.setattr(Classes, "__init__", lambda self: None)
    monkeypatch.setattr(Jobs, "__init__", lambda self: None)
    monkeypatch.setattr(
        Jobs, "submit", lambda self, arguments, photograph, inputs: Job(tuple(arguments), "run", inputs)
    )
    return Desk(tmp_path / "runs", Started(), Jobs(), uploads, Classes())


def make_tensor_file(uploads, **tensors):
    path = uploads.dropped / "x.safetensors"
    save_file(tensors, path)
    return str(path)


def test_files_are_named_by_themselves_in_the_command(desk, uploads):
    path = uploads.dropped / "my cat.png"
    Image.new("RGB", (9, 9)).save(path)
    job = desk.take({"images": str(path), "target": "tabby"})
    assert job.command == "whyfooled 'my cat.png' --target tabby"


def test_a_file_of_an_attack_is_both_images(desk, uploads):
    image = torch.zeros(3, 8, 8)
    job = desk.take({"adversarial": make_tensor_file(uploads, clean=image, adversarial=image + 0.1)})
    assert job.command == "whyfooled x.safetensors --adversarial x.safetensors"


def test_an_adversarial_image_alone_asks_for_its_photograph(desk, uploads):
    with pytest.raises(ParameterError, match="Drop the photograph too"):
        desk.take({"adversarial": make_tensor_file(uploads, adversarial=torch.zeros(3, 8, 8))})
    assert not list((uploads.dropped.parent / "jobs").iterdir())


def test_an_adversarial_image_beside_an_attack_says_how_to_choose_none(desk, uploads):
    image = torch.zeros(3, 8, 8)
    file = make_tensor_file(uploads, clean=image, adversarial=image + 0.1)
    with pytest.raises(ParameterError, match="Choose “The usual” under “Attack”"):
        desk.take({"adversarial": file, "attack": "bim"})


def test_what_is_no_photograph_is_refused_before_it_is_a_job(desk, uploads):
    path = uploads.dropped / "words.jpg"
    path.write_text("words")
    with pytest.raises(ImageError, match=r"^words.jpg is not an image of a known format"):
        desk.take({"images": str(path)})
    assert not list((uploads.dropped.parent / "jobs").iterdir())


def test_a_mistake_leaves_no_copy(desk, uploads):
    path = uploads.dropped / "cat.png"
    Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(ParameterError):
        desk.take({"images": str(path), "target": "two\nlines"})
    assert not list((uploads.dropped.parent / "jobs").iterdir())


def test_a_photograph_is_shown_small_and_a_bad_file_is_a_sentence(tmp_path):
    Image.fromarray(np.zeros((1000, 2000, 3), np.uint8)).save(tmp_path / "cat.png")
    look = look_at(str(tmp_path / "cat.png"))
    assert look.uri.startswith("data:image/webp;base64,")
    assert look.sentence == ""
    (tmp_path / "words.jpg").write_text("words")
    sentence = "words.jpg is not an image of a known format (JPEG, PNG, WebP, BMP, TIFF)."
    assert look_at(str(tmp_path / "words.jpg")) == Look(sentence=sentence, is_wrong=True)
    assert look_at(str(tmp_path / "x.pt")) == Look(sentence="x.pt goes into the model as it is.")


def test_that_there_is_no_photograph_is_said_before_the_example_is_taken():
    assert look_at(None) == Look(sentence="Without a photograph, a cup of coffee is explained.")
