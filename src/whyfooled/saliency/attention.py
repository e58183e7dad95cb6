"""What a transformer attends to: rollout, and attention weighted by the gradient of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.axes import Axes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.dependence import check_recording, operation, walk
from whyfooled.errors import MethodError
from whyfooled.registry import Card
from whyfooled.saliency._spatial import ChosenOutput, at_image_size, run_to_layer
from whyfooled.saliency.backward.attended import AttentionWeights
from whyfooled.saliency.backward.gradients import check_pairs, own_copy
from whyfooled.types import Images, Logits, ManyClasses, ManyMaps


@final
@dataclass(frozen=True)
class AttentionRollout:
    """Attention rollout: the attention of all blocks multiplied, with a half of each token staying where it is.

    ``R = Ã_L ⋯ Ã_1``, ``Ã = (mean over heads of A + 1) / 2`` (Abnar & Zuidema 2020, sec. 3). The map is the row of the
    token that the logits are read from, at the tokens of the patches, brought to the images' size bilinearly; the mean
    of the rows where they are read from several, as where tokens are pooled. [ours]

    It knows nothing of the class: every class has the same map. So it is a control for maps of a transformer, and no
    explanation of a prediction.

    For transformers whose tokens stay the same in every block (ViT, DeiT, EVA, BEiT); windows and tokens that are
    merged on the way (Swin, PVT) raise `MethodError`.
    """

    card: ClassVar[Card] = Card(
        name="attention-rollout",
        title="Attention rollout",
        summary="Which patches a transformer's output token attends to through all blocks, whatever the class: a "
        "control.",
        source="Abnar & Zuidema 2020, arXiv 2005.00928, sec. 3",
        cost="1 forward, 1 backward to the last attention for each class",
    )

    @one_thread()
    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps, at least 0: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k).

        Raises
        ------
        MethodError
            If the model has no attention between all tokens of the image, or another kind of it besides.
        """
        attended = _attend(classifier, images, classes, self.card, every_block=False)
        rolled = attended.unmixed
        for weights in attended.weights:
            rolled = (weights.mean(1) + attended.unmixed) / 2 @ rolled
        return attended.to_maps([rolled] * len(attended.slopes), images, classes)


@final
@dataclass(frozen=True)
class AttentionRelevance:
    """Attention weighted by the gradient of a class, block by block (Chefer, Gur & Wolf 2021).

    ``R ← R + Ā R`` from the first block to the last, ``R = 1`` before it, ``Ā`` the mean over heads of
    ``max(A · ∂z/∂A, 0)`` (eq. 5 and 6). The map is the row of the token that the logits are read from, at the tokens of
    the patches, without the 1, brought to the images' size bilinearly; the mean of the rows where they are read from
    several, as where tokens are pooled. [ours]

    For the same transformers as `AttentionRollout`.
    """

    card: ClassVar[Card] = Card(
        name="attention-relevance",
        title="Gradient-weighted attention",
        summary="Which patches a transformer's output token attends to in favour of the class, through all blocks.",
        source="Chefer, Gur, Wolf 2021, arXiv 2103.15679, sec. 3.1",
        cost="1 forward, 1 backward to the first attention for each class",
    )

    @one_thread()
    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps, at least 0: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k).

        Raises
        ------
        MethodError
            If the model has no attention between all tokens of the image, or another kind of it besides.
        """
        attended = _attend(classifier, images, classes, self.card, every_block=True)
        relevances = []
        for slopes in attended.slopes:
            relevance = attended.unmixed
            for weights, slope in zip(attended.weights, slopes, strict=True):
                relevance = relevance + (weights * slope).clamp_min(0).mean(1) @ relevance
            relevances.append(relevance - attended.unmixed)
        return attended.to_maps(relevances, images, classes)


class _Attended(NamedTuple):
    """What a transformer attended to in a forward pass.

    Parameters
    ----------
    weights
        (n, heads, tokens, tokens) The weights of each attention, the first block's first.
    slopes
        For each class, the gradients of its logit by them, or by the last alone.
    axes
        Which token is where.
    """

    weights: Sequence[Tensor]
    slopes: Sequence[Sequence[Tensor]]
    axes: Axes

    @property
    def unmixed(self) -> Tensor:
        """(tokens, tokens) Each token as it is."""
        return torch.eye(self.weights[0].shape[-1]).to(self.weights[0])

    def to_maps(self, mixtures: Sequence[Tensor], images: Images, classes: ManyClasses) -> ManyMaps:
        """Read a map off (n, tokens, tokens) for each class: the rows of the tokens that its logit is read from."""
        grids = []
        for mixture, slopes in zip(mixtures, self.slopes, strict=True):
            # Whatever of the last attention goes nowhere has no gradient.
            read = (slopes[-1] != 0).any(-1).any(1).to(mixture)
            rows = torch.einsum("nt,ntu->nu", read / read.sum(1, keepdim=True).clamp_min(1), mixture)
            grids.append(self.axes.to_grid(rows.unsqueeze(self.axes.channels)))
        maps = at_image_size(torch.stack(grids, 1), images)
        return maps if classes.ndim == 2 else maps[:, 0]


def _attend(
    classifier: Classifier, images: Images, classes: ManyClasses, card: Card, *, every_block: bool
) -> _Attended:
    """Run a transformer, and differentiate the classes' logits by the weights of its attention, or of the last one."""
    check_pairs(images, classes)
    check_recording(classifier.module)
    columns = classes.long().reshape(len(classes), -1).T
    with torch.enable_grad():
        with AttentionWeights() as calls:
            logits, output = _run_to_tokens(classifier, own_copy(images, create_graph=False), card)
        check_classes(classes, logits)
        chosen = [logits.gather(1, column[:, None].to(logits.device)).sum() for column in columns]
    nodes = set(walk(logits))
    mixing = [weights for weights in calls.found if weights.grad_fn in nodes]
    _check_weights(mixing, sum(map(_is_attention, nodes)), output, card)
    by = mixing if every_block else mixing[-1:]
    slopes = [torch.autograd.grad(one, by, retain_graph=True) for one in chosen]
    return _Attended([weights.detach() for weights in mixing], slopes, output.axes)


def _run_to_tokens(classifier: Classifier, images: Images, card: Card) -> tuple[Logits, ChosenOutput]:
    """Run the forward pass; return the logits, and the last output whose tokens have places."""
    try:
        return run_to_layer(classifier, images, None, card)
    except MethodError as error:
        raise MethodError(
            f"{card.title} needs tokens that stand for patches of the image up to the last attention; those of this "
            f"model do not. {_ADVICE}"
        ) from error


_ADVICE = "Use gradient or gradcam, which need no attention."


def _is_attention(node: Any) -> bool:
    return any(kind in operation(node.name()) for kind in ("Softmax", "ScaledDotProduct"))


def _check_weights(mixing: Sequence[Tensor], softmaxes: int, output: ChosenOutput, card: Card) -> None:
    """Raise `MethodError` unless these are all the attention that there is, between the same tokens each time."""
    if not softmaxes:
        raise MethodError(f"{card.title} needs attention; this model has none. {_ADVICE}")
    if len(mixing) != softmaxes:
        raise MethodError(
            f"{card.title} needs attention that weights its values by a softmax as it is; of the {softmaxes} softmaxes "
            f"of this model {len(mixing)} are used so, the others in another way, such as mixed between heads. "
            f"{_ADVICE}"
        )
    tokens = output.value.shape[output.axes.rows]
    wrong = [each for each in mixing if each.shape[::3] != (len(output.value), tokens) or each.shape[2:3] != (tokens,)]
    if wrong or not output.axes.tokens:
        raise MethodError(
            f"{card.title} needs attention between all tokens, the same in every block; this model has another "
            f"({' × '.join(map(str, (wrong or mixing)[0].shape))} weights for {len(output.value)} images), as in "
            f"windows or where tokens are merged. {_ADVICE}"
        )
