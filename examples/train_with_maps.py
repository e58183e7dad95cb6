r"""Train with discriminative maps, and see what that is worth: beside other training, and attacked again.

    python examples/train_with_maps.py -o runs/digits
    python examples/train_with_maps.py --images cifar10.npz:fit --held-out cifar10.npz:eval --model mine.py:network \
        --weights mine.safetensors --epochs 1 --learning-rate 0.01 -o runs/cifar

Without --model a small network is trained from random weights; without --images on the digits that scikit-learn brings.
Each of the ways to train (`WAYS`) is given as many epochs, and then as many seconds of processor time, with several
seeds. What comes of it is judged by attacks that are run on it anew: accuracy, smallest perturbations (FMN), accuracy
under AutoAttack, stability of maps, and an attack that knows them. Beside that stand the checks for gradients that hide
from an attack in place of robustness: an attack without bounds must always succeed, one that sees no gradients must
find nothing that the others missed, and FMN's norms must agree with projected gradient descent in balls of all sizes.

Every trained network, and what was found of it, is written whole and never made again: the same command goes on.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load
from torch import Tensor, nn

from whyfooled import (
    FMN,
    PGD,
    AttackResult,
    AutoAttack,
    Classifier,
    Enhanced,
    ExplanationAware,
    Fit,
    Untargeted,
    load_classifier,
    run_attack,
    run_aware,
)
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.classifier import strongest_other
from whyfooled.defences import DiscriminativePenalty, InputGradientPenalty, Penalty
from whyfooled.defences.discriminative import change, step_to_rival
from whyfooled.errors import ParameterError, WhyfooledError, at_least, bad_parameter, one_of, positive
from whyfooled.images import write_tensors
from whyfooled.images.writing import write_whole
from whyfooled.registry import describe_value, number
from whyfooled.saliency.interpretations import interpretation
from whyfooled.sources import open_source
from whyfooled.tensors.randomness import image_generators, uniform
from whyfooled.tensors.statistics import Interval, bootstrap_means, student_quantile

WAYS = ("plain", "input-gradient", "stability", "concentration", "adversarial")
"""Plain training, with one of three penalties, and adversarial training (Madry et al. 2018)."""
GIVEN = "as given"
Budget = Literal["epochs", "seconds", "none"]
HELD_OUT = 0.3
"""The share of the digits that nothing is trained on."""
ROBUST = ("robust, small ball", "robust, large ball")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, whichever way."""

    epochs: int
    seconds: float
    batch_size: int
    learning_rate: float
    epsilon: float
    attack_steps: int
    penalties: dict[str, Penalty]


@dataclass(frozen=True)
class Judging:
    """How a trained network is judged: on how many images, and how long it is attacked."""

    images: int
    aware_images: int
    radii: tuple[float, float]
    epsilon: float
    fmn_steps: int
    auto_steps: int
    auto_targets: int
    auto_queries: int
    pgd_steps: int
    aware_steps: int

    @property
    def curve(self) -> tuple[float, ...]:
        """Radii at which FMN and PGD are to agree."""
        small, large = self.radii
        return small / 2, small, math.sqrt(small * large), large


@dataclass(frozen=True)
class Labelled:
    """Images (n,c,h,w) with the class of each (n,)."""

    images: Tensor
    labels: Tensor

    def first(self, count: int) -> Labelled:
        """Keep the first few."""
        return Labelled(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Comparison:
    """Everything that the runs share."""

    recipe: Recipe
    judging: Judging
    seen: Labelled
    unseen: Labelled
    make: Callable[[int], Classifier]
    begins_anew: bool
    output: Path


# -------------------------------------------------------------------------------------------- images and networks


def read_digits() -> tuple[Labelled, Labelled]:
    """Read scikit-learn's digits, 8 × 8 pixels in grey: those to train on, and those to judge with."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError:
        raise ParameterError(
            "`images` must be given, or scikit-learn installed, which brings the digits: pip install scikit-learn."
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    split = round(HELD_OUT * len(images))
    everything = Labelled(images[order], torch.tensor(labels)[order])
    return (
        Labelled(everything.images[split:], everything.labels[split:]),
        everything.first(split),
    )


def read_source(spec: str, classifier: Classifier | None) -> Labelled:
    """Read all images of a source, fitted to a classifier, or in the size of the first, with the label of each."""
    source = open_source(spec)
    first = source[0]
    height, width = first.size or tuple(torch.as_tensor(first.image).shape[-2:])
    fit, channels = (Fit((height, width)), 3) if classifier is None else (classifier.fit, classifier.channels)
    images = torch.stack([source[index].fitted(fit, channels) for index in range(len(source))])
    labels = torch.tensor([next(iter(source.labels(index)), -1) for index in range(len(source))])
    if (labels < 0).any():
        raise ParameterError(f"`images` must have a label each; {int((labels < 0).sum())} of {spec} have none.")
    return Labelled(images, labels)


def small_network(channels: int, size: tuple[int, int], classes: int, seed: int) -> Classifier:
    """Make a small convolutional network with batch norm and random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(
            *(nn.Conv2d(channels, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
            *(nn.Conv2d(24, 48, 3, 2, padding=1), nn.BatchNorm2d(48), nn.ReLU()),
            *(nn.Conv2d(48, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(192, classes)),
        )
    return Classifier(module.eval(), (0.5,) * channels, (0.25,) * channels, size)


# ------------------------------------------------------------------------------------------------------- training


def train(
    classifier: Classifier, way: str, seen: Labelled, recipe: Recipe, budget: Budget, seed: int
) -> dict[str, Any]:
    """Train a network in one of the ways until its budget is spent; say what it took."""
    parameters = classifier.module.requires_grad_(True).parameters()
    optimiser = torch.optim.SGD(parameters, recipe.learning_rate, momentum=0.9, weight_decay=5e-4)
    draw = torch.Generator().manual_seed(seed)
    begun, wall, batches = time.process_time(), time.perf_counter(), 0
    for progress, chosen in draw_batches(len(seen.labels), recipe, budget, draw):
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        optimiser.zero_grad()
        torch.autograd.backward(find_loss(classifier, way, seen.images[chosen], seen.labels[chosen], recipe, draw))
        # A penalty on gradients can be large at first, and would throw a trained network off.
        nn.utils.clip_grad_norm_(classifier.module.parameters(), 1.0)
        optimiser.step()
        batches += 1
    classifier.module.eval().requires_grad_(False)
    return {
        "batches": batches,
        "epochs": batches * recipe.batch_size / len(seen.labels),
        "processor_seconds": time.process_time() - begun,
        "wall_seconds": time.perf_counter() - wall,
    }


def draw_batches(count: int, recipe: Recipe, budget: Budget, draw: torch.Generator) -> Iterator[tuple[float, Tensor]]:
    """Give batches until the budget is spent, each with the share of it that is spent before."""
    begun, done = time.process_time(), 0
    while True:
        for chosen in torch.split(torch.randperm(count, generator=draw), recipe.batch_size):
            spent = time.process_time() - begun
            progress = done / (count * recipe.epochs) if budget == "epochs" else spent / recipe.seconds
            if progress >= 1:
                return
            yield progress, chosen
            done += len(chosen)


def find_loss(
    classifier: Classifier, way: str, images: Tensor, labels: Tensor, recipe: Recipe, draw: torch.Generator
) -> Tensor:
    """Compute what is made small on a batch."""
    seen = attack_batch(classifier, images, labels, recipe, draw) if way == "adversarial" else images
    # The module itself, because a Classifier always evaluates: batch norm takes the batch's statistics here.
    logits = classifier.module.train()((seen - classifier.mean) / classifier.std)
    loss = F.cross_entropy(logits, labels)
    return loss + recipe.penalties[way](classifier, images, labels) if way in recipe.penalties else loss


def attack_batch(
    classifier: Classifier, images: Tensor, labels: Tensor, recipe: Recipe, draw: torch.Generator
) -> Tensor:
    """Make adversarial images by a few steps of projected gradient descent, all of them, from a random start."""
    radius, step = recipe.epsilon, 2.5 * recipe.epsilon / recipe.attack_steps
    seen = images + radius * (2 * torch.rand(images.shape, generator=draw) - 1)
    for _ in range(recipe.attack_steps):
        seen = seen.clamp(0, 1).requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(classifier(seen), labels), seen)
        seen = images + (seen.detach() + step * slope.sign() - images).clamp(-radius, radius)
    return seen.clamp(0, 1)


# -------------------------------------------------------------------------------------------------------- judging


def judge(classifier: Classifier, unseen: Labelled, judging: Judging) -> dict[str, Any]:
    """Attack a network anew, and measure what is left: numbers for each image, and the checks for hidden gradients."""
    right = torch.cat([classifier.predict(batch) for batch in torch.split(unseen.images, 200)]) == unseen.labels
    tested = unseen.first(judging.images)
    norms = find_norms(classifier, tested, judging)
    attacks = [
        AutoAttack(radius, steps=judging.auto_steps, targets=judging.auto_targets, queries=judging.auto_queries)
        for radius in judging.radii
    ]
    results = [attack(classifier, each, tested) for each in attacks]
    numbers = {
        "right": right,
        "norm": norms,
        **{place: ~result.success for place, result in zip(ROBUST, results, strict=True)},
        **judge_maps(classifier, tested, judging),
        "forged": find_forged(classifier, tested.first(judging.aware_images), judging),
    }
    return {
        "numbers": {name: values.float().tolist() for name, values in numbers.items()},
        "checks": check_gradients(classifier, tested, norms, results, judging),
    }


def attack(classifier: Classifier, method: Any, tested: Labelled) -> AttackResult:
    """Run an attack that takes any other class for a success; what is wrong already is one."""
    return run_attack(method, classifier, tested.images, Untargeted(tested.labels))


def find_norms(classifier: Classifier, tested: Labelled, judging: Judging) -> Tensor:
    """Return (n,) the ℓ∞ norm of the smallest perturbation that FMN finds; 0 for what is wrong already."""
    result = attack(classifier, FMN(judging.fmn_steps, ball="linf"), tested)
    norms = (result.adversarial - result.clean).abs().amax((1, 2, 3))
    return norms.where(result.success, 1.0)


@one_thread()
def judge_maps(classifier: Classifier, tested: Labelled, judging: Judging) -> dict[str, Tensor]:
    """Return (n,) the cosine of the enhanced map, true class against rival, with that under noise, and under a step."""
    images, labels = tested.images, tested.labels
    rival = strongest_other(classifier.logits(images), labels)
    noise = 2 * uniform(images, image_generators(images, 0)) - 1
    noisy = (images + judging.radii[-1] * noise).clamp(0, 1)
    moved = step_to_rival(classifier, images, labels, rival, judging.epsilon)

    def show(seen: Tensor) -> Tensor:
        return interpretation(Enhanced()(classifier, seen, labels, contrast=rival))

    before = show(images)
    return {"map, noise": 1 - change(before, show(noisy)), "map, step": 1 - change(before, show(moved))}


def find_forged(classifier: Classifier, tested: Labelled, judging: Judging) -> Tensor:
    """Return (n,) whether an attack that knows the map fools both, the class and the map."""
    aware = ExplanationAware(epsilon=judging.radii[-1], steps=judging.aware_steps)
    open_ones = classifier.predict(tested.images) == tested.labels
    forged = torch.full((len(open_ones),), torch.nan)
    if open_ones.any():
        goal = Untargeted(tested.labels[open_ones])
        result = run_aware(aware, classifier, tested.images[open_ones], goal)
        forged[open_ones] = (result.success & result.map_success).float()
    return forged


def check_gradients(
    classifier: Classifier, tested: Labelled, norms: Tensor, results: list[AttackResult], judging: Judging
) -> dict[str, Any]:
    """Look for gradients that hide from an attack in place of robustness."""
    unbounded = attack(classifier, PGD(1.0, steps=judging.pgd_steps), tested)
    balls = [attack(classifier, PGD(radius, steps=judging.pgd_steps), tested) for radius in judging.curve]
    square = AutoAttack.stages.index("Square") + 1
    return {
        "unbounded": float(unbounded.success.float().mean()),
        "square alone": sum(int((result.stage == square).sum()) for result in results if result.stage is not None),
        "robust by pgd": [float((~ball.success).float().mean()) for ball in balls],
        "robust by fmn": [float((norms > radius).float().mean()) for radius in judging.curve],
    }


# ------------------------------------------------------------------------------------------------------ writing up

HEADS = {
    "right": "accuracy",
    "norm": "smallest ℓ∞ norm",
    ROBUST[0]: "accuracy under AutoAttack, {small}",
    ROBUST[1]: "{large}",
    "map, noise": "map under noise",
    "map, step": "map under a step",
    "forged": "class and map fooled",
}
DIGITS = {"norm": 4}


def summarise(runs: list[dict[str, Any]], measure: str, plain: list[dict[str, Any]] | None = None) -> Interval:
    """Take the mean over seeds and images, less that of other runs; the interval knows of both, images and seeds."""
    values = gather(runs, measure)
    if plain is not None:
        # Both go seed by seed; of the last one there may be one of them as yet.
        both = min(len(runs), len(plain))
        values = values[:both] - gather(plain, measure)[:both]
    each = values.nanmean(0)
    over_images = bootstrap_means(each.unsqueeze(1), differences=plain is not None)[0]
    of_seeds = values.nanmean(1).double()
    if len(of_seeds) < 2:
        return over_images
    reach = student_quantile(len(of_seeds) - 1) * float(of_seeds.std()) / math.sqrt(len(of_seeds))
    wide = over_images.widen(reach)
    # Everything that is measured lies between 0 and 1.
    return replace(wide, low=max(wide.low, 0.0 if plain is None else -1.0), high=min(wide.high, 1.0))


def gather(runs: list[dict[str, Any]], measure: str) -> Tensor:
    """Return (seeds, images) one number of runs in order of their seeds."""
    return torch.tensor([run["numbers"][measure] for run in sorted(runs, key=lambda run: run["seed"])])


def write_tables(runs: list[dict[str, Any]], judging: Judging) -> str:
    """Write what was found as Markdown: numbers, differences from plain training, and checks."""
    groups = group_runs(runs)
    small, large = map(describe_value, judging.radii)
    heads = [head.format(small=small, large=large) for head in HEADS.values()]
    numbers = [
        [name, cost(some), *(summarise(some, m).format(DIGITS.get(m, 3)) for m in HEADS)]
        for name, some in groups.items()
    ]
    differences = [
        [name, *(summarise(some, m, groups[plain]).format(DIGITS.get(m, 3), sign=True) for m in HEADS)]
        for name, some in groups.items()
        if (plain := f"plain, equal {some[0]['budget']}") in groups and name != plain
    ]
    at = [f"robust at {describe_value(radius)}, FMN (PGD)" for radius in judging.curve]
    check_heads = ["training", "fooled without bounds", "by Square alone", *at]
    checks = [[name, *tell_checks(some)] for name, some in groups.items()]
    return "\n\n".join(
        [
            "Means over seeds and images, with 95 % intervals.",
            format_table(["training", "processor seconds", *heads], numbers),
            "Less plain training with the same budget:",
            format_table(["training", *heads], differences),
            "Checks for hidden gradients:",
            format_table(check_heads, checks),
            "",
        ]
    )


def group_runs(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Put the runs that differ in their seeds alone together."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(name_group(run), []).append(run)
    return groups


def name_group(run: dict[str, Any]) -> str:
    """Name what was done, whatever the seed."""
    return GIVEN if run["way"] == GIVEN else f"{run['way']}, equal {run['budget']}"


def cost(runs: list[dict[str, Any]]) -> str:
    """Say how long training took, and for how many epochs it went."""
    if "epochs" not in runs[0]:
        return "–"
    seconds, epochs = (sum(run[key] for run in runs) / len(runs) for key in ("processor_seconds", "epochs"))
    return f"{seconds:.0f} ({epochs:.1f} epochs)"


def tell_checks(runs: list[dict[str, Any]]) -> list[str]:
    """Say what the checks for hidden gradients found, over all seeds."""
    checks = [run["checks"] for run in runs]
    curves = [
        tuple(sum(check[f"robust by {by}"][place] for check in checks) / len(checks) for by in ("fmn", "pgd"))
        for place in range(len(checks[0]["robust by pgd"]))
    ]
    unbounded = sum(check["unbounded"] for check in checks) / len(checks)
    return [
        f"{unbounded:.3f}",
        str(sum(check["square alone"] for check in checks)),
        *(f"{by_fmn:.3f} ({by_pgd:.3f})" for by_fmn, by_pgd in curves),
    ]


def format_table(heads: list[str], rows: list[list[str]]) -> str:
    """Write a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ------------------------------------------------------------------------------------------------------- the runs

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def compare(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")],
    images: Annotated[str | None, typer.Option(help="Images to train on, such as FILE.npz:PREFIX.")] = None,
    held_out: Annotated[str | None, typer.Option(help="Images to judge with.")] = None,
    train_count: Annotated[int | None, typer.Option(help="Train on so many, the first ones; all if left out.")] = None,
    model: Annotated[str | None, typer.Option(help="A trained classifier to fine-tune.")] = None,
    weights: Annotated[str | None, typer.Option(help="Its weights.")] = None,
    ways: Annotated[str, typer.Option(help="Ways to train, separated by commas.")] = ",".join(WAYS),
    epochs: Annotated[int, typer.Option(help="Passes over the images, for each way.")] = 20,
    seconds: Annotated[float, typer.Option(help="Processor time for each way; at 0 that part is left out.")] = 30,
    seeds: Annotated[int, typer.Option(help="How often each way is gone.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 50,
    learning_rate: Annotated[float, typer.Option(help="At the beginning; it falls along a cosine.")] = 0.05,
    epsilon: Annotated[str, typer.Option(help="Radius of the attack and length of the step in training.")] = "4/255",
    attack_steps: Annotated[int, typer.Option(help="Steps of the attack in adversarial training.")] = 3,
    stability: Annotated[float, typer.Option(help="Weight of this penalty.")] = 1.0,
    concentration: Annotated[float, typer.Option(help="Weight of this penalty.")] = 1.0,
    input_gradient: Annotated[float, typer.Option(help="Weight of this penalty.")] = 0.1,
    radii: Annotated[str, typer.Option(help="Radii of two balls that AutoAttack stays in.")] = "2/255,8/255",
    count: Annotated[int, typer.Option(help="Images that are attacked.")] = 100,
    aware_count: Annotated[int, typer.Option(help="Images of these that the attack on maps gets.")] = 50,
    fmn_steps: Annotated[int, typer.Option(help="Steps of FMN, which runs twice.")] = 100,
    auto_steps: Annotated[int, typer.Option(help="Steps of AutoAttack.")] = 100,
    auto_targets: Annotated[int, typer.Option(help="Classes that AutoAttack aims at.")] = 9,
    auto_queries: Annotated[int, typer.Option(help="Passes of AutoAttack's random search.")] = 5000,
    pgd_steps: Annotated[int, typer.Option(help="Steps of PGD in the checks.")] = 40,
    aware_steps: Annotated[int, typer.Option(help="Steps of the attack on maps.")] = 40,
) -> None:
    """Train a network in several ways, with the same epochs and the same time, and judge what comes of it."""
    counts = {
        **{"epochs": epochs, "seeds": seeds, "batch_size": batch_size, "attack_steps": attack_steps},
        **{"count": count, "aware_count": aware_count, "fmn_steps": fmn_steps, "auto_steps": auto_steps},
        **{"auto_targets": auto_targets, "auto_queries": auto_queries},
        **{"pgd_steps": pgd_steps, "aware_steps": aware_steps},
    }
    for name, number_given in counts.items():
        at_least(name, number_given, 1)
    weights_given = {"stability": stability, "concentration": concentration, "input_gradient": input_gradient}
    for name, weight in weights_given.items():
        at_least(name, weight, 0)
    at_least("train_count", 1 if train_count is None else train_count, 1)
    at_least("seconds", seconds, 0)
    positive("learning_rate", learning_rate)
    for way in ways.split(","):
        one_of("ways", way, WAYS)
    length, (small, large) = number("epsilon", epsilon), read_radii(radii)
    penalties: dict[str, Penalty] = {
        "stability": DiscriminativePenalty("stability", stability, length),
        "concentration": DiscriminativePenalty("concentration", concentration),
        "input-gradient": InputGradientPenalty(input_gradient),
    }
    recipe = Recipe(epochs, seconds, batch_size, learning_rate, length, attack_steps, penalties)
    auto = (auto_steps, auto_targets, auto_queries)
    judging = Judging(count, aware_count, (small, large), length, fmn_steps, *auto, pgd_steps, aware_steps)
    given = None if model is None else load_classifier(model, weights=weights)
    seen, unseen = read_both(images, held_out, given)
    seen = seen if train_count is None else seen.first(train_count)

    def make(seed: int) -> Classifier:
        """Make the network that training begins with."""
        if model is not None:
            return load_classifier(model, weights=weights)
        (channels, height, width), classes = seen.images.shape[1:], int(seen.labels.max()) + 1
        return small_network(channels, (height, width), classes, seed)

    said = {
        "images": [images, held_out, len(seen.labels), len(unseen.labels)],
        "model": [model, weights],
        "recipe": {**asdict(replace(recipe, penalties={})), "penalties": {k: repr(v) for k, v in penalties.items()}},
        "judging": asdict(judging),
    }
    check_same(output / "settings.json", said)
    runs = run_all(Comparison(recipe, judging, seen, unseen, make, model is None, output), ways.split(","), seeds)
    print(f"Written: {output / 'results.json'} and {output / 'results.md'}, of {len(runs)} networks.")


def read_radii(text: str) -> tuple[float, float]:
    """Read two radii, the smaller one first."""
    radii = [number("radii", part) for part in text.split(",")]
    if len(radii) != 2 or not 0 < radii[0] < radii[1]:
        raise bad_parameter("radii", "must be two, the smaller one first, such as 2/255,8/255", text)
    return radii[0], radii[1]


def read_both(images: str | None, held_out: str | None, classifier: Classifier | None) -> tuple[Labelled, Labelled]:
    """Read the images to train on, and those to judge with: of sources, or scikit-learn's digits."""
    if (images is None) != (held_out is None):
        raise ParameterError("`images` and `held_out` must be given together, or neither, for the digits.")
    if images is None or held_out is None:
        return read_digits()
    return read_source(images, classifier), read_source(held_out, classifier)


def check_same(path: Path, said: dict[str, Any]) -> None:
    """Write down what the runs of a folder share; raise if it holds runs of other settings."""
    text = json.dumps(said, indent=1)
    if path.exists() and path.read_text() != text:
        raise ParameterError(f"`output` must be a folder of its own for each setting; {path} says other ones.")
    write_whole(path, text.encode())


def run_all(comparison: Comparison, ways: list[str], seeds: int) -> list[dict[str, Any]]:
    """Train and judge, one network after the other, and write what is there after each; go on where it stopped."""
    budgets: list[Budget] = ["epochs", "seconds"] if comparison.recipe.seconds else ["epochs"]
    # Seed after seed, so that what is there when it is stopped can be compared.
    planned: list[tuple[str, Budget, int]] = [] if comparison.begins_anew else [(GIVEN, "none", 0)]
    planned += [(way, budget, seed) for budget in budgets for seed in range(seeds) for way in ways]
    runs: list[dict[str, Any]] = []
    for place, (way, budget, seed) in enumerate(planned, 1):
        home = comparison.output / "networks" / f"{way}-{budget}-{seed}"
        was_there = "; was there already" if name_judged(home).exists() else ""
        runs.append(run_one(comparison, home, way, budget, seed))
        right = sum(runs[-1]["numbers"]["right"]) / len(comparison.unseen.labels)
        print(f"{place} of {len(planned)}: {way}, {budget}, seed {seed}: right on {right:.3f}{was_there}.", flush=True)
        write_whole(comparison.output / "results.json", json.dumps(runs, indent=1).encode())
        write_whole(comparison.output / "results.md", write_tables(runs, comparison.judging).encode())
    return runs


def name_judged(home: Path) -> Path:
    """Name the file of what was found of a network."""
    return home.with_name(f"{home.name}.json")


def run_one(comparison: Comparison, home: Path, way: str, budget: Budget, seed: int) -> dict[str, Any]:
    """Train a network and judge it, as far as that is not done yet, in files whose names begin in one way."""
    judged = name_judged(home)
    trained, weights = (home.with_name(home.name + end) for end in (".training.json", ".safetensors"))
    if judged.exists():
        run: dict[str, Any] = json.loads(judged.read_text())
        return run
    classifier = comparison.make(seed)
    if trained.exists():
        classifier.module.load_state_dict(load(weights.read_bytes()))
        said = json.loads(trained.read_text())
    else:
        said = {} if way == GIVEN else train(classifier, way, comparison.seen, comparison.recipe, budget, seed)
        write_tensors(weights, classifier.module.state_dict(), {})
        write_whole(trained, json.dumps(said).encode())
    run = {
        "way": way,
        "budget": budget,
        "seed": seed,
        **said,
        **judge(classifier, comparison.unseen, comparison.judging),
    }
    write_whole(judged, json.dumps(run).encode())
    return run


if __name__ == "__main__":
    try:
        app()
    except WhyfooledError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped. What was finished is kept: the same command goes on from there.", file=sys.stderr)
        sys.exit(130)
