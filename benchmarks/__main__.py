"""Run one benchmark by name."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Benchmarks, each side by side in one run.")

_Photographs = Annotated[
    str,
    typer.Option(
        envvar="WHYFOOLED_IMAGENET",
        help="A folder of ImageNet photographs named by class index, such as 0281_tabby.jpg.",
    ),
]


@app.command()
def saliency(
    repeats: Annotated[int, typer.Option(help="Timed repeats of each entry; the median counts.")] = 9,
    batch: Annotated[int, typer.Option(help="Images in a batch.")] = 4,
) -> None:
    """Compare the time of enhanced guided backpropagation with that of Captum's two calls, on VGG16 and ResNet-50."""
    import_module("benchmarks.saliency").run(repeats, batch)


@app.command()
def explain(
    repeats: Annotated[int, typer.Option(help="Runs of each kind, in turn; the median counts.")] = 3,
    workers: Annotated[int | None, typer.Option(help="As for whyfooled explain.")] = None,
) -> None:
    """Explain the example alone and beside a busy process on each core; compare every number, time by stage."""
    import_module("benchmarks.explain").run(repeats, workers)


@app.command()
def overhead(
    models: Annotated[str, typer.Option(help="Models, separated by commas.")] = "timm:vit_small_patch16_224",
    weights: Annotated[str | None, typer.Option(help="As for whyfooled explain.")] = "random",
    attack: Annotated[str, typer.Option(help="As for whyfooled explain.")] = "cw",
    repeats: Annotated[int, typer.Option(help="Timed repeats; the median counts.")] = 3,
) -> None:
    """Compare the time of an explanation with that of as many plain passes of its model, in batches as large."""
    import_module("benchmarks.overhead").run(models, weights, attack, repeats)


@app.command()
def gpu(
    models: Annotated[str, typer.Option(help="Models, separated by commas.")] = "lite0",
    count: Annotated[int, typer.Option(help="Images that are worked on together.")] = 16,
    repeats: Annotated[int, typer.Option(help="Runs on the GPU, after a first one; the median counts.")] = 3,
) -> None:
    """Compare maps, attacks, regions, recovery and an explanation on a GPU with the CPU: time and digits."""
    import_module("benchmarks.gpu").run(models, count, repeats)


@app.command()
def page(
    visits: Annotated[int, typer.Option(help="Visits at once.")] = 20,
    model: Annotated[str, typer.Option(help="As for whyfooled app.")] = "lite0",
    attack: Annotated[str, typer.Option(help="As for whyfooled explain.")] = "bim",
) -> None:
    """Visit the page in the browser many times at once; count the reports, and see whether memory is given back."""
    import_module("benchmarks.page").run(visits, model, attack)


@app.command()
def intervals(repeats: Annotated[int, typer.Option(help="Simulated samples of each kind.")] = 2000) -> None:
    """Count how often the 95 % intervals of proportions, AUROC and means hold the truth, on simulated samples."""
    import_module("benchmarks.intervals").run(repeats)


@app.command()
def attacks(
    images: _Photographs,
    count: Annotated[int, typer.Option(help="Photographs, all classified correctly.")] = 16,
    only: Annotated[str, typer.Option(help="Parts to run, separated by commas.")] = "cw,fmn,ead,strattack",
    output: Annotated[str, typer.Option("--output", "-o", help="The folder for the curves.")] = "benchmark-out",
    seed: Annotated[int, typer.Option(help="Seed of the sample and of the random targets.")] = 0,
) -> None:
    """Compare our attacks with Foolbox's and adv-lib's: success, norms, evaluations, time; untargeted and targeted."""
    import_module("benchmarks.attacks").run(images, count, only, output, seed)


@app.command()
def optimality(
    data: Annotated[str, typer.Option(help="A source of images with labels, such as FILE.npz:PREFIX, or a folder.")],
    model: Annotated[str, typer.Option(help="A classifier for them.")] = "lite0",
    weights: Annotated[str | None, typer.Option(help="Its weights.")] = None,
    count: Annotated[int, typer.Option(help="Images, all classified correctly.")] = 100,
    norm: Annotated[str, typer.Option(help="l2 or l1.")] = "l2",
    evaluations: Annotated[str, typer.Option(help="Forward passes an image, separated by commas.")] = (
        "50,100,200,300,1000"
    ),
    tuned_at: Annotated[
        int, typer.Option(help="Evaluations at which the other libraries' settings are chosen, on the same images.")
    ] = 200,
    output: Annotated[str, typer.Option("--output", "-o", help="The folder for the figure and the table.")] = (
        "benchmark-out"
    ),
) -> None:
    """Compare the local optimality of minimal-norm attacks with Foolbox's and adv-lib's, at equal evaluations."""
    import_module("benchmarks.optimality").run(
        data, model, weights, count, norm, [int(part) for part in evaluations.split(",")], tuned_at, output
    )


@app.command()
def pgd(
    data: Annotated[
        str, typer.Option(help="An .npz with the arrays eval_images (n,h,w,3), uint8, and eval_labels (n,).")
    ],
    model: Annotated[str, typer.Option(help="path/to/file.py:factory of a classifier for these images.")],
    weights: Annotated[str, typer.Option(help="Its weights.")],
    count: Annotated[int, typer.Option(help="Images at most.")] = 2000,
    steps: Annotated[int, typer.Option(help="Steps of every PGD.")] = 20,
) -> None:
    """Compare the robust accuracy that PGD leaves with that under Foolbox's and torchattacks' PGD, at equal steps."""
    import_module("benchmarks.pgd").run(data, model, weights, count, steps)


@app.command()
def robust(
    data: Annotated[
        str, typer.Option(help="An .npz with the arrays eval_images (n,h,w,3), uint8, and eval_labels (n,).")
    ],
    model: Annotated[str, typer.Option(help="path/to/file.py:factory of a classifier for these images.")],
    weights: Annotated[str, typer.Option(help="Its weights, best of a robust one.")],
    count: Annotated[int, typer.Option(help="Images at most.")] = 200,
    epsilon: Annotated[str, typer.Option(help="The radius, in l-infinity.")] = "8/255",
    steps: Annotated[int, typer.Option(help="Steps of PGD and APGD.")] = 20,
    few: Annotated[int, typer.Option(help="Images that the whole of AutoAttack is run on.")] = 100,
    full_steps: Annotated[int, typer.Option(help="Steps of its APGD.")] = 100,
    queries: Annotated[int, typer.Option(help="Queries of its Square.")] = 5000,
) -> None:
    """Compare the robust accuracy that PGD, APGD and AutoAttack leave with that under Foolbox's and torchattacks'."""
    import_module("benchmarks.robust").run(data, model, weights, count, epsilon, steps, few, full_steps, queries)


@app.command()
def aware(
    data: Annotated[
        str, typer.Option(help="An .npz with the arrays eval_images (n,h,w,3), uint8, and eval_labels (n,).")
    ],
    model: Annotated[str, typer.Option(help="path/to/file.py:factory of a classifier for these images.")],
    attacks: Annotated[list[str], typer.Argument(help="Attacks, such as 'aware(epsilon=4/255)'.")],
    weights: Annotated[str | None, typer.Option(help="Its weights.")] = None,
    count: Annotated[int, typer.Option(help="Images, all classified correctly.")] = 100,
) -> None:
    """Compare the maps that an explanation-aware attack leaves with those under attacks that know nothing of them."""
    import_module("benchmarks.aware").run(data, model, weights, count, attacks)


@app.command()
def studies(
    data: Annotated[str, typer.Option(help="A source of small images, such as an .npz file.")],
    model: Annotated[str, typer.Option(help="path/to/file.py:factory of a classifier for them.")],
    weights: Annotated[str | None, typer.Option(help="Its weights.")] = None,
    few: Annotated[
        int, typer.Option(help="Images of the timed runs, and of the first that memory is measured on.")
    ] = 200,
    many: Annotated[int, typer.Option(help="Images of the second.")] = 2000,
    repeats: Annotated[int, typer.Option(help="Timed repeats; the median counts.")] = 5,
) -> None:
    """Compare the runner of studies with a plain loop, and its peak memory on few images with that on many."""
    import_module("benchmarks.studies").run(data, model, weights, few, many, repeats)


@app.command()
def costs(
    data: Annotated[str, typer.Option(help="A source of images, as for whyfooled study.")],
    study: Annotated[str, typer.Option(help="The study.")] = "attack-outcome",
    model: Annotated[str, typer.Option(help="As for whyfooled study.")] = "lite0",
    weights: Annotated[str | None, typer.Option(help="Its weights.")] = None,
    sample: Annotated[int, typer.Option(help="Images that the cost model is made of.")] = 16,
    check: Annotated[str, typer.Option(help="Numbers of images to check it at, separated by commas.")] = "",
    images: Annotated[int, typer.Option(help="Images to predict for.")] = 50_000,
    machines: Annotated[str, typer.Option(help="Numbers of machines to predict for.")] = "1,8,64",
    cores: Annotated[int, typer.Option(help="Cores of each machine.")] = 16,
) -> None:
    """Predict how long a study takes on many images and machines, from a few images; check it at other numbers."""
    counts, of_machines = ([int(part) for part in text.split(",") if part] for text in (check, machines))
    import_module("benchmarks.costs").run(study, data, model, weights, sample, counts, images, of_machines, cores)


@app.command()
def regions(
    repeats: Annotated[int, typer.Option(help="Timed pairs of runs; the median counts.")] = 5,
    cell: Annotated[int, typer.Option(help="Side of a region, in pixels.")] = 32,
    models: Annotated[str, typer.Option(help="Models, separated by commas.")] = "lite0,resnet50,vgg16",
) -> None:
    """Compare exact sensitivity with Captum's FeatureAblation: logits, time, forward passes, memory."""
    import_module("benchmarks.regions").run(repeats, cell, models)


@app.command()
def universal(
    data: Annotated[
        str | None, typer.Option(help="A source of images, such as FILE.npz:PREFIX; random pictures if left out.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A classifier for them; a small network if left out.")] = None,
    weights: Annotated[str | None, typer.Option(help="Its weights.")] = None,
    count: Annotated[int, typer.Option(help="Images that are fitted to; as many others are evaluated on.")] = 200,
    repeats: Annotated[int, typer.Option(help="Timed pairs of runs; the median counts.")] = 5,
    few: Annotated[int, typer.Option(help="Images of the first fits that memory is measured on.")] = 200,
    many: Annotated[int, typer.Option(help="Images of the second.")] = 2000,
) -> None:
    """Compare UPI-PCA with a dense singular value decomposition; measure what a pass costs, memory and passes."""
    import_module("benchmarks.universal").run(data, model, weights, count, repeats, few, many)


@app.command()
def units(
    concepts: Annotated[
        str | None, typer.Option(help="Annotated images, as for `whyfooled dissect`; random ones if left out.")
    ] = None,
    model: Annotated[str, typer.Option(help="A classifier.")] = "torchvision:resnet18",
    weights: Annotated[str | None, typer.Option(help="Its weights.")] = "random",
    layer: Annotated[str, typer.Option(help="The layer.")] = "layer4",
    repeats: Annotated[int, typer.Option(help="Timed repeats of each entry; the median counts.")] = 3,
    few: Annotated[int, typer.Option(help="Images of the smaller dissection whose memory is measured.")] = 60,
    many: Annotated[int, typer.Option(help="Images of the larger one.")] = 600,
) -> None:
    """Compare dissection with a loop over images and units; the peak of memory over few and over many images."""
    import_module("benchmarks.units").run(concepts, model, weights, layer, repeats, few, many)


@app.command()
def hostile(
    minutes: Annotated[float, typer.Option(help="How long it may take; fewer files and kills where it is short.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the damages and of the moments.")] = 0,
) -> None:
    """Damage files of every format that is read, kill commands at random moments, and count what must not happen."""
    import_module("benchmarks.hostile").run(minutes, seed)


@app.command()
def families(
    only: Annotated[str, typer.Option(help="Families, separated by commas; all if left out.")] = "",
    methods: Annotated[str, typer.Option(help="Methods, separated by commas; all, and explain, if left out.")] = "",
) -> None:
    """Try every saliency method on a small model of every family of timm, and write docs/families.md."""
    import_module("benchmarks.families").run(*(filter(None, given.split(",")) for given in (only, methods)))


if __name__ == "__main__":
    sys.exit(app())
