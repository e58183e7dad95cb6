"""Where values come from, followed through any operation: so an output's axes are told, whatever its shape."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from whyfooled.classifier.axes import CHANNELS_FIRST, Axes, read_axes
from whyfooled.classifier.tracing import PassTrace

CHANNELS_LAST = Axes(3, 1, 2)
NOWHERE = "values of no place in particular"
SEVERAL = "places along several axes, as in windows or in the weights of attention"
TOKENS = "tokens, not channels and places"


def images(*shape):
    return torch.rand(shape or (1, 6, 8, 8), generator=torch.Generator().manual_seed(0))


def told(function, x=None):
    """Tell the axes of what a function makes of images."""
    x = images() if x is None else x
    expected = function(x.clone())
    trace = PassTrace(x)
    with trace:
        output = function(x)
    assert torch.equal(output, expected)
    return read_axes(trace.look(output).origin, tuple(output.shape))


def weight(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.5


def windows(x):
    """Cut (n,h,w,c) into windows of 4 x 4 places: (n x windows, 16, c)."""
    n, h, w, c = x.shape
    return x.view(n, h // 4, 4, w // 4, 4, c).transpose(2, 3).reshape(-1, 16, c)


def joined(x, n, h, w):
    return x.view(n, h // 4, w // 4, 4, 4, -1).transpose(2, 3).reshape(n, h, w, -1)


def attended(tokens):
    """Mix tokens by attention, written out."""
    weights = (tokens @ tokens.transpose(-2, -1)).softmax(-1)
    return weights @ tokens


def shifted_windows(x):
    x = x.permute(0, 2, 3, 1).roll((-2, -2), (1, 2))
    return joined(attended(windows(x)), *x.shape[:3]).roll((2, 2), (1, 2))


def gated(x, spelled):
    gate = torch.sigmoid(F.conv2d(x.mean((2, 3), keepdim=True), weight(6, 6, 1, 1)))
    return spelled(x, gate)


def written_into(x):
    x = x.permute(0, 2, 3, 1).contiguous()
    x[..., :3] += 1
    x[:, 2:4].mul_(2)
    return x.relu_()


class Bent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.permute(0, 2, 3, 1) * torch.sigmoid(x).permute(0, 2, 3, 1)


FIRST = {
    "itself": lambda x: x,
    "convolution": lambda x: F.conv2d(x, weight(4, 6, 3, 3), padding=1),
    "strides": lambda x: F.conv2d(x, weight(4, 6, 2, 2), stride=2),
    "padded by hand": lambda x: F.conv2d(F.pad(x, (0, 1, 0, 1)), weight(4, 6, 3, 3), stride=2),
    "dilated": lambda x: F.conv2d(x, weight(4, 6, 3, 3), padding=2, dilation=2),
    "grouped": lambda x: F.conv2d(x, weight(6, 1, 3, 3), groups=6),
    "transposed convolution": lambda x: F.conv_transpose2d(x, weight(6, 4, 2, 2), stride=2),
    "poolings": lambda x: F.max_pool2d(F.avg_pool2d(x, 2), 2),
    "pooled to more places": lambda x: F.adaptive_avg_pool2d(x, (11, 13)),
    "one place made many": lambda x: F.interpolate(x.mean((2, 3), keepdim=True), size=(5, 7), mode="bilinear"),
    "enlarged": lambda x: F.interpolate(x, scale_factor=2),
    "norms": lambda x: F.group_norm(F.instance_norm(F.batch_norm(x, torch.zeros(6), torch.ones(6))), 2),
    "layer norm over channels": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2),
    "channels joined": lambda x: torch.cat([x, F.conv2d(x, weight(4, 6, 1, 1)), torch.ones(1, 2, 8, 8)], 1),
    "channels shuffled": lambda x: x.view(1, 2, 3, 8, 8).transpose(1, 2).flatten(1, 2),
    "channels chosen": lambda x: x[:, torch.tensor([3, 1, 2])],
    "pixels shuffled": lambda x: F.pixel_shuffle(x[:, :4], 2),
    "pixels put into channels": lambda x: F.pixel_unshuffle(x, 2),
    "corners put into channels": lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1),
    "gate": lambda x: gated(x, lambda x, gate: x * gate),
    "gate, expanded": lambda x: gated(x, lambda x, gate: gate.expand_as(x) * x),
    "gate, enlarged": lambda x: gated(x, lambda x, gate: F.interpolate(gate, size=(8, 8)) * x),
    "rows pooled, and put back": lambda x: x + x.mean(2, keepdim=True),
    "einsum": lambda x: torch.einsum("nchw,cd->ndhw", x, weight(6, 5)),
    "matrix product": lambda x: (weight(5, 6) @ x.flatten(2)).view(1, 5, 8, 8),
    "tokens, back on their grid": lambda x: attended(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(1, 6, 8, 8),
    "fast attention": lambda x: (
        F.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)] * 3).transpose(1, 2).reshape(1, 6, 8, 8)
    ),
    "out of sight": lambda x: F.conv2d(torch.from_numpy(x.numpy() * 2), weight(4, 6, 3, 3)),
    "fourier, with a way around": lambda x: x + torch.fft.ifft2(torch.fft.fft2(x)).real,
    "there and back": lambda x: x.flip(2).flip(2).rot90(1, (2, 3)).rot90(-1, (2, 3)),
}
LAST = {
    "permuted": lambda x: x.permute(0, 2, 3, 1),
    "made plain": lambda x: x.permute(0, 2, 3, 1).contiguous(),
    "linear and norm": lambda x: F.layer_norm(F.linear(x.permute(0, 2, 3, 1), weight(9, 6)), (9,)),
    "square": lambda x: F.linear(x[:, :, :6, :6].permute(0, 2, 3, 1), weight(6, 6)),
    "windows": lambda x: joined(windows(x.permute(0, 2, 3, 1)), 1, 8, 8),
    "shifted windows with attention": shifted_windows,
    "in place": written_into,
    "chunks": lambda x: torch.cat(torch.chunk(x.permute(0, 2, 3, 1), 2, -1)[::-1], -1),
    "gated linear unit": lambda x: F.glu(x.permute(0, 2, 3, 1)),
    "mean over channels, and back": lambda x: x.permute(0, 2, 3, 1) - x.mean(1)[..., None],
    "a function of its own": Bent.apply,
    "recurrent, with a way around": lambda x: x.permute(0, 2, 3, 1) + recurrent(x.permute(0, 2, 3, 1)),
}


def recurrent(x):
    torch.manual_seed(0)
    return nn.LSTM(6, 6, batch_first=True).eval()(x.flatten(1, 2))[0].view_as(x).detach()


OTHERS = {
    "mean over places": (lambda x: x.mean((2, 3)), NOWHERE),
    "mean over places, kept": (lambda x: x.mean((2, 3), keepdim=True), NOWHERE),
    "pooled to one place": (lambda x: F.adaptive_max_pool2d(x, 1), NOWHERE),
    "linear over the places": (lambda x: F.linear(x.flatten(2), weight(64, 64)), NOWHERE),
    "spectrum": (lambda x: torch.fft.fft2(x).real, NOWHERE),
    "all mixed": (lambda x: F.linear(x.flatten(1), weight(384, 384)).view(1, 6, 8, 8), NOWHERE),
    "sorted": (lambda x: x.sort(2).values, NOWHERE),
    "with its mirror image": (lambda x: x + x.flip(2), NOWHERE),
    "one row": (lambda x: x[:, :, :1], "a single row or column of places"),
    "windows": (lambda x: windows(x.permute(0, 2, 3, 1)), SEVERAL),
    "windows of one image": (lambda x: windows(x.permute(0, 2, 3, 1))[None], SEVERAL),
    "heads and tokens": (lambda x: x.view(1, 2, 3, 64).transpose(2, 3), TOKENS),
    "weights of attention": (lambda x: (x.flatten(2).transpose(1, 2) @ x.flatten(2)).unsqueeze(1), TOKENS),
    "columns in a random order": (lambda x: x[..., torch.tensor([3, 1, 2, 0])], "places that are out of order"),
    "upside down": (lambda x: x.flip(2), Axes(1, 2, 3, (2,))),
    "turned by a right angle": (lambda x: x.rot90(1, (2, 3)), Axes(1, 3, 2, (2,))),
    "transposed": (lambda x: x.transpose(2, 3), Axes(1, 3, 2)),
    "transposed, then more": (lambda x: F.conv2d(x.transpose(2, 3), weight(4, 6, 3, 3)), Axes(1, 3, 2)),
}
CASES = {
    **{f"first: {name}": (function, CHANNELS_FIRST) for name, function in FIRST.items()},
    **{f"last: {name}": (function, CHANNELS_LAST) for name, function in LAST.items()},
    **{f"others: {name}": case for name, case in OTHERS.items()},
}


@pytest.mark.parametrize(("function", "axes"), CASES.values(), ids=CASES.keys())
def test_axes_are_told_through_any_operation_and_the_values_stay(function, axes):
    with torch.no_grad():
        assert told(function) == axes


@pytest.mark.parametrize(("function", "axes"), CASES.values(), ids=CASES.keys())
def test_axes_are_the_same_where_gradients_are_recorded(function, axes):
    if function in (CASES["first: out of sight"][0], CASES["last: in place"][0]):
        pytest.skip("a leaf that requires a gradient does not allow for it")
    assert told(lambda x: function(x).detach(), images().requires_grad_()) == axes


def patches(x):
    """Cut images into patches of 2 x 2 pixels, one token for each: (n, 16, 24)."""
    return x.view(1, 6, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(1, 16, 24)


def with_class_tokens(tokens, count):
    return torch.cat([torch.zeros(1, count, tokens.shape[-1]), tokens], 1)


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("made", ["by a convolution", "by a linear layer"])
def test_tokens_have_their_places_and_class_tokens_have_none(count, made):
    def function(x):
        if made == "by a convolution":
            tokens = F.conv2d(x, weight(7, 6, 2, 2), stride=2).flatten(2).transpose(1, 2)
        else:
            tokens = F.linear(patches(x), weight(7, 24))
        tokens = with_class_tokens(tokens, count) + weight(1, 16 + count, 7)
        return F.layer_norm(tokens + attended(tokens), (7,))

    numbers = torch.arange(count, 16 + count).view(4, 4)
    assert told(function) == Axes(2, 1, 1, tokens=tuple(map(tuple, numbers.tolist())))


def test_of_several_images_each_has_its_places():
    assert told(LAST["shifted windows with attention"], images(3, 6, 8, 12)) == CHANNELS_LAST
    assert told(lambda x: windows(x.permute(0, 2, 3, 1)), images(3, 6, 8, 12)) == SEVERAL


def test_scripted_parts_are_seen():
    part = torch.jit.script(nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU()))
    assert told(lambda x: part(x).permute(0, 2, 3, 1)) == CHANNELS_LAST


def test_an_operation_of_another_library_is_trusted_to_leave_values_where_they_are():
    @torch.library.custom_op("whyfooled_tests::swish", mutates_args=())
    def swish(x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)

    assert told(lambda x: swish(x.permute(0, 2, 3, 1).contiguous())) == CHANNELS_LAST
    assert told(lambda x: swish(x.mean((2, 3)))) == NOWHERE


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.sparse.mm(torch.eye(8).to_sparse(), x[0, 0]).view(1, 1, 8, 8),
        lambda x: torch.nested.to_padded_tensor(torch.nested.as_nested_tensor(list(x)), 0.0),
        lambda x: torch.vmap(lambda one: one * 2)(x),
    ],
    ids=["sparse", "nested", "vmap"],
)
def test_tensors_without_memory_of_their_own_do_no_harm(function):
    told(function)


def test_what_a_tensor_was_is_kept_when_it_is_written_into():
    x = images()
    trace = PassTrace(x)
    with trace:
        first = F.conv2d(x, weight(4, 6, 3, 3))
        before = first.clone()
        moments = [trace.hold(first)]
        first[:, :2] += 1
        between = first.clone()
        moments.append(trace.hold(first))
        F.relu(first.view(1, -1), inplace=True)
        untouched = trace.hold(first)
    assert torch.equal(moments[0].value, before)
    assert torch.equal(moments[1].value, between)
    assert untouched.value.data_ptr() == first.data_ptr()


def test_steps_on_which_a_result_depends_are_known():
    x = images()
    trace = PassTrace(x)
    with trace:
        used = F.conv2d(x, weight(4, 6, 3, 3))
        unused = F.conv2d(x, weight(4, 6, 3, 3))
        steps = [trace.look(tensor).step for tensor in (x, used, unused)]
        buffer = torch.zeros(1, 8, 6, 6)
        buffer[:, :4] = used.detach()
        buffer.relu_()
        result = buffer.flatten(1).mean(1)
        unused.relu_()
    depends = trace.find_ancestors(result)
    assert [step in depends for step in steps] == [True, True, False]
    assert not trace.find_ancestors(torch.zeros(3))


def test_what_is_gone_is_forgotten():
    x = images()
    trace = PassTrace(x)
    with trace:
        for _ in range(3000):
            y = x.permute(0, 2, 3, 1) + 1
    assert len(trace._storages) < 2500
    assert read_axes(trace.look(y).origin, tuple(y.shape)) == CHANNELS_LAST
