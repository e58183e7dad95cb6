"""Which steps of a network a rule at the ReLUs may leave as they are: a list of what is known, and all else by name.

The rules at a ReLU are another backward pass at rectifiers; by their definition everything else keeps its gradient. So
a network is right if it has no rectifier but those that the rule met, and no other activation, for which the rule says
nothing. A step keeps its gradient that is known to be

* linear, or moves values: convolutions, matrix products, sums, means, interpolation, shapes;
* a choice of one value among several places or signals: max pooling, the largest of different signals;
* a normalisation, by the batch's, a layer's or a vector's statistics, or softmax, also where it is written out: squares
  that are summed up, and roots and powers of such sums;
* a gate: sigmoid, tanh and their hard forms, gated linear units, attention, and a product of two signals that are made
  of different values.

Whatever else works on each value by itself, or multiplies it by a function of itself, is an activation. It is refused
by name, and so is what nothing is known of, such as a model's own `torch.autograd.Function`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from whyfooled.classifier.dependence import operation
from whyfooled.saliency.backward.flow import MOVING
from whyfooled.saliency.backward.followed import Followed
from whyfooled.saliency.backward.gates import NODES as GATED_NODES
from whyfooled.saliency.backward.graph import nodes_between

# fmt: off
_LINEAR = frozenset((
    "Add", "Sub", "Rsub", "Neg", "Sum", "Mean", "Nansum", "Nanmean", "Cumsum", "Diff", "Trace", "Convolution",
    "ConvolutionOverrideable", "SlowConv3D", "ThnnConv2D", "MkldnnConvolution", "Linear", "MkldnnLinear", "Addmm",
    "Addbmm", "Addmv", "Addr", "Baddbmm", "Bmm", "Mm", "Mv", "Dot", "Vdot", "Ger", "Trilinear", "AvgPool2D",
    "AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "MkldnnAdaptiveAvgPool2D", "UpsampleNearest1D",
    "UpsampleNearest2D", "UpsampleNearest3D", "UpsampleNearestExact1D", "UpsampleNearestExact2D",
    "UpsampleNearestExact3D", "UpsampleLinear1D", "UpsampleBilinear2D", "UpsampleBilinear2DAa", "UpsampleBicubic2D",
    "UpsampleBicubic2DAa", "UpsampleTrilinear3D", "GridSampler2D", "GridSampler3D", "CudnnGridSampler",
    "AffineGridGenerator", "Col2Im", "FftR2C", "FftC2C", "FftC2R", "Real", "Imag", "Complex", "ViewAsReal",
    "ViewAsComplex", "Conj", "ConjPhysical", "NativeDropout", "IndexAdd", "Embedding",
))
_MOVING = MOVING.difference(("Where", "MaskedFill", "Maximum", "Index", "IndexPut")) | frozenset((
    "Contiguous", "Detach", "Diag", "DiagonalScatter", "Movedim", "Narrow", "Reshape", "SelectScatter", "Tril", "Triu",
    "ReflectionPad3D", "ReplicationPad1D", "ReplicationPad3D", "UnfoldCopy", "NestedTensor", "ExpandCopy", "ViewCopy",
))
_CHOOSING = frozenset((
    "Amin", "Min", "Aminmax", "Median", "Nanmedian", "Mode", "Kthvalue", "Sort", "Topk", "Cummax", "Cummin",
    "MaxPool3D", "FractionalMaxPool3D", "MaxUnpool2D", "MaxUnpool3D", "Take",
))
_NORMALISING = frozenset((
    "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "BatchNormImpl", "NativeLayerNorm", "NativeGroupNorm",
    "FusedRmsNorm", "RmsNorm", "Softmax", "LogSoftmax", "Logsumexp", "Norm", "LinalgVectorNorm", "Std", "Var",
    "StdMean", "VarMean", "Renorm", "Dist", "Cdist", "CdistForward", "EuclideanDist",
))
_GATES = frozenset((
    "Sigmoid", "Tanh", "Hardsigmoid", "Glu", "ScaledDotProductFlashAttention", "ScaledDotProductFlashAttentionForCpu",
    "ScaledDotProductEfficientAttention", "ScaledDotProductCudnnAttention", "EfficientAttentionForward",
    "FlashAttentionForward", "ThnnFusedLstmCell", "ThnnFusedGruCell", "CudnnRnn",
    "MiopenRnn", "MkldnnRnnLayer", "Lstm", "LstmMps",
))
_BY_CALL = frozenset((
    "Mul", "Div", "Where", "MaskedFill", "Maximum", "Minimum", "Fmax", "Fmin", "Index", "IndexPut", "IndexFill",
    "Scatter", "ScatterAdd", "ScatterReduce", "Addcmul", "Addcdiv", "Lerp",
))
_OWN = frozenset(("BackwardHookFunction", "_Count", "_Ruled", "_RescaledReLU", "_RescaledMaxPool",
                  "_RescaledActivation", "_RescaledMaxPoolAgain"))
_BETWEEN = frozenset((
    "Add", "Sub", "Rsub", "Mul", "Div", "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Expand", "Clone",
    "Clamp", "ClampMin", "Maximum", "Sqrt", "Rsqrt", "Reciprocal", "AvgPool2D", "AvgPool3D", "ConstantPadNd",
))
# fmt: on
_KEEPING = _LINEAR | _MOVING | _CHOOSING | _NORMALISING | _GATES
_POWERS = ("Pow", "Abs", "Mul")
_SUMMING = ("Sum", "Mean", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D")
_STATISTICS = ("Norm", "LinalgVectorNorm", "Std", "Var", "StdMean", "VarMean")
_ROOTS = ("Sqrt", "Rsqrt", "Reciprocal", "Pow")
_GUARDS = ("Clamp", "ClampMin", "Maximum")


class _Graph:
    """The nodes of the graph between images and logits, and what takes what each of them gives."""

    def __init__(self, logits: Tensor, images: Tensor) -> None:
        every = nodes_between(logits.grad_fn, {images.grad_fn})
        self.consumers: dict[Any, list[Any]] = {node: [] for node in every}
        self._rooted: dict[Any, bool] = {}
        self._of_sums: dict[Any, bool] = {}
        begin = []
        for node in every:
            for following, _ in node.next_functions:
                self.consumers.setdefault(following, []).append(node)
            if getattr(node, "variable", None) is images:
                begin.append(node)
        # What depends on parameters alone is a constant.
        waiting = [images.grad_fn] if images.grad_fn is not None else begin
        self.nodes: set[Any] = set()
        while waiting:
            for consumer in self.consumers.get(waiting.pop(), ()):
                if consumer not in self.nodes:
                    self.nodes.add(consumer)
                    waiting.append(consumer)

    def is_statistic(self, node: Any) -> bool:
        """Tell whether a node is a part of a normalisation: a power that is summed up for a root, or such a root."""
        name = operation(node.name())
        if name in _POWERS and self._is_summed(node, name):
            return True
        return name in (*_ROOTS, *_GUARDS) and self._is_of_sums(node)

    def _is_summed(self, node: Any, name: str) -> bool:
        first, *others = node.next_functions
        sums = self.consumers[node]
        is_power = name != "Mul" or others == [first]
        are_rooted = [operation(each.name()) in _SUMMING and self._is_rooted(each) for each in sums]
        return is_power and bool(sums) and all(are_rooted)

    def _is_rooted(self, node: Any) -> bool:
        """Tell whether what a node gives is only taken by roots, or divided by."""
        if node not in self._rooted:
            self._rooted[node] = bool(self.consumers[node]) and all(
                self._roots(each, node) for each in self.consumers[node]
            )
        return self._rooted[node]

    def _roots(self, consumer: Any, node: Any) -> bool:
        name = operation(consumer.name())
        if name in _ROOTS or (name == "Div" and consumer.next_functions[1][0] is node):
            return True
        return name in _BETWEEN and self._is_rooted(consumer)

    def _is_of_sums(self, node: Any) -> bool:
        """Tell whether a node takes statistics, such as sums of powers, and nothing else that depends on the images."""
        if node not in self._of_sums:
            before = self._before(node)
            self._of_sums[node] = bool(before) and all(map(self._gives_statistic, before))
        return self._of_sums[node]

    def _gives_statistic(self, node: Any) -> bool:
        name = operation(node.name())
        if name in _SUMMING and all(operation(each.name()) in _POWERS for each in self._before(node)):
            return True
        return name in _STATISTICS or (name in _BETWEEN and self._is_of_sums(node))

    def _before(self, node: Any) -> list[Any]:
        return [following for following, _ in node.next_functions if following in self.nodes]


class Steps(NamedTuple):
    """What is found between images and logits.

    Parameters
    ----------
    unknown
        In words, what may be an activation without a rule.
    unseen
        The names of nodes that stand for a ReLU that was not seen, or for a part that may hide one.
    """

    unknown: set[str]
    unseen: set[str]


_UNSEEN = ("Relu", "Threshold", "torch::jit", "DifferentiableGraph")
_HIDING = ("CompiledFunction", "CheckpointFunction")


def steps_between(logits: Tensor, images: Tensor, followed: Followed, smooth: Collection[str] = ()) -> Steps:
    """Look at all steps of a network.

    Parameters
    ----------
    logits, images
        Where it ends and begins.
    followed
        What is known of the pass.
    smooth
        More operations that may stay. If there are any, only what may not be smooth is in doubt.
    """
    graph = _Graph(logits, images)
    unknown = {doubt.step for doubt in followed.unseen if doubt.bends or not smooth}
    unseen = set()
    for node in graph.nodes - followed.whole:
        name, doubt = operation(node.name()), followed.doubts.get(node)
        if _is_unseen(node, name, followed):
            unseen.add(node.name())
        elif graph.is_statistic(node) or (doubt is not None and smooth and not doubt.bends):
            continue
        elif doubt is not None:
            unknown.add(doubt.step)
        elif not _is_known(node, name, followed, smooth):
            unknown.add(_title(node, name))
    return Steps(unknown, unseen)


def _is_unseen(node: Any, name: str, followed: Followed) -> bool:
    if isinstance(node, BackwardCFunction):
        return name.startswith(_HIDING)
    if followed.gates and name in GATED_NODES:
        # One that was seen and left as it is has no gate.
        return node not in followed.known
    return node.name().startswith(_UNSEEN) and not (name == "Threshold" and node in followed.known)


def _is_known(node: Any, name: str, followed: Followed, smooth: Collection[str]) -> bool:
    if isinstance(node, BackwardCFunction):
        return name in _OWN
    return name in _KEEPING or name in smooth or (name in _BY_CALL and node in followed.known)


def _title(node: Any, name: str) -> str:
    if isinstance(node, BackwardCFunction):
        return f"{name} (a torch.autograd.Function)"
    spelled = _TITLES.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return f"{spelled} where it is not seen, as in another thread" if name in _BY_CALL else spelled


_TITLES = {
    "Gelu": "GELU",
    "Silu": "SiLU",
    "Hardswish": "Hardswish",
    "Mish": "Mish",
    "Elu": "ELU",
    "Celu": "CELU",
    "LeakyRelu": "LeakyReLU",
    "Prelu": "PReLU",
    "PreluKernel": "PReLU",
    "RreluWithNoise": "RReLU",
    "Softplus": "Softplus",
    "Hardtanh": "Hardtanh with a lower bound other than 0",
    "Threshold": "a threshold other than 0",
}
