"""A universal perturbation: one for all images, with everything needed to use it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes
from whyfooled.errors import ImageError, ParameterError, bad_parameter, one_of, positive
from whyfooled.images import is_file
from whyfooled.running.kept import (
    DamagedError,
    FileKind,
    is_count,
    is_number,
    is_text,
    list_of,
    maybe,
    parts_of,
    read_kept_tensors,
    record_of,
    write_kept_tensors,
)
from whyfooled.running.publishing import hide_folders
from whyfooled.tensors.balls import BALLS, Ball, length
from whyfooled.types import Image, Images

_KIND = FileKind(
    "universal perturbation",
    2,
    "whyfooled universal fit",
    {
        "epsilon": is_number,
        "ball": lambda value: value in BALLS,
        **dict.fromkeys(("method", "saliency", "model", "model_digest"), is_text),
        "fitted_to": maybe(list_of(is_text)),
        "looks": maybe(list_of(is_text)),
        # The first files did not say how many images there were.
        "images": maybe(is_count),
        "wrong": maybe(is_count),
        "history": list_of(record_of(is_number)),
        "forwards": is_count,
        "backwards": is_count,
        "versions": record_of(is_text),
        "altered": maybe(
            parts_of(
                {
                    **dict.fromkeys(("share", "low", "high", "chance"), is_number),
                    "images": is_count,
                    **dict.fromkeys(("saliency", "model", "model_digest"), is_text),
                }
            )
        ),
    },
)


@final
@dataclass(frozen=True)
class Altered:
    """On what share of images a perturbation alters the maps, further than 95 % of random directions would.

    Parameters
    ----------
    share, low, high
        The share, with its 95 % interval; values brought back to [0, 1].
    chance
        The share that one random direction of the same norm alters; NaN if too few were tried.
    images
        Of how many images, none of them fitted to.
    saliency, model, model_digest
        Whose maps, and of which classifier.
    """

    share: float
    low: float
    high: float
    chance: float
    images: int
    saliency: str
    model: str
    model_digest: str


@final
@dataclass(frozen=True, eq=False, repr=False)
class UniversalPerturbation:
    """One perturbation that is added to any image.

    Parameters
    ----------
    delta
        (c,h,w) The perturbation, for values in [0, 1], on the CPU.
    epsilon
        Radius of the ball that it was kept in, for values in [0, 1].
    ball
        ``"l2"``: `epsilon` bounds its Euclidean length; ``"linf"``: its largest value.
    method
        How it was found, as on the command line; what it is called, if it was made elsewhere.
    saliency
        Whose maps it was fitted to break, as on the command line; "" if it was not fitted to maps.
    model, model_digest
        The classifier that it was fitted on, and a digest of its weights; "" if there was none.
    fitted_to
        Digests of the images that it was fitted to, before and after they were brought to the classifier's input size.
        None if they are not known.
    looks
        What these images look like: their `whyfooled.images.perceptual_hash`.
    images, wrong
        How many images it was fitted to, and how many were left out because the classifier misclassifies them; 0 if
        that is not known.
    history
        What every step of the fit came to, such as ``{"dissimilarity": 0.8}``.
    passes
        Forward and backward passes of the fit, over all images. A map that is differentiated takes two backward passes.
    versions
        Of Python and of the packages that numbers depend on.
    altered
        On what share of other images it alters the maps, if that was measured.

    Raises
    ------
    ParameterError
        If the perturbation has another shape or values that are not finite, or the ball cannot be.
    """

    delta: Image
    epsilon: float
    ball: Ball = "l2"
    method: str = "made elsewhere"
    saliency: str = ""
    model: str = ""
    model_digest: str = ""
    fitted_to: frozenset[str] | None = None
    looks: frozenset[str] = frozenset()
    images: int = 0
    wrong: int = 0
    history: tuple[Mapping[str, float], ...] = ()
    passes: Passes = field(default_factory=Passes)
    versions: Mapping[str, str] = field(default_factory=dict)
    altered: Altered | None = None

    def __post_init__(self) -> None:
        if self.delta.ndim != 3 or not self.delta.numel():
            raise bad_parameter("delta", "must have the shape (c, h, w)", tuple(self.delta.shape))
        if not torch.isfinite(self.delta).all():
            raise bad_parameter("delta", "must have finite values", "others")
        positive("epsilon", self.epsilon)
        one_of("ball", self.ball, BALLS)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.delta.shape))
        return f"UniversalPerturbation({self.method}, {shape}, {self.size_text()})"

    @property
    def l2(self) -> float:
        """Its Euclidean length, for values in [0, 1]."""
        return float(length(self.delta[None]))

    @property
    def linf(self) -> float:
        """Its largest absolute value, for values in [0, 1]."""
        return float(self.delta.abs().max())

    def size_text(self) -> str:
        """Write its norms on both scales of pixel values."""
        return (
            f"l2 {self.l2:.4g} (of values from 0 to 255: {255 * self.l2:.4g}), "
            f"l-infinity {self.linf:.4g} ({255 * self.linf:.3g}/255)"
        )

    def apply(self, images: Images, *, clip: bool = True) -> Images:
        """Add it to (n,c,h,w) images; `clip` brings the values back to [0, 1], and so makes it smaller in places.

        Raises
        ------
        ImageError
            If the images have another size.
        """
        self.check_fits(tuple(images.shape[1:]))
        perturbed = images + self.delta.to(images)
        return perturbed.clamp(0, 1) if clip else perturbed

    def check_fits(self, shape: tuple[int, ...]) -> None:
        """Raise `ImageError` unless images of a shape (c,h,w) have its size."""
        delta_shape = tuple(self.delta.shape)
        if delta_shape == shape:
            return
        height, width = shape[-2:]
        fix = (
            f" To resize it: perturbation.resized(({height}, {width})), on the command line --resize."
            if delta_shape[0] == shape[0]
            else ""
        )
        raise ImageError(f"The perturbation must have the size of the images, {shape}; got {delta_shape}.{fix}")

    def transfer_note(self, classifier: Classifier) -> str:
        """Say in a sentence that it was made on another model than this one; "" if it was not, or that is not known."""
        if self.model_digest in ("", classifier.digest()):
            return ""
        other = f"on another model, {self.model}"
        if self.model == hide_folders(classifier.name):
            other = f"on a {self.model} with other weights"
        return f"The universal perturbation was made {other}: what it does here is transfer."

    def resized(self, size: tuple[int, int]) -> UniversalPerturbation:
        """Bring it to another height and width, bilinearly, and then to the norm that it had.

        The paper does not resize [ours]. The norm is that of its ball, so that `epsilon` says the same as before. What
        it alters is not known any more.
        """
        if min(size) < 1:
            raise bad_parameter("size", "must be a height and a width of at least 1", size)
        delta = F.interpolate(self.delta[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        before, after = (
            (one.square().sum().sqrt() if self.ball == "l2" else one.abs().max()) for one in (self.delta, delta)
        )
        return replace(self, delta=delta * (before / after if after > 0 else 1.0), altered=None)

    def save(self, path: str | Path) -> None:
        """Write it to a safetensors file, whole or not at all; `load` reads it.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        about = {
            "epsilon": self.epsilon,
            "ball": self.ball,
            "method": self.method,
            "saliency": self.saliency,
            "model": self.model,
            "model_digest": self.model_digest,
            "fitted_to": None if self.fitted_to is None else sorted(self.fitted_to),
            "looks": sorted(self.looks),
            "images": self.images,
            "wrong": self.wrong,
            "history": [dict(step) for step in self.history],
            "forwards": self.passes.forwards,
            "backwards": self.passes.backwards,
            "versions": dict(self.versions),
            "altered": None if self.altered is None else asdict(self.altered),
        }
        write_kept_tensors(Path(path), _KIND, {"delta": self.delta.float()}, about)

    @classmethod
    def load(cls, path: str | Path) -> UniversalPerturbation:
        """Read what `save` wrote.

        Raises
        ------
        ImageError
            If there is no such file, or it is not one of a universal perturbation, or damaged.
        """
        path = Path(path)
        if not is_file(path):
            raise ImageError(f"There is no file {path} with a universal perturbation.")
        try:
            about, tensors = read_kept_tensors(path, _KIND)
            delta = tensors.get("delta")
            if delta is None or delta.ndim != 3 or not delta.is_floating_point():
                raise DamagedError
            return _from(delta, about)
        except (OSError, DamagedError, ParameterError):
            raise ImageError(
                f"{path} is not a universal perturbation of `whyfooled universal fit`, or is damaged."
            ) from None


def _from(delta: Tensor, about: Mapping[str, Any]) -> UniversalPerturbation:
    fitted_to, altered = about["fitted_to"], about.get("altered")
    return UniversalPerturbation(
        delta=delta.float(),
        epsilon=float(about["epsilon"]),
        ball=about["ball"],
        method=about["method"],
        saliency=about["saliency"],
        model=about["model"],
        model_digest=about["model_digest"],
        fitted_to=None if fitted_to is None else frozenset(fitted_to),
        looks=frozenset(about.get("looks") or ()),
        images=about.get("images") or 0,
        wrong=about.get("wrong") or 0,
        history=tuple(about["history"]),
        passes=Passes(about["forwards"], about["backwards"]),
        versions=about["versions"],
        altered=None if altered is None else Altered(**{one.name: altered[one.name] for one in fields(Altered)}),
    )
