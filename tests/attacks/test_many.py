"""Attacking many photographs: names, batches, labels, targets, errors, and going on after a stop."""

import json
import os
import re
import socket
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from tests.helpers.models import small
from whyfooled import FMN, PGD, AttackResult, attack_files, load_adversaries
from whyfooled.attacks import Attack
from whyfooled.errors import ImageError, ModelError, OutputError, ParameterError, WhyfooledWarning

ATTACK = FMN(steps=10)


def photograph(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photographs(tmp_path):
    for number, name in enumerate(["a/one.png", "a/two.png", "b/one.png", "b/three.png", "b/four.png"]):
        photograph(tmp_path / "photographs" / name, number)
    return tmp_path / "photographs"


NAMES = ("a/one.png", "a/two.png", "b/four.png", "b/one.png", "b/three.png")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def run(photographs, folder, attack=ATTACK, **more):
    return attack_files(small(), [photographs], attack, folder, batch_size=2, **more)


def test_the_median_norm_is_told_as_the_run_goes_on(photographs, tmp_path):
    told = []
    adversaries, _ = run(photographs, tmp_path / "out", report=told.append)
    reached = adversaries.to_frame().query("success and l2 > 0")["l2"]
    assert len(reached) > 2
    assert told[-1].median_norm == pytest.approx(reached.median())
    assert told[-1].fooled == len(reached)


def test_a_misspelled_way_to_choose_targets_is_known(photographs, tmp_path):
    with pytest.raises(ParameterError, match=r"one of random, .*; got 'randm'\. Did you mean random\?"):
        run(photographs, tmp_path / "out", target="randm")


def test_every_photograph_has_a_file_and_a_row(photographs, tmp_path):
    adversaries, errors = run(photographs, tmp_path / "out")
    assert errors == {}
    assert adversaries.names == NAMES
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table["file"].tolist() == list(NAMES)
    assert set(contents(tmp_path / "out")) == {f"{name}.safetensors" for name in NAMES} | {"run.json", "table.csv"}
    result = adversaries[:]
    assert result.success.any()
    assert table["success"].tolist() == result.success.tolist()
    np.testing.assert_allclose(table["l2"], result.l2, rtol=1e-5)
    assert (table["forwards"] == 20).all()


def test_a_saved_set_loads_again_bit_for_bit(photographs, tmp_path):
    classifier = small()
    adversaries, _ = run(photographs, tmp_path / "out", PGD(epsilon=0.01, steps=2))
    loaded = load_adversaries(tmp_path / "out")
    assert loaded.names == adversaries.names
    assert loaded.parameters["attack"] == "pgd(epsilon=0.01, steps=2)"
    assert len(loaded) == len(list(loaded)) == 5
    whole = loaded[:]
    assert not whole.success.all()
    verified = AttackResult.from_images(classifier, whole.clean, whole.attempted, whole.goal)
    assert torch.equal(verified.success, whole.success)
    assert torch.equal(verified.adversarial, whole.adversarial)
    torch.testing.assert_close(verified.logits, whole.logits)
    assert torch.equal(loaded[-1].adversarial, whole.adversarial[-1:])
    assert loaded[1:3].clean.shape == (2, 3, 16, 16)
    assert len(loaded[1:3]) == 2
    assert torch.equal(loaded.clean, whole.clean)
    assert torch.equal(loaded.adversarial, whole.adversarial)
    chosen = loaded[[loaded.names[3], loaded.names[0]]]
    assert torch.equal(chosen.adversarial, whole.adversarial[[3, 0]])
    with pytest.raises(ParameterError, match=r"`index` must be a photograph's name; got 'a/on.png'. Did you mean"):
        loaded[[loaded.names[0], "a/on.png"]]
    assert whole.adversarial.dtype == torch.float32


class Stopping(Attack):
    """FMN that is stopped at its second batch, as by Ctrl-C."""

    card = FMN.card
    calls = 0

    def attempt(self, problem, progress=None):
        type(self).calls += 1
        if type(self).calls == 2:
            raise KeyboardInterrupt
        return ATTACK.attempt(problem)


def test_a_stopped_run_goes_on_and_ends_in_the_same_files(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr("whyfooled.attacks.many.describe_value", lambda attack: "the attack")
    run(photographs, tmp_path / "whole")
    Stopping.calls = 0
    with pytest.raises(KeyboardInterrupt):
        run(photographs, tmp_path / "stopped", Stopping())
    assert len(load_adversaries(tmp_path / "stopped")) == 2
    before = contents(tmp_path / "stopped")
    seen = []
    run(photographs, tmp_path / "stopped", report=seen.append)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert all(contents(tmp_path / "stopped")[name] == content for name, content in before.items())
    assert next(standing.done for standing in seen if standing.done == int(standing.done)) == 2


def test_a_batch_that_lost_a_file_is_attacked_again_as_it_was(photographs, tmp_path):
    run(photographs, tmp_path / "out")
    whole = contents(tmp_path / "out")
    for name in ("a/two.png.safetensors", "table.csv"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "a" / "two.png.safetensors.partial").write_bytes(b"half")
    run(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.9])
def test_a_flipped_bit_is_named_and_its_batch_is_done_again(photographs, tmp_path, share):
    run(photographs, tmp_path / "out")
    whole = contents(tmp_path / "out")
    path = tmp_path / "out" / "b" / "one.png.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[int(share * len(damaged))] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ImageError, match=r"one\.png\.safetensors is not an adversarial image .* or is damaged"):
        load_adversaries(tmp_path / "out")["b/one.png"]
    run(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_a_file_of_another_run_is_done_again(photographs, tmp_path):
    for name, steps in (("out", 10), ("other", 3)):
        run(photographs, tmp_path / name, FMN(steps=steps))
    whole = contents(tmp_path / "out")
    name = "a/one.png.safetensors"
    (tmp_path / "out" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    run(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_a_reason_that_is_damaged_or_of_another_run_is_found_again(photographs, tmp_path):
    (photographs / "a" / "broken.png").write_bytes(b"no image")
    run(photographs, tmp_path / "out")
    whole = contents(tmp_path / "out")
    path = tmp_path / "out" / "a" / "broken.png.left-out.json"
    path.write_bytes(path.read_bytes().replace(b"not an image", b"not an mirage"))
    assert run(photographs, tmp_path / "out")[1]["a/broken.png"] == (
        "broken.png is not an image of a known format (JPEG, PNG, WebP, BMP, TIFF)."
    )
    assert contents(tmp_path / "out") == whole


def test_a_folder_in_which_a_run_works_is_refused(photographs, tmp_path):
    seen = []

    def nosy(model, x, y):
        with pytest.raises(OutputError) as refused:
            run(photographs, tmp_path / "out")
        seen.append(str(refused.value))
        return (x + 0.2).clamp(0, 1)

    run(photographs, tmp_path / "out", nosy)
    assert re.fullmatch(
        rf"{tmp_path}/out is in use: a run is working there \(process {os.getpid()} on this machine, since [-\d]+ "
        r"[:\d]+\)\. Wait for its end, or give another folder\.",
        seen[0],
    )
    assert not list((tmp_path / "out").glob(".*"))


def test_a_photograph_after_whose_name_no_file_can_be_named_is_left_out(photographs, tmp_path):
    strange = os.fsdecode(b"caf\xe9.png")
    long = "a" * 240 + ".png"
    for name in (strange, long):
        photograph(tmp_path / "x.png", 9).rename(photographs / "a" / name)
    for _ in range(2):
        adversaries, errors = run(photographs, tmp_path / "out")
        assert adversaries.names == NAMES
        assert errors == {
            f"a/{strange}": "Its name is not text in UTF-8, so no file can be named after it. Rename it.",
            f"a/{long}": "Its name is too long for a file named after it, which ends in .left-out.json. Shorten it.",
        }
    assert load_adversaries(tmp_path / "out").names == NAMES
    assert "a/caf\\udce9.png" in pd.read_csv(tmp_path / "out" / "table.csv")["file"].tolist()


def test_an_output_path_that_is_too_long_is_one_sentence(photographs, tmp_path):
    for name in ("a" * 300, "a/" * 3000):
        with pytest.raises(OutputError, match=r"cannot be used: File name too long\.$"):
            run(photographs, tmp_path / name)


def test_what_killed_runs_left_is_swept(photographs, tmp_path):
    run(photographs, tmp_path / "out")
    whole = contents(tmp_path / "out")
    gone = f"{2**22 + 5}\n{socket.gethostname()}\n"
    for name in (".whyfooled.lock", "b/.whyfooled-12345678.lock"):
        (tmp_path / "out" / name).write_text(gone)
    for name in ("b/.whyfooled-12345678", "a/one.png.safetensors.partial", "run.json.partial"):
        (tmp_path / "out" / name).write_bytes(b"half")
    (tmp_path / "out" / "my.partial").write_bytes(b"mine")
    run(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == {**whole, "my.partial": b"mine"}


@pytest.mark.parametrize("damage", [(b'"seed": 0', b'"seed": 1'), (b"blake2b:", b"blake2c:"), (b"{", b"[")])
def test_a_damaged_claim_is_written_anew_where_the_results_tell_of_this_run(photographs, tmp_path, damage):
    run(photographs, tmp_path / "out")
    whole = contents(tmp_path / "out")
    path = tmp_path / "out" / "run.json"
    path.write_bytes(whole["run.json"].replace(*damage))
    with pytest.raises(ImageError, match=r"has no readable run\.json"):
        load_adversaries(tmp_path / "out")
    with pytest.raises(OutputError, match=r"run\.json is not of a run, or is damaged\. Give another folder"):
        run(photographs, tmp_path / "out", FMN(steps=3))
    run(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_another_programs_file_is_not_written_over(photographs, tmp_path):
    (tmp_path / "out").mkdir()
    for text in ('{"lr": 0.1}', "[1]", "no JSON", '{"images": 3}'):
        (tmp_path / "out" / "run.json").write_text(text)
        with pytest.raises(OutputError, match=r"run\.json is not of a run, or is damaged\. Give another folder"):
            run(photographs, tmp_path / "out")
        assert (tmp_path / "out" / "run.json").read_text() == text
    # Damaged before anything was finished, it is known by its seal.
    (tmp_path / "out" / "run.json").write_text('{"seal": "blake2b:' + 32 * "1" + '"')
    run(photographs, tmp_path / "out")


def test_another_run_is_not_mixed_in(photographs, tmp_path):
    run(photographs, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OutputError, match=r"its attack was fmn\(steps=10\), now it is fmn\(steps=20\)"):
        run(photographs, tmp_path / "out", FMN(steps=20))
    photograph(photographs / "c.png", 9)
    with pytest.raises(OutputError, match="its photographs are not the same"):
        run(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_photograph_that_changed_is_attacked_again(photographs, tmp_path):
    run(photographs, tmp_path / "out")
    before = contents(tmp_path / "out")
    photograph(photographs / "a" / "two.png", 99)
    run(photographs, tmp_path / "out")
    after = contents(tmp_path / "out")
    assert after["a/two.png.safetensors"] != before["a/two.png.safetensors"]
    assert after["b/one.png.safetensors"] == before["b/one.png.safetensors"]


def test_a_photograph_that_can_be_read_no_more_leaves_the_set_and_comes_back(photographs, tmp_path):
    run(photographs, tmp_path / "out")
    whole = contents(tmp_path / "out")
    content = (photographs / "a" / "two.png").read_bytes()
    (photographs / "a" / "two.png").write_bytes(b"no image")
    run(photographs, tmp_path / "out")
    assert "a/two.png" not in load_adversaries(tmp_path / "out").names
    (photographs / "a" / "two.png").write_bytes(content)
    run(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_a_result_that_cannot_be_written_is_named(photographs, tmp_path):
    (tmp_path / "out" / "a" / "one.png.safetensors" / "in the way").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"The file .*one.png.safetensors cannot be written"):
        run(photographs, tmp_path / "out")


def test_a_damaged_result_is_made_again(photographs, tmp_path):
    run(photographs, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "a" / "one.png.safetensors").write_bytes(b"damaged")
    run(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_file_of_another_format_is_refused(photographs, tmp_path):
    adversaries, _ = run(photographs, tmp_path / "out")
    path = tmp_path / "out" / "a" / "one.png.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["whyfooled"])
    assert about["format"] == 2
    del about["seal"]
    save_file(tensors, path, {"whyfooled": json.dumps(about | {"format": 3})})
    with pytest.raises(ImageError, match=r"its format is 3, and this one reads 2\. .*again: whyfooled attack\."):
        adversaries["a/one.png"]
    save_file(tensors, path, {"whyfooled": json.dumps(about)})
    with pytest.raises(ImageError, match="or is damaged"):
        adversaries["a/one.png"]
    for first in (about | {"format": 1}, {key: value for key, value in about.items() if key not in ("format", "run")}):
        save_file(tensors, path, {"whyfooled": json.dumps(first)})
        assert torch.equal(adversaries["a/one.png"].adversarial[0], tensors["adversarial"])


def test_other_weights_are_another_run(photographs, tmp_path):
    run(photographs, tmp_path / "out")
    with pytest.raises(OutputError, match="its model had other weights"):
        attack_files(small(seed=1), [photographs], ATTACK, tmp_path / "out", batch_size=2)


def test_a_run_in_which_nothing_was_finished_does_not_occupy_the_folder(photographs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(photographs, tmp_path / "out", lambda model, x, y: (_ for _ in ()).throw(KeyboardInterrupt))
    assert not (tmp_path / "out").exists()
    run(photographs, tmp_path / "out")
    assert load_adversaries(tmp_path / "out").parameters["attack"] == "fmn(steps=10)"


def test_what_was_left_out_is_not_tried_again(photographs, tmp_path):
    calls = []

    class Refusing:
        def __call__(self, model, x, y):
            calls.append(len(x))
            raise ModelError("The gradient is infinite.")

        def __repr__(self):
            return "refusing"

    for _ in range(2):
        with pytest.raises(ImageError, match=r"None of the 5 photographs .* The gradient is infinite"):
            run(photographs, tmp_path / "out", Refusing())
        # Two batches of two, each image of them alone, and one batch of one.
        assert calls == [2, 1, 1, 2, 1, 1, 1]


def test_labels_of_no_photograph_are_warned_of(photographs, tmp_path):
    with pytest.warns(WhyfooledWarning, match=r"1 of the 6 labels belong to no photograph, such as nix.png"):
        run(photographs, tmp_path / "out", labels=dict.fromkeys([*NAMES, "nix.png"], 1))


def test_a_saved_set_is_read_by_position_name_and_flag(photographs, tmp_path):
    adversaries, _ = run(photographs, tmp_path / "out")
    third = adversaries[2].adversarial
    table = adversaries.to_frame()
    for index in (np.int64(2), -3, "b/four.png", [2], table["file"] == "b/four.png"):
        assert torch.equal(adversaries[index].adversarial, third)
    assert torch.equal(adversaries[[2, 0]].adversarial, torch.cat([third, adversaries[0].adversarial]))
    with pytest.raises(ParameterError, match=r"Did you mean b/four.png"):
        adversaries["b/fuor.png"]
    with pytest.raises(ParameterError, match="must choose some of the 5 images"):
        adversaries[5:]
    with pytest.raises(IndexError):
        adversaries[5]


def test_what_cannot_be_read_is_named_and_the_rest_is_attacked(photographs, tmp_path):
    (photographs / "a" / "broken.png").write_bytes(b"no image")
    adversaries, errors = run(photographs, tmp_path / "out")
    assert adversaries.names == NAMES
    assert list(errors) == ["a/broken.png"]
    assert "not an image" in errors["a/broken.png"]
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table.set_index("file")["error"].dropna().to_dict() == errors
    assert "5.0" not in (tmp_path / "out" / "table.csv").read_text().splitlines()[0]
    assert run(photographs, tmp_path / "out")[1] == errors


def test_an_image_that_the_attack_cannot_do_does_not_take_its_batch_with_it(photographs, tmp_path):
    bad = small().prepare(Image.open(photographs / "a" / "two.png"))[0]

    def touchy(model, x, y):
        if (x == bad).flatten(1).all(1).any():
            raise ModelError("The gradient is infinite.")
        return (x + 0.2).clamp(0, 1)

    adversaries, errors = run(photographs, tmp_path / "out", touchy)
    assert errors == {"a/two.png": "The gradient is infinite."}
    assert adversaries.names == tuple(name for name in NAMES if name != "a/two.png")


def test_where_nothing_can_be_attacked_the_first_reason_is_given(tmp_path):
    (tmp_path / "one.png").write_bytes(b"no")
    with pytest.raises(ImageError, match=r"None of the 1 photographs could be attacked. one.png: .* not an image"):
        attack_files(small(), [tmp_path / "one.png"], ATTACK, tmp_path / "out")


def test_labels_may_be_one_or_each_ones_own(photographs, tmp_path):
    one, _ = run(photographs, tmp_path / "one", labels=3)
    assert one[:].goal.classes.tolist() == [3] * 5
    each = {name: number % 5 for number, name in enumerate(NAMES)} | {"b/one.png": "4"}
    own, errors = run(photographs, tmp_path / "own", labels=each)
    assert own[:].goal.classes.tolist() == [0, 1, 2, 4, 4]
    # What is taken for another class already counts as reached, and costs nothing.
    already = own[:].goal.reached(own[:].clean_logits)
    assert already.any()
    assert torch.equal(own[:].forwards == 0, already)
    del each["a/two.png"]
    some, errors = run(photographs, tmp_path / "some", labels=each)
    assert errors == {"a/two.png": "The labels do not say what it shows."}
    assert len(some) == 4


def test_targets_may_be_a_class_or_chosen(photographs, tmp_path):
    predicted = run(photographs, tmp_path / "any")[0][:].clean_logits.argmax(1)
    for how in ("random", "least-likely", "runner-up"):
        chosen = run(photographs, tmp_path / how, target=how)[0][:]
        assert (chosen.goal.classes != predicted).all()
        assert json.loads((tmp_path / how / "run.json").read_text())["target"] == how
    other = next(index for index in range(5) if index not in predicted.tolist())
    assert run(photographs, tmp_path / "class", target=other)[0][:].goal.classes.tolist() == [other] * 5
    with pytest.raises(ImageError, match="another class than the true one"):
        run(photographs, tmp_path / "none", target=2, labels=2)


@pytest.mark.parametrize(
    ("more", "message"),
    [({"target": "lynx"}, "`target` must be a class index"), ({"labels": "lynx"}, "`label` must be a class index")],
)
def test_a_class_that_does_not_exist_is_refused(photographs, tmp_path, more, message):
    with pytest.raises(ParameterError, match=message):
        run(photographs, tmp_path / "out", **more)


def test_places_without_photographs_are_refused(tmp_path):
    with pytest.raises(ImageError, match="No photographs"):
        attack_files(small(), [tmp_path], ATTACK, tmp_path / "out")
    with pytest.raises(ImageError, match="no image file or folder"):
        attack_files(small(), [tmp_path / "none.png"], ATTACK, tmp_path / "out")


def test_a_photograph_given_twice_counts_once(photographs, tmp_path):
    given = [photographs / "a" / "one.png", photographs / "a", photographs / "a" / ".." / "a" / "two.png"]
    adversaries, _ = attack_files(small(), given, ATTACK, tmp_path / "out")
    assert adversaries.names == ("one.png", "two.png")


def test_folders_that_are_not_saved_sets_are_refused(photographs, tmp_path):
    with pytest.raises(ImageError, match=r"has no readable run.json"):
        load_adversaries(tmp_path)
    run(photographs, tmp_path / "out")
    (tmp_path / "out" / "a" / "one.png.safetensors").write_bytes(b"damaged")
    with pytest.raises(ImageError, match="damaged"):
        load_adversaries(tmp_path / "out")[0]
    for path in (tmp_path / "out").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(ImageError, match="no adversarial image yet"):
        load_adversaries(tmp_path / "out")


def test_labels_may_write_accents_in_the_other_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    for name in (f"a/{decomposed}", "b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (9, 90, 200)).save(tmp_path / "in" / name)
    saved, errors = run(tmp_path / "in", tmp_path / "out", labels={composed: 3, "b.png": 2})
    assert errors == {}
    assert [saved[f"a/{decomposed}"].goal.labels.item(), saved["b.png"].goal.labels.item()] == [3, 2]
