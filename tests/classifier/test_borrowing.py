"""What is set on a user's module for a while, whatever other threads do with the module in the meantime."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from threading import Barrier, Event, Thread

import pytest
import torch
from torch import nn

from tests.helpers.models import small
from tests.helpers.untouched import state
from whyfooled import CAM, Classifier, Enhanced, GradCAM, Gradient, GuidedBackprop, mask_units
from whyfooled.classifier.borrowing import SharedSetting, copy_at_rest, evaluating, one_thread, preserving
from whyfooled.classifier.layers import find_layers, watch_layers
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.errors import WhyfooledWarning, hearing, leaving_unsaid, warn
from whyfooled.saliency.backward.graph import uncompiled

THREADS = 8


def training_classifier():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
    module[0].eval()
    return Classifier(module, size=(12, 12))


@pytest.fixture
def images():
    return torch.rand(THREADS, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def in_threads(work, count=THREADS):
    """Do work that takes a number in as many threads, which begin at the same moment."""
    barrier = Barrier(count)

    def begin_together(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin_together, range(count)))


def in_a_thread(work):
    """Do work in a thread of its own while this one waits; fail if it waits for this one."""
    results = []
    thread = Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "deadlock"
    return results[0]


@pytest.mark.parametrize("method", [Gradient(), GuidedBackprop(), GradCAM(), CAM(), Enhanced()], ids=repr)
def test_maps_and_counts_in_threads_are_those_of_one_alone(images, method):
    classifier = training_classifier()
    before = state(classifier.module), {name: value.clone() for name, value in classifier.module.state_dict().items()}

    def explain(number):
        maps = []
        with count_passes(classifier) as passes:
            for place in (*range(number, THREADS), *range(number)):
                image = images[place : place + 1]
                maps.append((place, method(classifier, image, torch.tensor([place % 5]))))
        return [each for _, each in sorted(maps, key=lambda pair: pair[0])], passes

    expected, passes = explain(0)
    for maps, counted in in_threads(explain):
        assert all(map(torch.equal, maps, expected))
        assert counted == passes
    assert state(classifier.module) == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in classifier.module.state_dict().items())


def test_two_classifiers_over_one_module_share_its_modes(images):
    first = training_classifier()
    second = Classifier(first.module, size=(12, 12))
    expected = first.logits(images)
    for logits in in_threads(lambda number: [(first, second)[number % 2].logits(images) for _ in range(10)]):
        assert all(torch.equal(each, expected) for each in logits)
    assert first.module[1].num_batches_tracked == 0
    assert first.module[1].training


def test_a_part_has_its_own_mode_back_when_the_last_block_ends():
    module = training_classifier().module
    inside, leave = Event(), Event()

    def hold():
        with evaluating(module[1]):
            inside.set()
            leave.wait(20)

    thread = Thread(target=hold)
    with evaluating(module):
        thread.start()
        inside.wait(20)
    # All but the part that the other thread still needs.
    assert [part.training for part in module] == [False, False, *[True] * 8]
    leave.set()
    thread.join(20)
    assert [part.training for part in module] == [False, *[True] * 9]


def test_other_code_may_do_as_it_likes_with_the_modes_and_gradients():
    module = training_classifier().module
    before = state(module)
    with preserving(module):
        module.train()
        module[0].weight.grad = torch.ones_like(module[0].weight)
    assert state(module) == before


def test_forward_passes_of_another_thread_neither_wait_for_hooks_nor_feed_them(images):
    classifier = training_classifier()
    seen = []
    see = lambda name, part, given, output: seen.append(len(output))  # noqa: E731
    with watch_layers(find_layers(classifier.module, "3"), see), count_passes(classifier) as passes:
        assert torch.equal(in_a_thread(lambda: classifier.logits(images)), classifier.logits(images))
    assert seen == [THREADS]
    assert passes == Passes(THREADS, 0)


def test_a_map_is_right_while_others_run_the_model_on_other_images(images):
    classifier = training_classifier()
    expected, done = GradCAM("3")(classifier, images[:1], torch.tensor([1])), Event()

    def run():
        while not done.is_set():
            classifier.logits(images)

    threads = [Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            with count_passes(classifier) as passes:
                assert torch.equal(GradCAM("3")(classifier, images[:1], torch.tensor([1])), expected)
            assert passes == Passes(1, 0)
    finally:
        done.set()
        for thread in threads:
            thread.join(20)


def test_what_to_thread_and_copied_contexts_run_counts_in_the_block(images):
    classifier = small(side=12)

    async def explain_all():
        with count_passes(classifier) as passes:
            await asyncio.gather(
                *(asyncio.to_thread(Gradient(), classifier, images, torch.zeros(8).long()) for _ in range(5))
            )
        return passes

    async def explain_twice():
        return await asyncio.gather(explain_all(), explain_all())

    assert asyncio.run(explain_twice()) == [Passes(40, 40), Passes(40, 40)]
    with ThreadPoolExecutor(2) as pool, count_passes(classifier) as passes:
        pool.submit(copy_context().run, classifier.logits, images).result()
    assert passes == Passes(8, 0)


def test_a_copy_has_what_its_user_set_and_nothing_else(images):
    classifier = training_classifier()
    theirs = classifier.module[2].register_forward_hook(lambda part, given, output: None)
    before = state(classifier.module)
    with watch_layers(find_layers(classifier.module, None), print), evaluating(classifier.module):
        copied, masked = copy_at_rest(classifier.module), in_a_thread(lambda: mask_units(classifier, {"3": [0]}))
    assert state(copied) == before
    assert [part.training for part in masked.module.modules()] == [part.training for part in copied.modules()]
    # One mask on the layer, and the user's own.
    assert sum(len(part._forward_hooks) for part in masked.module.modules()) == 2
    theirs.remove()


def test_a_shared_setting_is_set_once_and_set_back_at_the_end():
    happened, noted = [], ContextVar("noted", default=0)

    @contextmanager
    def make():
        happened.append("set")
        # As PyTorch notes which attention is meant, and which thread sets it back is not known.
        token = noted.set(1)
        yield
        noted.reset(token)
        happened.append("set back")

    setting, inside, leave = SharedSetting(make), Event(), Event()

    def hold():
        with setting():
            inside.set()
            leave.wait(20)

    thread = Thread(target=hold)
    with setting():
        thread.start()
        inside.wait(20)
    assert happened == ["set"]
    leave.set()
    thread.join(20)
    assert happened == ["set", "set back"]


def test_what_is_compiled_is_compiled_again_after_threads_that_ran_it_as_plain_python():
    from torch._dynamo import eval_frame

    before = eval_frame._stance.stance

    def run(number):
        with uncompiled():
            return eval_frame._stance.stance

    for _ in range(20):
        assert set(in_threads(run)) == {"force_eager"}
    assert eval_frame._stance.stance == before == "default"


def test_warnings_are_heard_in_their_own_context(images):
    def work(number):
        with hearing() as heard:
            for _ in range(20):
                warn(f"This is {number}.")
                with leaving_unsaid("Nothing"):
                    warn("Nothing.")
        return heard

    assert in_threads(work) == [[f"This is {number}."] for number in range(THREADS)]
    with pytest.warns(WhyfooledWarning, match="Said"):
        warn("Said.")


def read_gpu_settings():
    """Read what decides on the digits that a GPU gives; the last one, what uninitialised memory takes."""
    conv = getattr(torch.backends.cudnn, "conv", None)
    read = {
        "matmul": torch.backends.cuda.matmul.allow_tf32 if conv is None else torch.backends.cuda.matmul.fp32_precision,
        "conv": torch.backends.cudnn.allow_tf32 if conv is None else conv.fp32_precision,
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "same each time": torch.are_deterministic_algorithms_enabled(),
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fills": torch.utils.deterministic.fill_uninitialized_memory,
    }
    return read | {name: value in (False, "ieee") for name, value in read.items() if name in ("matmul", "conv")}


EXACT = {
    "matmul": True,
    "conv": True,
    "cudnn": (True, False),
    "same each time": True,
    "only warns": True,
    "fills": False,
}


@pytest.fixture
def gpu(monkeypatch):
    """Stand in for a GPU that is in use."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_a_gpu_computes_exactly_inside_and_as_its_user_wants_it_outside(gpu, precision):
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    before = read_gpu_settings()
    inside = []

    @one_thread()
    def fail():
        inside.append(read_gpu_settings())
        with one_thread(2):
            inside.append(read_gpu_settings())
        inside.append(read_gpu_settings())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == 3 * [EXACT]
    assert read_gpu_settings() == before
    assert torch.get_float32_matmul_precision() == precision
    torch.set_float32_matmul_precision(usual)


def test_who_wants_an_error_in_place_of_other_algorithms_still_gets_it(gpu):
    torch.use_deterministic_algorithms(True)
    with one_thread():
        assert read_gpu_settings() == {**EXACT, "only warns": False}
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)


def test_a_gpu_computes_exactly_while_any_thread_works(gpu):
    before, begun, ended = read_gpu_settings(), Event(), Event()

    def work():
        with one_thread():
            begun.set()
            ended.wait(10)

    with one_thread():
        other = Thread(target=work)
        other.start()
        begun.wait(10)
    assert read_gpu_settings() == EXACT
    ended.set()
    other.join()
    assert read_gpu_settings() == before


def test_without_a_gpu_in_use_its_settings_are_let_be():
    before = read_gpu_settings()
    with one_thread():
        assert read_gpu_settings() == before
