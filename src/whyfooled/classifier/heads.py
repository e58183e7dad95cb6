"""What a model's outputs are, where they are no logits: probabilities, one by one or together, or their logarithms."""

from __future__ import annotations

from torch import Tensor, nn

_MOVES = ("ToCopy", "View", "Unsafeview", "Clone", "Alias", "Squeeze", "Unsqueeze", "Slice", "Select", "Permute", "T")
"""Operations that give the same numbers in another shape or type."""

_KINDS = {
    "Softmax": (
        nn.Softmax,
        "probabilities (none negative, each row sums to 1)",
        "z = super().forward(x).clamp_min(1e-30).log(); return z - z.mean(1, keepdim=True)",
    ),
    "LogSoftmax": (
        nn.LogSoftmax,
        "logarithms of probabilities (none positive, each row's exponentials sum to 1)",
        "z = super().forward(x); return z - z.mean(1, keepdim=True)",
    ),
    "Sigmoid": (
        nn.Sigmoid,
        "probabilities of each class by itself (sigmoid; several classes may be right at once)",
        "return torch.logit(super().forward(x), eps=1e-7)",
    ),
}


def describe_head(module: nn.Module, outputs: Tensor) -> str:
    """Say what a model's outputs are where they are no logits, and how to have logits; "" where they may be some.

    Parameters
    ----------
    module
        The model.
    outputs
        (n,m) What it returned. With a graph, the last operation tells; without, their sums do.
    """
    kind = _read_graph(outputs) if outputs.grad_fn is not None else _read_sums(outputs)
    if not kind:
        return ""
    layer, what, inverse = _KINDS[kind]
    said = f"The model's outputs look like {what}. Explanations and attacks are defined on logits"
    names = [name for name, part in module.named_modules() if name and isinstance(part, layer)]
    if names:
        path = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in names[-1].split("."))
        lines = f"model{path} = torch.nn.Identity()", "classifier = Classifier(model)"
    else:
        # Probabilities do not tell what all logits have in common; their mean is as good as anything.
        lines = "class Logits(torch.nn.Sequential):", f"    def forward(self, x): {inverse}"
    then = "" if names else ", and Classifier(Logits(model))"
    return f"{said}: give the model without its {layer.__name__}. Two lines do it: `{lines[0]}` and `{lines[1]}`{then}."


def _read_graph(outputs: Tensor) -> str:
    node = outputs.grad_fn
    while node is not None:
        name = node.name().removesuffix("0").removesuffix("Backward")
        if name in _KINDS:
            return name
        if name not in _MOVES or len(node.next_functions) != 1:
            return ""
        node = node.next_functions[0][0]
    return ""


def _read_sums(outputs: Tensor) -> str:
    if not len(outputs):
        return ""
    if (outputs >= 0).all() and _all_sum_to_one(outputs, 1e-3):
        return "Softmax"
    # Where all is one class's, 0 beside numbers far below, they may as well be logits.
    undecided = (outputs.amax(1) < -1e-2).any()
    return "LogSoftmax" if (outputs <= 0).all() and undecided and _all_sum_to_one(outputs.exp(), 1e-4) else ""


def _all_sum_to_one(values: Tensor, tolerance: float) -> bool:
    return bool((values.sum(1) - 1).abs().max() < tolerance)
