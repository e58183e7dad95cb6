"""UPI-PCA: the direction that most maps change along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import at_least, positive
from whyfooled.registry import Card
from whyfooled.saliency.differentiable import DifferentiableMethod
from whyfooled.saliency.interpretations import check_beta, smoothed
from whyfooled.tensors.randomness import normal
from whyfooled.types import Image
from whyfooled.universal._choice import MapsMoved, choose_best
from whyfooled.universal._fitting import Fitting, Part, make_flat_error
from whyfooled.universal._losses import loss_slopes
from whyfooled.universal._method import UniversalMethod
from whyfooled.universal.maps import interpret, slopes


@final
@dataclass(frozen=True)
class UPIPCA(UniversalMethod):
    """Universal perturbation of interpretations by principal component analysis (Ehsani Oskouie & Farnia 2022, sec. 4).

    To first order, the best δ is the top right singular vector of the matrix whose rows are the slopes of the
    dissimilarity, ``g(x) = E_Z ∇D(x, Z)``, for every image x and Gaussian noise Z. A stochastic power method finds it:
    each pass over the images computes ``Σ g (g·v)`` with new noise, so no row is ever kept. Several vectors are turned
    at once, towards the leading singular vectors [ours]; that converges faster and costs next to nothing, because the
    passes' work is in the slopes.

    With a `contrast` λ it is UPI-PCA⁺: the top eigenvector of ``Σ g gᵀ − λ Σ h hᵀ`` with the slopes h of the
    classification loss, to change the map and leave the prediction [ours, after the authors' public experiments].

    A singular vector has no sign, and the leading singular values of real networks are nearly equal, so that the first
    vector is hardly ahead of the next. Of all that are turned, with both signs, the one is taken that changes the maps
    of the fitting images most, on the true network [ours]; with a `contrast`, of the first with both signs. In the
    l-infinity ball it is the signs of the vector's values [ours].

    Parameters
    ----------
    contrast
        λ, at least 0; 0 leaves the predictions to themselves.
    passes
        Passes over the images. [ours]
    samples
        Noise drawn for a row in every pass, and averaged. [ours]
    vectors
        How many leading singular vectors are sought, and tried at the end; 1 is the paper's. [ours]
    normalise
        Whether rows are divided by their length, so that every image counts the same. [ours]
    noise
        Length of Z, as a share of that of the largest perturbations in the ball; its σ is that over the square root of
        the number of values. Small noise gives the slopes at the image itself, long noise those where δ leads. [ours]
    beta
        Sharpness of the smooth activations, see `whyfooled.saliency.smooth_activations`; None for the true ones.
    """

    contrast: float = 0.0
    passes: int = 3
    samples: int = 4
    vectors: int = 4
    normalise: bool = True
    noise: float = 2.0
    beta: float | None = 10.0

    card: ClassVar[Card] = Card(
        name="pca",
        title="UPI-PCA",
        summary="The direction along which most maps change, to first order.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, sec. 4, algorithm 2",
        cost="1 forward; for each of `passes` 1 map and `samples` maps that are differentiated, with `contrast` a "
        "gradient more; at the end 1 + 2 x `vectors` maps",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("contrast", self.contrast, 0)
        at_least("passes", self.passes, 1)
        at_least("samples", self.samples, 1)
        at_least("vectors", self.vectors, 1)
        # At the image itself D has its minimum, 0, and no slope.
        positive("noise", self.noise)
        check_beta(self.beta)

    def find(self, fit: Fitting) -> Image:
        """Turn random vectors towards the top singular vectors, and choose the sign of the first."""
        generator = torch.Generator().manual_seed(self.seed)
        wide = torch.Size(fit.shape).numel()
        basis = _orthonormalise(torch.randn(min(self.vectors, wide), wide, generator=generator, dtype=torch.float64))
        sigma = self.noise_size(self.noise, fit.shape)
        for number in range(self.passes):
            step = PowerStep(fit.saliency, basis.float(), sigma, self.samples, self.contrast, self.normalise, self.beta)
            sums = fit.total(step, doing=f"pass {number + 1} of {self.passes}")
            if not sums["promoted"].any():
                raise make_flat_error(self.beta)
            before = basis[0]
            product = (sums["promoted"] - self.contrast * sums["restrained"]) / len(fit.classes)
            values, rotation = torch.linalg.eigh(basis @ product.T)
            # Indefinite with a contrast: shifted, so that the largest eigenvalue is the one of largest size too.
            turned = rotation.T @ (product + max(0.0, -float(values[0])) * basis)
            basis = _orthonormalise(turned.flip(0))
            fit.history.append({"eigenvalue": float(values[-1]), "agreement": float((basis[0] @ before).abs())})
        tried = [self.largest(vector.view(fit.shape).float()) for vector in (basis[:1] if self.contrast else basis)]
        return choose_best(fit, tried, MapsMoved(fit.saliency), "dissimilarity")


@final
@dataclass(frozen=True, eq=False)
class PowerStep:
    """The product of the rows' Gram matrix and several vectors, on a part: ``Σ g (g·v)``, and the same for h."""

    saliency: DifferentiableMethod
    basis: Tensor
    sigma: float
    samples: int
    contrast: float
    normalise: bool
    beta: float | None

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add up the products of the slopes and, with a contrast, of the losses' slopes."""
        with smoothed(self.beta):
            clean = interpret(self.saliency, classifier, part.images, part.classes)
        generators = part.generators()
        rows = torch.zeros_like(part.images)
        for _ in range(self.samples):
            noisy = part.images + self.sigma * normal(part.images, generators)
            rows += slopes(self.saliency, classifier, noisy, part.classes, clean, self.beta)[0] / self.samples
        sums = {"promoted": self._multiply(rows), "restrained": torch.zeros((), dtype=torch.float64)}
        if self.contrast:
            sums["restrained"] = self._multiply(loss_slopes(classifier, part.images, part.classes)[0])
        return sums

    def _multiply(self, slopes: Tensor) -> Tensor:
        rows = slopes.flatten(1)
        if self.normalise:
            # In double precision: in single, the squares of short rows are 0.
            rows = F.normalize(rows.double(), dim=1, eps=torch.finfo(rows.dtype).tiny).to(rows)
        basis = self.basis.to(rows)
        return (basis @ rows.T) @ rows


def _orthonormalise(rows: Tensor) -> Tensor:
    """Make (k,p) rows orthonormal, each in the span of itself and those before it."""
    basis: Tensor = torch.linalg.qr(rows.T).Q
    return basis.T
