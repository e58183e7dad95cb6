"""Attacks of Foolbox, torchattacks, ART and adv-lib, and plain functions: run as they are, counted, not believed."""

from functools import partial

import foolbox
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.models import SmallNet, linear, small
from whyfooled import PGD, Classifier, Targeted, Untargeted, adapt, count_passes, explain, run_attack
from whyfooled.errors import ModelError, ParameterError


@pytest.fixture
def case():
    classifier = small()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    return classifier, images, classifier.predict(images)


@pytest.fixture
def torchattacks():
    return pytest.importorskip("torchattacks")


@pytest.fixture
def art():
    return pytest.importorskip("art.attacks.evasion")


@pytest.fixture
def adv_lib():
    return pytest.importorskip("adv_lib.attacks")


def goals(labels):
    return [Untargeted(labels), Targeted((labels + 2) % 5)]


def hopeless(bias=(0.0, 1.0, 0.5)):
    """Make a classifier whose answer no image changes."""
    return linear(torch.zeros(3, 192), torch.tensor(bias))


def estimator(model, classes=5, side=16):
    """Make ART's wrapper of a model."""
    PyTorchClassifier = pytest.importorskip("art.estimators.classification").PyTorchClassifier
    shape = (3, side, side)
    loss = nn.CrossEntropyLoss()
    return PyTorchClassifier(
        model, loss=loss, input_shape=shape, nb_classes=classes, clip_values=(0, 1), device_type="cpu"
    )


def fgsm(model, x, y, epsilon, targeted=False):
    """Step by the sign of the cross-entropy's gradient, written out."""
    inputs = x.clone().requires_grad_()
    slope = torch.autograd.grad(F.cross_entropy(model(inputs), y), inputs)[0]
    return (x + (-epsilon if targeted else epsilon) * slope.sign()).clamp(0, 1).detach()


def by_hand(model, x, y, *, targeted=False):
    return fgsm(model, x, y, 0.3, targeted)


class Counter(nn.Module):
    """Counts the images that go through a module, both ways, on its own."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.forwards = self.backwards = 0

    def forward(self, x):
        self.forwards += len(x)
        if x.requires_grad:
            x.register_hook(self.came_back)
        return self.module(x)

    def came_back(self, gradient):
        self.backwards += len(gradient)


# Foolbox


def foolbox_directly(attack, classifier, images, goal, epsilon):
    model = foolbox.PyTorchModel(classifier, bounds=(0, 1))
    criterion = foolbox.criteria.Misclassification(goal.classes)
    if isinstance(goal, Targeted):
        criterion = foolbox.criteria.TargetedMisclassification(goal.classes)
    return attack(model, images, criterion, epsilons=epsilon)[1]


def test_a_foolbox_linf_attack_runs_within_4_255_by_default(case):
    classifier, images, labels = case
    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.5, steps=4, random_start=False)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    size = (result.attempted - images).abs().amax()
    assert 0.99 * 4 / 255 < size <= 4 / 255 + 1e-6
    assert torch.equal(result.attempted, foolbox_directly(attack, classifier, images, Untargeted(labels), 4 / 255))


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize(
    ("attack", "epsilon"),
    [
        (foolbox.attacks.LinfPGD(steps=5, random_start=False), 0.2),
        (foolbox.attacks.L2PGD(steps=5, random_start=False), 3.0),
        (foolbox.attacks.L2CarliniWagnerAttack(steps=20, binary_search_steps=3, stepsize=0.05), None),
        (foolbox.attacks.L2CarliniWagnerAttack(steps=20, binary_search_steps=3, stepsize=0.05), 0.1),
        (foolbox.attacks.DDNAttack(init_epsilon=5.0, steps=20), None),
    ],
    ids=["linf", "l2", "cw", "cw within a radius", "ddn"],
)
def test_a_foolbox_attack_makes_the_images_that_it_makes_on_its_own(case, attack, epsilon, aimed):
    classifier, images, labels = case
    goal = goals(labels)[aimed]
    result = run_attack(adapt(attack, epsilon=epsilon), classifier, images, goal)
    expected = foolbox_directly(attack, classifier, images, goal, epsilon)
    assert torch.equal(result.attempted, expected)
    assert not torch.equal(expected, images)
    assert torch.equal(result.success, goal.reached(classifier.logits(expected)))


def test_a_foolbox_search_needs_no_radius_and_succeeds(case):
    classifier, images, labels = case
    for goal in goals(labels):
        result = run_attack(foolbox.attacks.DDNAttack(init_epsilon=5.0, steps=20), classifier, images, goal)
        assert result.success.all()


def test_a_foolbox_l2_attack_without_a_radius_is_refused():
    with pytest.raises(ParameterError, match="`epsilon` must be given for a Foolbox attack with a radius") as caught:
        adapt(foolbox.attacks.L2PGD())
    assert "adapt(attack, epsilon=0.5)" in str(caught.value)


@pytest.mark.parametrize("epsilon", [-1.0, float("nan"), 4.0])
def test_a_radius_that_no_image_has_is_refused(case, epsilon):
    classifier, images, labels = case
    with pytest.raises(ParameterError, match="`epsilon` must be"):
        run_attack(adapt(foolbox.attacks.LinfPGD(steps=2), epsilon=epsilon), classifier, images, Untargeted(labels))


def test_zeros_from_a_failed_foolbox_search_are_no_success():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    attack = foolbox.attacks.L2CarliniWagnerAttack(steps=5, binary_search_steps=2)
    result = run_attack(attack, hopeless(), images, Untargeted(torch.tensor([1, 1])))
    assert torch.equal(result.attempted, torch.zeros_like(images))
    assert not result.success.any()
    assert torch.equal(result.adversarial, images)


# torchattacks


def mode(attack):
    return attack.attack_mode, attack.targeted, attack._target_map_function


def test_torchattacks_makes_the_images_that_it_makes_on_its_own(case, torchattacks):
    classifier, images, labels = case
    attack = torchattacks.PGD(classifier, eps=0.3, alpha=0.1, steps=4, random_start=False)
    untargeted = attack(images, labels)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert torch.equal(result.attempted, untargeted)
    assert result.success.all()
    goal = goals(labels)[1]
    aimed = run_attack(attack, classifier, images, goal)
    attack.set_mode_targeted_by_label(quiet=True)
    assert torch.equal(aimed.attempted, attack(images, goal.classes))
    assert not torch.equal(aimed.attempted, untargeted)


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", ["default", "label", "random"])
def test_a_torchattacks_attack_has_its_mode_back(case, torchattacks, monkeypatch, aimed, fails, before):
    classifier, images, labels = case
    attack = torchattacks.PGD(classifier, eps=0.3, alpha=0.1, steps=2)
    if before != "default":
        {"label": attack.set_mode_targeted_by_label, "random": attack.set_mode_targeted_random}[before](quiet=True)
    expected = mode(attack)
    if fails:

        def forward(images, labels):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(attack, "forward", forward)
        with pytest.raises(RuntimeError, match="out of memory"):
            run_attack(attack, classifier, images, goals(labels)[aimed])
    else:
        run_attack(attack, classifier, images, goals(labels)[aimed])
    assert mode(attack) == expected


def test_the_attacks_inside_a_torchattacks_attack_have_their_modes_back(case, torchattacks):
    classifier, images, labels = case
    parts = [torchattacks.PGD(classifier, steps=1), torchattacks.PGD(classifier, steps=1)]
    both = torchattacks.MultiAttack(parts)
    parts[0].set_mode_targeted_random(quiet=True)
    expected = [mode(part) for part in parts]
    run_attack(both, classifier, images, Untargeted(labels))
    assert [mode(part) for part in parts] == expected


def test_a_torchattacks_attack_without_targets_is_refused_for_a_target(case, torchattacks):
    classifier, images, labels = case
    attack = torchattacks.DeepFool(classifier, steps=3)
    expected = mode(attack)
    with pytest.raises(ParameterError, match="`goal` must be untargeted for this attack; got DeepFool"):
        run_attack(attack, classifier, images, goals(labels)[1])
    assert mode(attack) == expected
    assert run_attack(attack, classifier, images, Untargeted(labels)).success.any()


def test_another_error_of_a_torchattacks_attack_does_not_blame_the_goal(case, torchattacks, monkeypatch):
    classifier, images, labels = case
    attack = torchattacks.PGD(classifier, steps=2)

    def forward(images, labels):
        raise ValueError("the kernel is too large")

    monkeypatch.setattr(attack, "forward", forward)
    with pytest.raises(ValueError, match="the kernel is too large"):
        run_attack(attack, classifier, images, Untargeted(labels))


def test_torchattacks_prints_nothing(case, torchattacks, capsys):
    classifier, images, labels = case
    attack = torchattacks.PGD(classifier, steps=1)
    for goal in goals(labels):
        run_attack(attack, classifier, images, goal)
    assert capsys.readouterr().out == ""


# ART


@pytest.mark.parametrize("aimed", [False, True])
def test_arts_fgsm_is_fgsm(case, art, aimed):
    classifier, images, labels = case
    goal = goals(labels)[aimed]
    attack = art.FastGradientMethod(estimator(classifier), eps=0.3)
    result = run_attack(attack, classifier, images, goal)
    torch.testing.assert_close(result.attempted, fgsm(classifier, images, goal.classes, 0.3, aimed))
    assert torch.equal(result.success, goal.reached(classifier.logits(result.attempted)))


def test_arts_pgd_reaches_its_goals(case, art):
    classifier, images, labels = case
    attack = art.ProjectedGradientDescent(estimator(classifier), eps=0.5, eps_step=0.05, max_iter=30, verbose=False)
    results = [run_attack(attack, classifier, images, goal) for goal in goals(labels)]
    assert all(result.success.all() for result in results)
    assert all(result.linf.max() <= 0.5 + 1e-6 for result in results)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("aimed", [False, True])
def test_an_art_attack_has_its_mode_back(case, art, monkeypatch, before, fails, aimed):
    classifier, images, labels = case
    attack = art.FastGradientMethod(estimator(classifier), eps=0.3, targeted=before)
    if fails:

        def generate(x, y):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(attack, "generate", generate)
        with pytest.raises(RuntimeError, match="out of memory"):
            run_attack(attack, classifier, images, goals(labels)[aimed])
    else:
        run_attack(attack, classifier, images, goals(labels)[aimed])
    assert attack.targeted is before


@pytest.mark.parametrize("name", ["DeepFool", "NewtonFool"])
def test_an_art_attack_without_targets_runs_untargeted(case, art, name):
    classifier, images, labels = case
    attack = getattr(art, name)(estimator(classifier), max_iter=10, verbose=False)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    expected = attack.generate(x=images.numpy(), y=labels.numpy())
    torch.testing.assert_close(result.attempted, torch.from_numpy(expected))


@pytest.mark.parametrize("name", ["DeepFool", "NewtonFool"])
def test_an_art_attack_without_targets_is_refused_for_a_target(case, art, name):
    classifier, images, labels = case
    attack = getattr(art, name)(estimator(classifier), max_iter=3, verbose=False)
    with pytest.raises(ParameterError, match=f"`goal` must be untargeted for this attack; got {name}"):
        run_attack(attack, classifier, images, goals(labels)[1])


# Models that are not the classifier


def test_a_surrogate_is_counted_and_the_classifier_judges(case, torchattacks):
    classifier, images, labels = case
    surrogate = SmallNet(seed=1).eval()
    attack = torchattacks.PGD(surrogate, eps=0.3, alpha=0.1, steps=4, random_start=False)
    with count_passes(classifier) as passes:
        result = run_attack(attack, classifier, images, Untargeted(labels))
    assert torch.equal(result.attempted, attack(images, labels))
    assert torch.equal(result.success, classifier.predict(result.attempted) != labels)
    assert result.forwards.tolist() == result.backwards.tolist() == [4, 4, 4]
    # The classifier itself sees the clean images, the first of them twice more, and what became of them.
    assert (passes.forwards, passes.backwards) == (8, 0)


def test_a_surrogate_that_is_fooled_proves_nothing(torchattacks, art):
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    surrogate = small()
    labels = surrogate.predict(images)
    assert labels.unique().tolist() == [1]
    stubborn = linear(torch.zeros(5, 768), torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0]), side=16)
    attacks = [torchattacks.FGSM(surrogate, eps=0.3), art.FastGradientMethod(estimator(surrogate), eps=0.3)]
    for attack in attacks:
        result = run_attack(attack, stubborn, images, Untargeted(labels))
        assert (surrogate.predict(result.attempted) != labels).all()
        assert not result.success.any()
        assert torch.equal(result.adversarial, images)
        assert result.backwards.tolist() == [1, 1, 1]


# adv-lib and plain callables


@pytest.mark.parametrize("aimed", [False, True])
def test_an_adv_lib_function_runs_untargeted_and_targeted(case, adv_lib, aimed):
    classifier, images, labels = case
    goal = goals(labels)[aimed]
    attack = partial(adv_lib.ddn, steps=20, init_norm=5.0)
    result = run_attack(attack, classifier, images, goal)
    assert torch.equal(result.attempted, attack(classifier, images, goal.classes, targeted=aimed))
    assert result.success.all()


class Recorder:
    """A callable that remembers how it was called."""

    def __init__(self):
        self.calls = []

    def plain(self, model, x, y):
        self.calls.append((model, x, y, None))
        return x.clone()

    def with_targets(self, model, x, y, *, strength=1.0, targeted=False):
        self.calls.append((model, x, y, targeted))
        return x.clone()

    def with_goal(self, classifier, images, goal):
        self.calls.append((classifier, images, goal, None))
        return images.clone()

    def __call__(self, net, inputs, classes):
        return self.plain(net, inputs, classes)


@pytest.mark.parametrize("kind", ["function", "object"])
def test_a_callable_is_given_the_classifier_the_images_and_the_true_classes(case, kind):
    classifier, images, labels = case
    recorder = Recorder()
    result = run_attack(recorder.plain if kind == "function" else recorder, classifier, images, Untargeted(labels))
    ((model, x, y, _),) = recorder.calls
    assert model is classifier
    assert torch.equal(x, images)
    assert torch.equal(y, labels)
    assert not result.success.any()


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: partial(f, strength=2.0)], ids=["function", "partial"])
def test_a_callable_with_the_parameter_targeted_is_given_targets(case, wrap):
    classifier, images, labels = case
    recorder = Recorder()
    attack = wrap(recorder.with_targets)
    for goal in goals(labels):
        run_attack(attack, classifier, images, goal)
    (_, _, first, untargeted), (_, _, second, targeted) = recorder.calls
    assert torch.equal(first, labels)
    assert torch.equal(second, (labels + 2) % 5)
    assert (untargeted, targeted) == (False, True)


def test_a_callable_that_is_targeted_of_itself_is_not_for_an_untargeted_goal(case):
    classifier, images, labels = case
    recorder = Recorder()
    run_attack(partial(recorder.with_targets, targeted=True), classifier, images, Untargeted(labels))
    assert [call[3] for call in recorder.calls] == [False]


def test_a_callable_with_a_third_parameter_goal_is_given_the_goal(case):
    classifier, images, labels = case
    recorder = Recorder()
    for goal in goals(labels):
        run_attack(recorder.with_goal, classifier, images, goal)
        model, x, given, _ = recorder.calls[-1]
        assert model is classifier
        assert torch.equal(x, images)
        assert type(given) is type(goal)
        assert torch.equal(given.classes, goal.classes)


def test_a_callable_without_targets_is_refused_for_a_target(case):
    classifier, images, labels = case
    recorder = Recorder()
    with pytest.raises(ParameterError, match="`goal` must be untargeted for a callable") as caught:
        run_attack(recorder.plain, classifier, images, goals(labels)[1])
    assert "Give it a parameter `targeted`" in str(caught.value)
    assert not recorder.calls


@pytest.mark.parametrize("aimed", [False, True])
def test_what_a_callable_made_is_verified(case, aimed):
    classifier, images, labels = case
    goal = goals(labels)[aimed]
    result = run_attack(by_hand, classifier, images, goal)
    assert torch.equal(result.attempted, by_hand(classifier, images, goal.classes, targeted=aimed))
    assert torch.equal(result.success, goal.reached(classifier.logits(result.attempted)))
    assert torch.equal(result.adversarial[~result.success], images[~result.success])


def test_only_images_that_are_not_there_yet_reach_the_attack(case):
    classifier, images, labels = case
    wrong = torch.stack([labels[0], (labels[1] + 1) % 5, labels[2]])
    recorder = Recorder()
    result = run_attack(recorder.plain, classifier, images, Untargeted(wrong))
    ((_, x, y, _),) = recorder.calls
    assert torch.equal(x, images[[0, 2]])
    assert torch.equal(y, labels[[0, 2]])
    assert result.success.tolist() == [False, True, False]


def test_an_attack_that_overwrites_what_it_is_given_harms_nothing(case):
    classifier, images, labels = case
    expected, known = images.clone(), labels.clone()

    def careless(model, x, y):
        made = fgsm(model, x, y, 0.3)
        x.copy_(made)
        y.zero_()
        return x

    result = run_attack(careless, classifier, images, Untargeted(labels))
    assert torch.equal(images, expected)
    assert torch.equal(labels, known)
    assert torch.equal(result.clean, expected)
    assert result.success.all()
    assert result.linf.max() > 0.2


def test_images_of_another_type_come_back_in_the_type_that_was_given(case):
    classifier, images, labels = case
    result = run_attack(lambda model, x, y: x.double() / 2, classifier, images, Untargeted(labels))
    assert result.attempted.dtype == torch.float32
    assert torch.equal(result.attempted, images / 2)


def test_an_adapted_attack_is_called_like_ours(case):
    classifier, images, labels = case
    for goal in goals(labels):
        attack = adapt(by_hand)
        expected = by_hand(classifier, images, goal.classes, targeted=isinstance(goal, Targeted))
        assert torch.equal(attack(classifier, images, goal), expected)
        with torch.no_grad():
            assert torch.equal(attack(classifier, images, goal), expected)


# What is refused


def test_our_own_attacks_are_returned_as_they_are():
    attack = PGD()
    assert adapt(attack) is attack
    adapted = adapt(by_hand)
    assert adapt(adapted) is adapted


@pytest.mark.parametrize("attack", [PGD, foolbox.attacks.LinfPGD, Recorder])
def test_a_class_is_refused_with_a_hint(case, attack):
    classifier, images, labels = case
    with pytest.raises(ParameterError, match="`attack` must be an attack") as caught:
        adapt(attack)
    assert f"Make one: {attack.__name__}(...)." in str(caught.value)
    with pytest.raises(ParameterError, match="Make one"):
        run_attack(attack, classifier, images, Untargeted(labels))


@pytest.mark.parametrize("attack", [3, "pgd", None])
def test_what_is_no_attack_is_refused(case, attack):
    classifier, images, labels = case
    with pytest.raises(ParameterError, match="`attack` must be an attack, or a callable"):
        run_attack(attack, classifier, images, Untargeted(labels))


def test_a_librarys_model_is_no_attack(case, art):
    classifier, _, _ = case
    for model in (foolbox.PyTorchModel(classifier, bounds=(0, 1)), estimator(classifier)):
        with pytest.raises(ParameterError, match="`attack` must be an attack"):
            adapt(model)


def test_a_radius_is_for_foolbox_alone(case, torchattacks, art):
    classifier, _, _ = case
    others = [PGD(), by_hand, torchattacks.PGD(classifier), art.FastGradientMethod(estimator(classifier))]
    for attack in others:
        with pytest.raises(ParameterError, match=r"`epsilon` is for attacks of Foolbox.*; got 0.1"):
            adapt(attack, epsilon=0.1)


def foreign(kind, classifier):
    """Make a quick attack of another kind, for a classifier of 16 x 16 pixels."""
    if kind == "foolbox":
        return adapt(foolbox.attacks.LinfPGD(steps=3), epsilon=0.3)
    if kind == "foolbox search":
        return foolbox.attacks.DDNAttack(steps=5)
    if kind == "torchattacks":
        return pytest.importorskip("torchattacks").PGD(classifier, eps=0.3, alpha=0.1, steps=3)
    if kind == "art":
        make = pytest.importorskip("art.attacks.evasion").ProjectedGradientDescent
        return make(estimator(classifier), eps=0.3, eps_step=0.1, max_iter=3, verbose=False)
    return by_hand


KIND = pytest.mark.parametrize("kind", ["foolbox", "foolbox search", "torchattacks", "art", "callable"])


@KIND
@pytest.mark.parametrize("limits", [{"mask": torch.eye(16)}, {"box": (0.0, 0.999)}, {"box": (1e-3, 1.0)}])
def test_masks_and_boxes_are_for_our_own_attacks(case, kind, limits):
    classifier, images, labels = case
    images = images.clamp(0.01, 0.99)
    attack = foreign(kind, classifier)
    with pytest.raises(ParameterError, match="`mask` and `box` are kept by attacks of whyfooled alone; got"):
        run_attack(attack, classifier, images, Untargeted(labels), **limits)


@KIND
def test_a_mask_that_forbids_nothing_is_none(case, kind):
    classifier, images, labels = case
    attack = foreign(kind, classifier)
    result = run_attack(attack, classifier, images, Untargeted(labels), mask=torch.ones(16, 16))
    assert not torch.equal(result.attempted, images)


# What it costs, and what it leaves behind


@KIND
@pytest.mark.parametrize("aimed", [False, True])
def test_passes_are_those_that_the_module_saw(kind, aimed):
    counter = Counter(SmallNet().eval())
    classifier = Classifier(counter, size=(16, 16))
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    labels = classifier.predict(images)
    attack = foreign(kind, classifier)
    counter.forwards = counter.backwards = 0
    result = run_attack(attack, classifier, images, goals(labels)[aimed])
    # Eight of the forward passes are ours: what the clean and the attempted images are taken for, and whether the first
    # is taken for that twice more.
    assert result.forwards.tolist() == [(counter.forwards - 8) // 3] * 3
    assert result.backwards.tolist() == [counter.backwards // 3] * 3
    assert (counter.forwards - 8) % 3 == counter.backwards % 3 == 0
    assert counter.backwards > 0


def test_passes_are_a_mean_rounded_up(case):
    classifier, images, labels = case

    def uneven(model, x, y):
        model(x[:1])
        return fgsm(model, x, y, 0.3)

    result = run_attack(uneven, classifier, images, Untargeted(labels))
    assert result.forwards.tolist() == [2, 2, 2]
    assert result.backwards.tolist() == [1, 1, 1]


def test_a_sequential_model_of_art_is_counted(case, art):
    classifier, images, labels = case
    attack = art.FastGradientMethod(estimator(nn.Sequential(classifier)), eps=0.3)
    assert run_attack(attack, classifier, images, Untargeted(labels)).backwards.tolist() == [1, 1, 1]


def hooks(model):
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(part, kind)) for part in model.modules() for kind in kinds)


def training_net():
    """Make a net in training mode, whose running means move with each call that forgets evaluation mode."""
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), SmallNet()).train()
    net[2].eval()
    return net


@KIND
@pytest.mark.parametrize("fails", [False, True])
def test_weights_buffers_and_hooks_are_left_as_they_were(kind, fails):
    net = training_net()
    classifier = Classifier(net, size=(16, 16))
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    labels = classifier.predict(images)
    attack = foreign(kind, classifier)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    if fails:
        shut = net[2].head.register_forward_hook(fail_with_a_graph)
        with pytest.raises(ModelError, match="out of memory"):
            run_attack(attack, classifier, images, Untargeted(labels))
        shut.remove()
    else:
        run_attack(attack, classifier, images, Untargeted(labels))
    assert hooks(classifier) == 0
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())


def fail_with_a_graph(module, inputs, output):
    if output.requires_grad and torch.is_grad_enabled():
        raise RuntimeError("out of memory")


@KIND
def test_training_flags_are_left_as_they_were(kind):
    net = training_net()
    classifier = Classifier(net, size=(16, 16))
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    labels = classifier.predict(images)
    attack = foreign(kind, classifier)
    expected = {name: part.training for name, part in classifier.named_modules()}
    run_attack(attack, classifier, images, Untargeted(labels))
    assert {name: part.training for name, part in classifier.named_modules()} == expected


@KIND
def test_no_gradients_are_left_in_the_weights(case, kind):
    classifier, images, labels = case
    run_attack(foreign(kind, classifier), classifier, images, Untargeted(labels))
    assert all(parameter.grad is None for parameter in classifier.parameters())


@pytest.mark.parametrize(
    "attack", [adapt(foolbox.attacks.DDNAttack(steps=5)), adapt(by_hand), by_hand], ids=["foolbox", "adapted", "plain"]
)
def test_an_explanation_with_a_foreign_attack_can_be_saved(case, tmp_path, attack):
    classifier, images, _ = case
    explain(classifier, images[:1], attack=attack, methods=["gradient"]).save(tmp_path / "out")
    assert any((tmp_path / "out").iterdir())
