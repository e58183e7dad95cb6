"""The example that trains with maps: its parts by hand, its account of what they come to, runs that were stopped."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from examples import train_with_maps
from examples.train_with_maps import (
    HEADS,
    WAYS,
    Judging,
    Labelled,
    Recipe,
    attack_batch,
    compare,
    draw_batches,
    find_loss,
    find_norms,
    read_digits,
    read_source,
    small_network,
    summarise,
    write_tables,
)
from tests.helpers.models import linear
from whyfooled.defences import DiscriminativePenalty, InputGradientPenalty
from whyfooled.errors import ParameterError

PENALTIES = {"stability": DiscriminativePenalty(), "input-gradient": InputGradientPenalty(2.0)}
RECIPE = Recipe(3, 0, 4, 0.1, 0.1, 3, PENALTIES)
JUDGING = Judging(4, 2, (2 / 255, 8 / 255), 4 / 255, 10, 3, 2, 5, 3, 2)


@pytest.fixture
def folder(tmp_path):
    """Write a few images with labels."""
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "small.npz", fit_images=images, fit_labels=np.arange(8) % 4)
    return tmp_path


def run(folder, output="runs", **more):
    source = f"{folder}/small.npz:fit"
    given = {
        "images": source,
        "held_out": source,
        "train_count": 4,
        "model": None,
        "weights": None,
        "ways": "plain,stability",
        "epochs": 1,
        "seconds": 0,
        "seeds": 1,
        "batch_size": 4,
        "learning_rate": 0.05,
        "epsilon": "4/255",
        "attack_steps": 2,
        "stability": 1.0,
        "concentration": 1.0,
        "input_gradient": 0.1,
        "radii": "2/255,8/255",
        "count": 3,
        "aware_count": 1,
        "fmn_steps": 6,
        "auto_steps": 2,
        "auto_targets": 1,
        "auto_queries": 3,
        "pgd_steps": 2,
        "aware_steps": 1,
    }
    compare(folder / output, **{**given, **more})
    return folder / output


def test_a_comparison_that_was_stopped_goes_on_as_if_it_had_not_been(folder, monkeypatch, capsys):
    whole = run(folder)
    assert "2 of 2: stability, epochs, seed 0: right on 0." in capsys.readouterr().out
    judge, train, judged, trained = train_with_maps.judge, train_with_maps.train, [], []

    def count(*given):
        trained.append(given)
        return train(*given)

    def stop(*given):
        judged.append(given)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return judge(*given)

    monkeypatch.setattr(train_with_maps, "judge", stop)
    monkeypatch.setattr(train_with_maps, "train", count)
    with pytest.raises(KeyboardInterrupt):
        run(folder, "stopped")
    assert len(json.loads((folder / "stopped" / "results.json").read_text())) == 1
    stopped = run(folder, "stopped")
    assert (len(judged), len(trained)) == (3, 2)
    first, second = (json.loads((home / "results.json").read_text()) for home in (whole, stopped))
    for found, expected in zip(second, first, strict=True):
        assert found["numbers"] == expected["numbers"]
        assert found["checks"] == expected["checks"]
    weights = [(home / "networks" / "stability-epochs-0.safetensors").read_bytes() for home in (whole, stopped)]
    assert weights[0] == weights[1]
    table = (stopped / "results.md").read_text()
    assert "| training | processor seconds | accuracy | smallest ℓ∞ norm | accuracy under AutoAttack, 2/255 |" in table
    assert "| stability, equal epochs | " in table
    with pytest.raises(ParameterError, match=r"must be a folder of its own for each setting"):
        run(folder, "stopped", epochs=2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"ways": "plain,magic"},
            "`ways` must be one of plain, input-gradient, stability, concentration, adversarial; got magic.",
        ),
        ({"held_out": None}, "`images` and `held_out` must be given together, or neither, for the digits."),
        ({"attack_steps": 0}, "`attack_steps` must be at least 1; got 0."),
        ({"pgd_steps": -1}, "`pgd_steps` must be at least 1; got -1."),
        ({"stability": -1.0}, "`stability` must be at least 0; got -1.0."),
        ({"radii": "8/255,2/255"}, "`radii` must be two, the smaller one first, such as 2/255,8/255; got 8/255,2/255."),
    ],
)
def test_what_cannot_work_is_refused(folder, options, sentence):
    with pytest.raises(ParameterError) as caught:
        run(folder, **options)
    assert str(caught.value) == sentence


def test_the_digits_are_split_once_for_all():
    pytest.importorskip("sklearn")
    seen, unseen = read_digits()
    assert seen.images.shape == (1258, 1, 8, 8)
    assert unseen.images.shape == (539, 1, 8, 8)
    assert float(seen.images.max()) == 1
    assert sorted(unseen.labels.unique().tolist()) == [*range(10)]
    assert torch.equal(read_digits()[1].images, unseen.images)


def test_a_source_is_read_whole(folder):
    read = read_source(f"{folder}/small.npz:fit", None)
    assert read.images.shape == (8, 3, 8, 8)
    assert read.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_batches_are_of_each_image_once_an_epoch_until_the_budget_is_spent(monkeypatch):
    batches = list(draw_batches(10, RECIPE, "epochs", torch.Generator().manual_seed(0)))
    assert [len(chosen) for _, chosen in batches] == [4, 4, 2] * 3
    assert [progress for progress, _ in batches] == pytest.approx(
        [done / 30 for done in (0, 4, 8, 10, 14, 18, 20, 24, 28)]
    )
    assert sorted(torch.cat([chosen for _, chosen in batches[:3]]).tolist()) == [*range(10)]
    clock = iter([100.0, *range(100, 200)])
    monkeypatch.setattr(train_with_maps.time, "process_time", lambda: next(clock))
    timed = Recipe(3, 5, 4, 0.1, 0.1, 3, {})
    assert [progress for progress, _ in draw_batches(10, timed, "seconds", torch.Generator())] == [
        0,
        0.2,
        0.4,
        0.6,
        0.8,
    ]


def test_the_loss_is_that_of_training_and_the_penalty():
    classifier = small_network(3, (8, 8), 4, 0)
    classifier.module.requires_grad_(True)
    images, labels = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 4
    draw = torch.Generator().manual_seed(0)
    loss = {way: find_loss(classifier, way, images, labels, RECIPE, draw) for way in WAYS if way != "concentration"}
    classifier.module.train()
    plain = F.cross_entropy(classifier.module((images - 0.5) / 0.25), labels)
    torch.testing.assert_close(loss["plain"], plain)
    assert loss["adversarial"] > 2 * loss["plain"] - plain
    classifier.module.eval()
    inputs = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(classifier(inputs), labels, reduction="sum"), inputs)
    # The statistics have moved since, by a tenth for each of four passes.
    assert float((loss["input-gradient"] - plain).detach()) == pytest.approx(
        2 * float(slope.square().sum()) / 6, rel=0.5
    )


def test_the_attack_of_training_fills_the_ball_and_stays_in_the_box():
    classifier = linear(torch.randn(3, 192, generator=torch.Generator().manual_seed(0)))
    images, labels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])
    seen = attack_batch(classifier, images, labels, RECIPE, torch.Generator().manual_seed(2))
    change = (seen - images).abs()
    assert change.max() <= 0.1 + 1e-6
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert change.mean() > 0.06
    losses = [F.cross_entropy(classifier(each), labels) for each in (images, seen)]
    assert losses[1] > losses[0] + 1


def test_norms_are_0_where_it_is_wrong_and_those_of_the_boundary_elsewhere():
    rows = torch.zeros(2, 192)
    rows[0, 0], rows[1, 1] = 1, 1
    images = torch.full((2, 3, 8, 8), 0.5)
    images[:, 0, 0, 0] = 0.7
    norms = find_norms(linear(rows), Labelled(images, torch.tensor([0, 1])), JUDGING)
    torch.testing.assert_close(norms, torch.tensor([0.1, 0.0]), rtol=0, atol=2e-3)


def fake(way, seed, values, budget="epochs"):
    numbers = dict.fromkeys(HEADS, values)
    checks = {"unbounded": 1.0, "square alone": seed, "robust by pgd": [0.5] * 4, "robust by fmn": [0.25 * seed] * 4}
    return {"way": way, "budget": budget, "seed": seed, "numbers": numbers, "checks": checks} | {
        "processor_seconds": 2.0,
        "epochs": 3.0,
    }


def test_an_interval_knows_of_images_and_of_seeds():
    draw = np.random.default_rng(0)
    images = draw.uniform(0.4, 0.6, 200)
    same = [fake("plain", seed, images.tolist()) for seed in range(3)]
    alone = summarise(same, "norm")
    assert alone.mean == pytest.approx(images.mean())
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * images.std() / math.sqrt(200), rel=0.15)
    apart = [fake("plain", seed, (images + seed / 50).tolist()) for seed in range(3)]
    interval = summarise(apart, "norm")
    # Three seeds, a fiftieth apart: Student's quantile for two degrees of freedom, 4.303, times a fiftieth, over √3.
    reach = math.hypot(4.3027 / 50 / math.sqrt(3), alone.high - alone.mean)
    assert interval.high - interval.mean == pytest.approx(reach, rel=1e-3)
    difference = summarise([fake("stability", seed, (images - 0.3).tolist()) for seed in range(3)], "norm", same)
    assert (difference.low, difference.high) == pytest.approx((-0.3, -0.3))
    assert summarise([fake("plain", seed, [float(seed > 0)] * 20) for seed in range(3)], "norm").high == 1


def test_the_tables_say_the_checks_beside_the_numbers():
    runs = [fake(way, seed, [1.0, 0.0]) for seed in (0, 1) for way in ("plain", "stability")]
    tables = write_tables(runs, JUDGING).splitlines()
    assert (
        "| stability, equal epochs | 1.000 | 1 | 0.125 (0.500) | 0.125 (0.500) | 0.125 (0.500) | 0.125 (0.500) |"
        in tables
    )
    (numbers,) = [line for line in tables if line.startswith("| plain, equal epochs | 2 (3.0 epochs) |")]
    assert (numbers.count(" 0.500 ["), numbers.count(" 0.5000 [")) == (len(HEADS) - 1, 1)
    assert sum(line.startswith("| stability, equal epochs | +0.000 [") for line in tables) == 1


def test_a_network_is_drawn_from_its_seed():
    weights = [small_network(3, (8, 8), 4, seed).module[0].weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert isinstance(small_network(1, (8, 8), 10, 0).module[1], nn.BatchNorm2d)
