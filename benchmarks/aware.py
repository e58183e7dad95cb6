"""How well an attack that knows the explanation forges it, beside attacks that do not, and what it costs."""

from __future__ import annotations

import time

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks._eval_images import read_eval_images
from whyfooled import Classifier, Untargeted, load_classifier
from whyfooled.attacks import AttackResult, AwareResult, ExplanationAware, run_aware
from whyfooled.registry import describe, parse
from whyfooled.tensors.statistics import bootstrap_means

BATCH = 20


def run(data: str, model: str, weights: str | None, count: int, attacks: list[str]) -> None:
    classifier = load_classifier(model, weights=weights)
    images, labels = read_eval_images(data, 10 * count)
    right = torch.cat([classifier.predict(part) for part in torch.split(images, BATCH)]) == labels
    images, labels = images[right][:count], labels[right][:count]
    console = Console(width=150)
    console.print(f"{len(images)} images that {classifier.name} gets right; means, with 95 % intervals.")
    for text in attacks:
        console.print(_compare(parse("attacks", text), classifier, images, labels))


def _compare(attack: ExplanationAware, classifier: Classifier, images: torch.Tensor, labels: torch.Tensor) -> Table:
    started = time.perf_counter()
    parts = zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True)
    result = AwareResult.join([run_aware(attack, classifier, part, Untargeted(true)) for part, true in parts])
    seconds = time.perf_counter() - started
    table = Table(
        *("view", "method", "maps of", "cosine", "top 5 %", "mass in the decoy", "success", "margin", "l2", "passes"),
        title=f"{escape(describe(attack))}: the class failed {result.failed.count('class')} times, the map "
        f"{result.failed.count('map')} times; {seconds:.0f} s",
        title_justify="left",
    )
    attacked = {"aware": result, "plain": result.plain, "matched margin": result.matched}
    frame = result.maps_frame()
    for key, rows in frame.groupby(["view", "method", "shown"], sort=False):
        view, method, shown = map(str, key)
        values = torch.tensor(rows[["cosine", "top_share", "mass"]].to_numpy())
        means = [mean.format() for mean in bootstrap_means(values)]
        table.add_row(view, method, shown, *means, *_describe(attacked.get(str(shown))))
    return table


def _describe(result: AttackResult | None) -> list[str]:
    """Say how an attack did: success, margin, norm, passes forwards and backwards."""
    if result is None:
        return [""] * 4
    margin = -result.goal.margin(result.logits)
    delta = (result.attempted - result.clean).flatten(1).norm(dim=1)
    passes = [f"{float(counts.double().mean()):.0f}" for counts in (result.forwards, result.backwards)]
    success = f"{float(result.success.double().mean()):.2f}"
    return [success, f"{float(margin.mean()):.1f}", f"{float(delta.mean()):.3f}", " + ".join(passes)]
