r"""Train a compact vision transformer for small images, from a trained network and few images.

    python examples/train_small_transformer.py --images cifar10.npz:fit --held-out cifar10.npz:eval \
        --teacher mine.py:network -o small_vit.safetensors
    whyfooled explain dog.png --model examples/train_small_transformer.py:small_transformer \
        --weights small_vit.safetensors

A transformer learns little from 2000 images. So it imitates a teacher, on mixtures of the images of which there are any
number: shifted, mirrored, blended with each other (mixup, Zhang et al. 2018) or pasted into each other (CutMix, Yun et
al. 2019). Teacher and student see the same mixture, for long ("patient and consistent", Beyer et al. 2022, arXiv
2106.05237); labels are not used. The transformer takes its tokens from two convolutions in place of patches (Xiao et
al. 2021, arXiv 2106.14881) and has fewer than half a million weights.

It can be stopped at any time: the same command goes on from what is written beside the output.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import track
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from whyfooled import Classifier, load_classifier
from whyfooled.errors import WhyfooledError, at_least, bad_parameter, positive
from whyfooled.images import write_tensors
from whyfooled.sources import open_source

SIDE, CHANNELS, BLOCKS, HEADS = 32, 96, 6, 3
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


class ConvolutionalTokens(nn.Module):
    """Two convolutions with stride 2: a token for each 4 × 4 pixels."""

    num_patches = (SIDE // 4) ** 2

    def __init__(self, in_chans: int = 3, embed_dim: int = CHANNELS, **_: object) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_chans, embed_dim // 2, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(embed_dim // 2)
        self.second = nn.Conv2d(embed_dim // 2, embed_dim, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n,3,32,32) -> (n, tokens, channels)."""
        grid: Tensor = self.second(F.relu(self.norm(self.first(x))))
        return grid.flatten(2).transpose(1, 2)


def small_transformer(classes: int = 10) -> Classifier:
    """Make the transformer, with random weights, for images of 32 × 32 pixels."""
    module = VisionTransformer(
        img_size=SIDE,
        num_classes=classes,
        embed_dim=CHANNELS,
        depth=BLOCKS,
        num_heads=HEADS,
        mlp_ratio=2,
        embed_layer=ConvolutionalTokens,
    )
    return Classifier(module.eval(), MEAN, STD, (SIDE, SIDE))


def read_images(spec: str) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """Read all images of a source (n,3,32,32), their labels (n,) and the class names."""
    source = open_source(spec)
    blank = small_transformer()
    images = torch.stack([source[index].fitted(blank.fit, 3) for index in range(len(source))])
    labels = torch.tensor([next(iter(source.labels(index)), -1) for index in range(len(source))])
    return images, labels, source.class_names


def mix(images: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Make mixtures (count,3,h,w) of images (n,3,h,w), each of two of them: half blended, half pasted."""
    first, second = (_vary(images, count, draw) for _ in range(2))
    share = torch.rand(count, 1, 1, 1, generator=draw)
    blended = torch.lerp(first, second, share)
    return torch.where(torch.rand(count, 1, 1, 1, generator=draw) < 0.5, blended, _paste(first, second, share, draw))


def _vary(images: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Draw images, mirror half of them, and shift them by up to an eighth."""
    chosen = images[torch.randint(len(images), (count,), generator=draw)]
    mirrored = torch.rand(count, 1, 1, 1, generator=draw) < 0.5
    chosen = torch.where(mirrored, chosen.flip(-1), chosen)
    side = images.shape[-1]
    margin = side // 8
    padded = F.pad(chosen, (margin,) * 4, mode="reflect")
    starts = torch.randint(2 * margin + 1, (2, count, 1), generator=draw)
    rows, columns = starts + torch.arange(side)
    each = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _paste(first: Tensor, second: Tensor, share: Tensor, draw: torch.Generator) -> Tensor:
    """Paste a square of the second images, which has a share of the area, into the first."""
    side = first.shape[-1]
    places = torch.arange(side).view(1, 1, 1, side)
    across, down = torch.rand(2, len(first), 1, 1, 1, generator=draw) * side
    half = share.sqrt() * side / 2
    inside = ((places - across).abs() < half) & ((places.transpose(2, 3) - down).abs() < half)
    return torch.where(inside, second, first)


def imitation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence of the student's probabilities from the teacher's, at a temperature."""
    own, aim = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(own, aim, reduction="batchmean", log_target=True) * temperature**2


def measure(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that are classified correctly."""
    predicted = torch.cat([classifier.logits(batch).argmax(1) for batch in torch.split(images, 100)])
    return float((predicted == labels).float().mean())


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    images: Annotated[
        str, typer.Option(help="The images that mixtures are made of: a source such as FILE.npz:PREFIX.")
    ],
    held_out: Annotated[str, typer.Option(help="Images with labels, to measure on.")],
    teacher: Annotated[str, typer.Option(help="A trained classifier, as for whyfooled --model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    teacher_weights: Annotated[str | None, typer.Option(help="Its weights.")] = None,
    steps: Annotated[int, typer.Option(help="Batches in all.")] = 12_000,
    batch_size: Annotated[int, typer.Option(help="Mixtures in a batch.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="AdamW's, at its largest.")] = 2e-3,
    temperature: Annotated[float, typer.Option(help="At which teacher and student are compared.")] = 2.0,
    every: Annotated[int, typer.Option(help="Batches between two measurements, after which it is written.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the mixtures.")] = 0,
) -> None:
    """Train a compact transformer to imitate a teacher."""
    for name, value in {"steps": steps, "batch_size": batch_size, "every": every}.items():
        at_least(name, value, 1)
    positive("learning_rate", learning_rate)
    if output.suffix != ".safetensors":
        raise bad_parameter("output", "must be a .safetensors file, which can name the classes", output)
    seen, _, names = read_images(images)
    unseen, labels, _ = read_images(held_out)
    model = load_classifier(teacher, weights=teacher_weights)
    print(f"The teacher is right on {measure(model, unseen, labels):.3f} of {len(unseen)} held-out images.")

    torch.manual_seed(seed)
    student = small_transformer(model.logits(unseen[:1]).shape[1])
    optimiser = torch.optim.AdamW(student.module.requires_grad_(True).parameters(), learning_rate, weight_decay=0.05)
    done = resume(output, student, optimiser)
    for first in range(done, steps, every):
        last = min(first + every, steps)
        for step in track(range(first, last), f"To batch {last}", console=Console(stderr=True), transient=True):
            # Of the step alone, so that going on is the same as not having stopped.
            draw = torch.Generator().manual_seed(seed * steps + step)
            optimiser.param_groups[0]["lr"] = learning_rate * rate(step / steps)
            imitate(student, model, mix(seen, batch_size, draw), optimiser, temperature)
        accuracy = measure(student, unseen, labels)
        print(f"Batch {last} of {steps}: right on {accuracy:.3f} of {len(unseen)} held-out images.", flush=True)
        save(output, student, optimiser, last, names)
    print(
        f"Written: {output}. To use it: whyfooled explain IMAGE --model {__file__}:small_transformer --weights {output}"
    )


def rate(progress: float) -> float:
    """Return the share of the learning rate: rising over the first twentieth, then falling along a cosine."""
    return min(progress * 20 + 0.01, (1 + math.cos(math.pi * progress)) / 2)


def imitate(
    student: Classifier, teacher: Classifier, mixtures: Tensor, optimiser: torch.optim.Optimizer, temperature: float
) -> None:
    """Take one step of the optimiser."""
    with torch.no_grad():
        aims = teacher(mixtures)
    # The module itself, because a Classifier always evaluates: batch norm takes the batch's statistics here.
    logits = student.module.train()((mixtures - student.mean) / student.std)
    optimiser.zero_grad()
    torch.autograd.backward(imitation_loss(logits, aims, temperature))
    nn.utils.clip_grad_norm_(student.module.parameters(), 1.0)
    optimiser.step()
    student.module.eval()


def save(output: Path, student: Classifier, optimiser: torch.optim.Optimizer, done: int, names: object) -> None:
    """Write the weights, and beside them what is needed to go on."""
    write_tensors(output, student.module.state_dict(), {"whyfooled": json.dumps({"class_names": names})})
    state = {"student": student.module.state_dict(), "optimiser": optimiser.state_dict(), "done": done}
    part = output.with_suffix(".part")
    torch.save(state, part)
    part.replace(output.with_suffix(".state"))


def resume(output: Path, student: Classifier, optimiser: torch.optim.Optimizer) -> int:
    """Load what was written beside the output; return how many batches are done."""
    path = output.with_suffix(".state")
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    student.module.load_state_dict(state["student"])
    optimiser.load_state_dict(state["optimiser"])
    print(f"Going on after batch {state['done']}, from {path}.")
    return int(state["done"])


if __name__ == "__main__":
    try:
        app()
    except WhyfooledError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
