"""Fine-tune a classifier to find every class that an image shows, as the VGG16 of Gu & Tresp (2019), fig. 1.

    python examples/finetune_multilabel.py --model torchvision:vgg16 --images voc2012-train:ROOT -o voc.safetensors
    python examples/finetune_multilabel.py --model lite0 --images FOLDER --labels labels.csv -o mine.safetensors
    whyfooled explain cat.jpg --model torchvision:vgg16 --weights voc.safetensors --several-labels

The loss is the binary cross-entropy of each class's own logit. The paper does not say how it was trained; everything
here is our choice: AdamW, a learning rate that falls to 0 along a cosine, mirrored images, dropout, and batch
normalisation with the statistics that it has. After each epoch, the mean average precision is measured on images that
are not trained on, and the best weights so far are written, whole, with the class names in them. To go on from weights
that were written, or to begin with other weights than the published ones, give them with --weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from whyfooled import Classifier, load_classifier
from whyfooled.errors import WhyfooledError, at_least, bad_parameter, positive
from whyfooled.images import write_tensors
from whyfooled.sources import Source, open_source

Batches = DataLoader[tuple[Tensor, Tensor]]


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Some images of a source, fitted to a classifier, each with a 1 for every class that it shows."""

    def __init__(self, source: Source, chosen: Sequence[int], classifier: Classifier, classes: int) -> None:
        self.source, self.chosen, self.classes = source, chosen, classes
        self.fit, self.channels = classifier.fit, classifier.channels

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.source[self.chosen[index]]
        truth = torch.zeros(self.classes)
        truth[list(sample.labels)] = 1
        return sample.fitted(self.fit, self.channels), truth


def split(source: Source, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide the images that have labels: those to train on, and those to measure on."""
    labelled = [index for index in range(len(source)) if source.labels(index)]
    order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, round(held_out * len(labelled)))
    if len(labelled) - count < 1:
        fix = "Give labels with --labels, or a source that has its own."
        raise bad_parameter("--images", "must have labels for 2 images at least", f"{len(labelled)} with labels", fix)
    return [labelled[place] for place in order[count:]], [labelled[place] for place in order[:count]]


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Return (m,) each class's average precision, from scores and truth (n,m); NaN for a class that no image shows.

    That is the mean, over the images that show the class, of the share of such images among those scored as high.
    """
    found = truth.gather(0, scores.argsort(0, descending=True))
    ranks = torch.arange(1, len(found) + 1).unsqueeze(1)
    return (found.cumsum(0) / ranks * found).sum(0) / found.sum(0)


def measure(classifier: Classifier, batches: Batches) -> float:
    """Return the mean average precision over the classes that some image shows."""
    pairs = [(classifier.logits(images.to(classifier.device)).cpu(), truth) for images, truth in batches]
    scores, truth = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return float(average_precision(scores, truth).nanmean())


def train_once(
    classifier: Classifier,
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    flips: torch.Generator,
    what: str,
) -> float:
    """Go through the images once; return the mean loss."""
    # The module itself, because a Classifier always evaluates: dropout acts, batch statistics stay as they are.
    module = classifier.module
    for part in module.modules():
        part.training = isinstance(part, nn.Dropout | nn.Dropout2d)
    total, count = 0.0, 0
    for images, truth in track(batches, what, console=Console(stderr=True), transient=True):
        mirrored = torch.rand(len(images), generator=flips) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
        logits = module((images.to(classifier.device) - classifier.mean) / classifier.std)
        loss = F.binary_cross_entropy_with_logits(logits, truth.to(classifier.device))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        total, count = total + float(loss.detach()) * len(images), count + len(images)
    module.eval()
    return total / count


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def finetune(
    images: Annotated[str, typer.Option(help="Photographs, or a source such as voc2012-train:ROOT.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    labels: Annotated[
        Path | None, typer.Option(help="For photographs: a CSV file with the columns file and label[;label...].")
    ] = None,
    model: Annotated[str, typer.Option(help="The model to begin with; its head is made anew.")] = "torchvision:vgg16",
    weights: Annotated[str | None, typer.Option(help="Weights to begin with; the published ones if left out.")] = None,
    epochs: Annotated[int, typer.Option(help="How often each image is seen.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="AdamW's, at the beginning.")] = 3e-5,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = 1e-2,
    held_out: Annotated[float, typer.Option(help="The share of images that is measured on.")] = 0.1,
    workers: Annotated[int, typer.Option(help="Processes that read images; 0 for none beside this one.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the new head, the split, the order, the mirroring, dropout.")] = 0,
) -> None:
    """Fine-tune a classifier on images that show several classes each."""
    for name, value in {"epochs": epochs, "batch_size": batch_size}.items():
        at_least(name, value, 1)
    positive("learning_rate", learning_rate)
    if output.suffix != ".safetensors":
        raise bad_parameter("output", "must be a .safetensors file, which can name the classes", output)
    source = open_source(images, labels)
    largest = max((label for index in range(len(source)) for label in source.labels(index)), default=1)
    names = source.class_names or tuple(str(label) for label in range(largest + 1))
    seen, unseen = split(source, held_out, seed)
    classifier = load_classifier(model, weights=weights, class_names=names, new_head=True, device=device, seed=seed)

    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    training, testing = (LabelledImages(source, chosen, classifier, len(names)) for chosen in (seen, unseen))
    batches = DataLoader(training, batch_size, shuffle=True, generator=draw, num_workers=workers)
    held = DataLoader(testing, batch_size, num_workers=workers)
    # The only place where gradients of parameters are needed.
    classifier.module.requires_grad_(True)
    optimiser = torch.optim.AdamW(classifier.module.parameters(), learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * len(batches))

    about = {"whyfooled": json.dumps({"class_names": names, "multilabel": True})}
    best = -1.0
    for epoch in range(1, epochs + 1):
        what = f"Epoch {epoch} of {epochs}"
        loss = train_once(classifier, batches, optimiser, schedule, draw, what)
        precision = measure(classifier, held)
        print(f"{what}: loss {loss:.4f}, mean average precision {precision:.4f} on {len(unseen)} held-out images.")
        # Of equal ones the last: a perfect order leaves the logits' zero to be learned.
        if precision >= best:
            best = precision
            write_tensors(output, classifier.module.state_dict(), about)
    print(f"\nWritten: {output}, {len(names)} classes, mean average precision {best:.4f}. To use it:")
    print(f"whyfooled explain IMAGE --model {model} --weights {output} --several-labels")


if __name__ == "__main__":
    try:
        app()
    except WhyfooledError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
