"""The adversarial images of a study: saved ones of one run or several, and its own attacks'."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.models import small
from whyfooled import FGSM, FMN, Gradient, Targeted, Untargeted, attack_files, load_adversaries, run_attack
from whyfooled.errors import ParameterError, WhyfooledWarning
from whyfooled.studies import Batch, Recovery, SaliencyGrid, run_study
from whyfooled.studies.parts.attacked import run_or_load_attacks

NAMES = tuple(f"{number}.png" for number in range(5))
ATTACKS = {"fgsm(epsilon=0.02)": FGSM(epsilon=0.02), "fmn(steps=20)": FMN(steps=20)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    (root / "photographs").mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photographs" / name)
    for name, attack in ATTACKS.items():
        # Goals of two kinds: one run has a target.
        target = "random" if name.startswith("fmn") else None
        attack_files(small(), [root / "photographs"], attack, root / attack.card.name, target=target)
    return [root / attack.card.name for attack in ATTACKS.values()]


def batch(folders):
    saved = {name: load_adversaries(folder)[:] for name, folder in zip(ATTACKS, folders, strict=True)}
    images = next(iter(saved.values())).clean
    return Batch(NAMES, images, ((),) * len(NAMES), saved)


def test_saved_images_of_every_attack_are_verified_against_their_own_goals(folders):
    given = batch(folders)
    found = dict(run_or_load_attacks(small(), given, (), None))
    assert list(found) == list(ATTACKS)
    assert [type(result.goal) for result in found.values()] == [Untargeted, Targeted]
    for name, result in found.items():
        assert torch.equal(result.attempted, given.adversaries[name].attempted)
        assert result.success.tolist() == given.adversaries[name].success.tolist()
    # On another classifier success is another one's.
    other = dict(run_or_load_attacks(small(seed=3), given, (), None))["fmn(steps=20)"]
    assert other.success.tolist() == (other.predictions == other.goal.classes).tolist()
    assert not torch.allclose(other.logits, found["fmn(steps=20)"].logits)


def test_without_saved_images_the_attacks_are_run(folders):
    images = batch(folders).images
    given = Batch(NAMES, images, ((),) * len(NAMES))
    found = dict(run_or_load_attacks(small(), given, tuple(ATTACKS.values()), None))
    assert list(found) == list(ATTACKS)
    expected = run_attack(FMN(steps=20), small(), images, Untargeted(small().predict(images)))
    assert torch.equal(found["fmn(steps=20)"].attempted, expected.attempted)


def test_a_study_of_two_runs_has_each_images_rows_of_both(folders, tmp_path):
    study = SaliencyGrid(methods=(Gradient(),))
    both = run_study(study, folders, tmp_path / "both", model=small(), batch_size=2, shard_size=4)
    rows = both.table.read(["image", "attack", "outcome", "l2"]).dropna(subset=["l2"])
    assert {(row.image, row.attack) for row in rows.itertuples()} == {
        (name, attack) for name in NAMES for attack in ("clean", *ATTACKS)
    }
    assert both.about["attacked_with"] == "fgsm(epsilon=0.02), fmn(steps=20)"
    assert "made with fgsm(epsilon=0.02), fmn(steps=20); no attack was run" in both.summary
    for attack, folder in zip(ATTACKS, folders, strict=True):
        alone = run_study(study, folder, tmp_path / folder.name, model=small())
        one = alone.table.read(["image", "attack", "outcome", "l2"], [("attack", "==", attack)]).dropna(subset=["l2"])
        own = rows[rows["attack"] == attack]
        assert one["outcome"].tolist() == own["outcome"].tolist()
        assert one["l2"].tolist() == pytest.approx(own["l2"].tolist())


def test_an_image_whose_runs_do_not_fit_together_fails_and_the_others_are_measured(folders, tmp_path):
    pixels = np.random.default_rng(99).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name in NAMES[:4]:
        (photographs / name).write_bytes((folders[0].parent / "photographs" / name).read_bytes())
    Image.fromarray(pixels).save(photographs / "1.png")
    seen = small().predict(load_adversaries(folders[0])[:].clean).tolist()
    labels = dict(zip(NAMES[:4], seen, strict=False))
    attack_files(small(), [photographs], FGSM(epsilon=0.01), tmp_path / "other", labels=labels)
    with pytest.warns(WhyfooledWarning, match="1 of 5 photographs are left out"):
        result = run_study(
            SaliencyGrid(methods=(Gradient(),)), [folders[0], tmp_path / "other"], tmp_path / "out", model=small()
        )
    assert result.table.errors()["image"].tolist() == ["1.png"]
    assert "1.png is not the same clean image in" in result.about["failed"][0]
    assert set(result.table.read()["image"]) == {"0.png", "2.png", "3.png"}


def test_a_study_of_one_attack_refuses_several_runs(folders, tmp_path):
    said = (
        r"`images` must be adversarial images of one attack for recovery; "
        r"got fgsm\(epsilon=0.02\), fmn\(steps=20\)\. Give one folder\."
    )
    with pytest.raises(ParameterError, match=said):
        run_study(Recovery(methods=(Gradient(),)), folders, tmp_path / "out", model=small())
    assert not (tmp_path / "out").exists()
