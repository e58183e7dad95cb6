"""One thread for each operation, and independent pieces of work over threads, which change no result."""

import ast
import inspect
import pkgutil
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from threading import Event, Thread, current_thread

import pytest
import torch
from torch import nn

import whyfooled
from tests.helpers.models import SmallNet, small
from whyfooled import Classifier, GradCAM, Gradient
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.passes import count_passes
from whyfooled.classifier.workers import cut_by_image, share_out
from whyfooled.errors import ParameterError, WhyfooledWarning, hearing, warn


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def in_a_new_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


class Probe(nn.Module):
    """Notes with how many threads it is computed, on its way there and back."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()
        self.seen = set()

    def forward(self, x):
        self.seen.add(torch.get_num_threads())
        if x.requires_grad:
            x.register_hook(lambda _: self.seen.add(torch.get_num_threads()))
        return self.net(x)


def test_inside_it_is_one_thread_and_afterwards_the_callers(two_threads):
    numbers = []

    @one_thread()
    def fail():
        with one_thread():
            numbers.append(torch.get_num_threads())
        numbers.append(torch.get_num_threads())
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert numbers == [1, 1]
    assert torch.get_num_threads() == 2


def test_a_thread_that_starts_in_the_meantime_begins_with_the_usual_number(two_threads):
    with one_thread():
        assert in_a_new_thread(torch.get_num_threads) == 2
    assert in_a_new_thread(torch.get_num_threads) == 2


def test_each_thread_has_its_own_number_back_whoever_leaves_first(two_threads):
    inside, leave, numbers = Event(), Event(), []

    def work():
        torch.set_num_threads(3)
        with one_thread():
            inside.set()
            leave.wait(10)
            numbers.append(torch.get_num_threads())
        numbers.append(torch.get_num_threads())

    with one_thread():
        other = Thread(target=work)
        other.start()
        inside.wait(10)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    leave.set()
    other.join()
    assert numbers == [1, 3]
    assert torch.get_num_threads() == 2


def test_a_model_runs_with_one_thread_there_and_back(two_threads):
    classifier = Classifier(Probe(), size=(12, 12))
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    for work in (classifier.logits, lambda x: Gradient()(classifier, x, torch.tensor([0, 1]))):
        work(images)
        assert classifier.module.seen == {1}
        assert torch.get_num_threads() == 2


NEEDS_NONE = {
    "count_passes",  # runs nothing
    "Problem.of",
    "load_classifier",
    "class_map",
    "UniversalPerturbation.transfer_note",
    "Evaluation.record",
    "DifferentiableMethod.__call__",  # protocols
    "Step.__call__",
}


def list_entries():
    """List the public functions and methods that are given a classifier; a study's are called by `run_study` alone."""
    packages = [m.name for m in pkgutil.walk_packages(whyfooled.__path__, "whyfooled.") if m.ispkg]
    for package in ["whyfooled", *packages]:
        module = import_module(package)
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            methods = vars(value).items() if inspect.isclass(value) else [("", value)]
            for method, function in methods:
                function = getattr(function, "__func__", function)
                public = not method.startswith("_") or method == "__call__"
                if public and inspect.isfunction(function) and "classifier" in inspect.signature(function).parameters:
                    inner = inspect.unwrap(function)
                    if not inner.__module__.startswith("whyfooled.studies.") or inner.__name__ == "run_study":
                        yield inner.__module__, inner.__qualname__


def find_decorators(module, qualname):
    tree = ast.parse(inspect.getsource(import_module(module)))
    *owner, name = qualname.split(".")
    for part in owner:
        tree = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == part)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return [ast.unparse(decorator) for decorator in function.decorator_list]


@pytest.mark.parametrize("entry", sorted(set(list_entries())), ids=lambda entry: entry[1])
def test_every_way_in_computes_with_one_thread(entry):
    decorators = find_decorators(*entry)
    if entry[1] not in NEEDS_NONE and "abstractmethod" not in decorators:
        assert "one_thread()" in decorators, "decorate it with @one_thread()"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_pieces_give_in_order_what_one_worker_gives(workers):
    classifier = small()
    images = torch.rand(9, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    classes = torch.zeros(1, dtype=torch.int64)

    def work(image):
        return GradCAM(layer="second")(classifier, image, classes)

    alone = list(map(work, images.split(1)))
    with one_thread(workers), count_passes(classifier) as passes:
        shared = list(share_out(classifier, work, images.split(1)))
    assert all(map(torch.equal, shared, alone))
    assert passes.forwards == 9


def test_workers_are_as_many_as_asked_for_and_have_what_their_caller_has(two_threads):
    classifier = small()
    meeting = [Event(), Event()]

    def work(number):
        # Both are in work at once, or this ends in an error.
        meeting[number].set()
        assert meeting[1 - number].wait(10)
        with one_thread():
            pass
        return current_thread().name, torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad():
        results = list(share_out(classifier, work, range(2)))
    assert len({name for name, _, _ in results} - {current_thread().name}) == 2
    assert [rest for _, *rest in results] == [[1, False], [1, False]]
    assert torch.get_num_threads() == 2


def test_pieces_are_taken_when_it_is_their_turn():
    taken = []
    pieces = (taken.append(number) or number for number in range(100))
    with one_thread(2):
        results = share_out(small(), lambda number: number, pieces)
        assert [next(results) for _ in range(5)] == list(range(5))
        assert len(taken) <= 5 + 2 * 2
        results.close()


def test_an_error_comes_out_as_it_was_and_work_that_waits_is_not_begun():
    begun = []

    def work(number):
        begun.append(number)
        if number == 3:
            raise ParameterError("`number` must not be 3.")
        return number

    with one_thread(2), pytest.raises(ParameterError, match="`number` must not be 3"):
        list(share_out(small(), work, range(100)))
    assert len(begun) <= 3 + 2 * 2


@pytest.fixture
def _interruptible():
    """Have Ctrl-C raise, also where it was ignored when Python started, as in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_who_stops_waiting_does_not_wait_for_what_is_in_work():
    classifier, image = small(), torch.rand(1, 3, 12, 12)
    begun = Event()

    def work(number):
        while number:
            begun.set()
            classifier.logits(image)

    with one_thread(2):
        results = share_out(classifier, work, range(4))
        assert next(results) is None
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt)
        waiting = share_out(classifier, work, [1, 1])
        Thread(target=lambda: begun.wait(10) and signal.raise_signal(signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(waiting)


def test_warnings_come_in_order_and_once_each():
    def work(number):
        warn(f"Number {number % 3}.")

    with one_thread(3), hearing() as heard:
        list(share_out(small(), work, range(9)))
    assert heard == ["Number 0.", "Number 1.", "Number 2."]
    with one_thread(3), pytest.warns(WhyfooledWarning) as said:
        list(share_out(small(), work, range(3)))
    assert [str(warning.message) for warning in said] == heard


class Keeping(nn.Module):
    """Keeps what one part gives for another to read, as a model may that is for one thread."""

    def __init__(self, how):
        super().__init__()
        self.net, self.how, self.kept = SmallNet(), how, [None]
        self.register_buffer("room", torch.zeros(1, 3, 12, 12))

    def forward(self, x):
        if self.how == "attribute":
            self.last = x
            return self.net(self.last)
        if self.how == "list":
            self.kept[0] = x
            return self.net(self.kept[0])
        if self.how == "buffer":
            self.room.copy_(x)
            return self.net(self.room)
        if self.how == "slope" and x.requires_grad:
            x.register_hook(partial(setattr, self, "slope"))
        return self.net(x)


@pytest.mark.parametrize("size", [12, 8])
@pytest.mark.parametrize(
    ("how", "threads"), [("attribute", 1), ("list", 1), ("buffer", 1), ("slope", 1), ("nothing", 3)]
)
def test_a_model_that_keeps_something_is_left_to_one_worker(how, threads, size):
    """What it keeps is seen in a pass of its size, or in the first piece of work if it takes no such image."""
    classifier = Classifier(Keeping(how), size=size)
    images = torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(0)).split(1)
    names = set()

    def work(image):
        names.add(current_thread().name)
        return classifier.logits(image)

    alone = [classifier.logits(image) for image in images]
    with one_thread(3):
        assert all(map(torch.equal, share_out(classifier, work, images), alone))
    assert len(names) == 1 if threads == 1 else len(names) > 1


class Drawing(SmallNet):
    """Draws random numbers in every pass, as dropout does."""

    def forward(self, x):
        return super().forward(x + 0 * torch.rand_like(x))


def test_what_is_found_out_first_takes_none_of_the_callers_random_numbers():
    classifier, state = Classifier(Drawing(), size=(12, 12)), torch.get_rng_state()
    with one_thread(2), count_passes(classifier) as passes:
        assert list(share_out(classifier, abs, [-1, -2, -3])) == [1, 2, 3]
    assert torch.equal(torch.get_rng_state(), state)
    assert passes.forwards == 0


def test_under_a_mode_of_the_callers_thread_everything_stays_there():
    class Following(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    names = []
    with one_thread(2), Following():
        list(share_out(small(), lambda _: names.append(current_thread().name), range(5)))
    with one_thread(2), torch.autocast("cpu"):
        list(share_out(small(), lambda _: names.append(current_thread().name), range(5)))
    assert set(names) == {current_thread().name}


def test_no_piece_has_rows_of_two_images():
    rows = torch.arange(8)
    pieces = cut_by_image(rows, torch.tensor([0, 0, 0, 1, 1, 1, 1, 2]), 2)
    assert [piece.tolist() for piece in pieces] == [[0, 1], [2], [3, 4], [5, 6], [7]]


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_worker_is_refused(workers):
    with pytest.raises(ParameterError, match=f"`workers` must be at least 1; got {workers}"), one_thread(workers):
        pass
