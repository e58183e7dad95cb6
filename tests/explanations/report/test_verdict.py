"""The verdicts that a report begins with follow from its numbers, and each says its number and what chance gives."""

import pytest

from whyfooled.explanations.report.recovery import judge_recovery
from whyfooled.explanations.report.saved import write_saved_sentence
from whyfooled.explanations.report.verdict import list_next_steps, name_first_class, write_happened, write_trusted
from whyfooled.saliency.recovery import RANDOM, SHIFTED


def curve(title, *shares_right):
    return {"title": title, "fills": {"zero": {"fraction": [0.1, 0.2, 0.3], "shares_right": list(shares_right)}}}


def numbers(
    own=2, random=(0, 1, 1), shifted=(0, 1), *, outcome="fooled", seen=1, aim=1, chance=(0, 19), probability=0.6
):
    before = {"index": 0, "name": "oak", "probability": 0.9}
    after = {"index": seen, "name": ("oak", "elm")[seen], "probability": probability}
    return {
        "outcome": outcome,
        "parameters": {"attack": "cw"},
        "true": {"name": "oak", "index": 0},
        "wrong": {"name": ("oak", "elm", "ash")[aim], "index": aim},
        "predictions": {"clean": [before], "adversarial": [after]},
        "saved": [],
        "fooled_by_chance": None if chance is None else {"fooled": chance[0], "draws": chance[1]},
        "recovery": [curve("Gradient", own), curve(SHIFTED, *shifted), curve(RANDOM, *random)],
        "effect": None,
        "perturbation": {"l2": 0.1096, "linf": 0.004903},
    }


@pytest.mark.parametrize(
    ("given", "answer", "sentence"),
    [
        (
            {},
            "Fooled.",
            "The model saw oak (90.0 %) and now sees elm (60.0 %); of 19 random changes of the same length, none fools "
            "it.",
        ),
        (
            {"chance": (1, 19), "probability": 0.05},
            "Fooled.",
            "The model saw oak (90.0 %) and now sees elm (5.0 %), but is sure of nothing; of 19 random changes of the "
            "same length, 1 fools it too.",
        ),
        (
            {"chance": (7, 19), "outcome": "failed", "seen": 0},
            "Not fooled.",
            "The model saw oak (90.0 %) and still sees oak (60.0 %); of 19 random changes of the same length, 7 fool "
            "it.",
        ),
        (
            {"outcome": "failed", "chance": (0, 3), "aim": 2},
            "Fooled, but not into ash.",
            "The model saw oak (90.0 %) and was to see ash, but now sees elm (60.0 %); of 3 random changes of the same "
            "length, none fools it.",
        ),
        (
            {"outcome": "failed", "chance": (0, 3)},
            "Not fooled.",
            "The model saw oak (90.0 %) and now sees elm (60.0 %), but the attack was to leave the other labels as "
            "they were; of 3 random changes of the same length, none fools it.",
        ),
        (
            {"outcome": "already wrong", "chance": None},
            "Wrong without any attack.",
            "The model sees oak (90.0 %), though the image shows oak.",
        ),
    ],
)
def test_what_happened_is_said_with_what_chance_does(given, answer, sentence):
    verdict = write_happened(numbers(**given))
    assert (verdict.answer, verdict.sentence) == (
        answer,
        f"{sentence} Attack: Carlini-Wagner, ℓ2 0.11, ℓ∞ 0.0049 (1.25/255).",
    )


@pytest.mark.parametrize(
    ("parameters", "size", "end"),
    [
        ({"attack": "bim(epsilon=0.3)"}, {"l2": 2.0, "linf": 0.3}, "fools it. Attack: BIM, ℓ2 2, ℓ∞ 0.3 (76.50/255)."),
        # One of the user's own has the name of its function.
        ({"attack": "my_attack"}, {"l2": 2.0, "linf": 0.3}, "fools it. Attack: my_attack, ℓ2 2, ℓ∞ 0.3 (76.50/255)."),
        ({"adversarial": "a.npy"}, {"l2": 2.0, "linf": 0.3}, "fools it. Made elsewhere, ℓ2 2, ℓ∞ 0.3 (76.50/255)."),
        ({"attack": None}, {"l2": 0.0, "linf": 0.0}, "fools it."),
    ],
)
def test_the_card_says_who_attacked_and_with_how_much(parameters, size, end):
    found = {**numbers(), "parameters": parameters, "perturbation": size}
    assert write_happened(found).sentence.endswith(end)


@pytest.mark.parametrize(
    ("png", "jpeg", "end"),
    [
        (1, 0, "/255). Saved as PNG, it still fools."),
        (0, 1, "/255). Saved as PNG, it fools no longer."),
        (2, 0, "/255). Saved as PNG, it is ash."),
    ],
)
def test_the_card_says_what_rounding_alone_leaves(png, jpeg, end):
    saved = [
        {
            "format": name,
            "quality": quality,
            "prediction": seen,
            "name": ("oak", "elm", "ash")[seen],
            "probability": 0.5,
        }
        for name, quality, seen in (("JPEG", 95, jpeg), ("PNG", None, png), ("JPEG", 75, jpeg))
    ]
    found = {**numbers(), "saved": saved}
    assert write_happened(found).sentence.endswith(end)
    first, second = (("oak", "elm", "ash")[seen] for seen in (jpeg, png))
    begin = "At the model's input size, saved and read again, it is seen: JPEG of quality 95 as "
    assert write_saved_sentence(found).startswith(f"{begin}{first} (50.0 %), PNG as {second} (50.0 %) and JPEG")
    assert write_saved_sentence(numbers()) == ""


def test_a_class_is_true_only_where_somebody_gave_it():
    assert name_first_class({**numbers(), "parameters": {"label": "oak"}}) == "true class"
    for parameters in ({"label": None}, {}):
        assert name_first_class({**numbers(), "parameters": parameters}) == "class predicted for the clean image"


@pytest.mark.parametrize(
    ("own", "random", "shifted", "standing"),
    [
        (3, (0, 1, 2), (0, 2), "better"),
        # As many as the best random order, or as the best shift: chance did it once.
        (2, (0, 1, 2), (0, 1), "no better"),
        (2, (0, 1, 1), (0, 2), "no better"),
        # Where chance does as well as can be, nothing can do better; and the same below.
        (3, (0, 1, 2), (0, 3), "cannot tell"),
        (0, (0, 1, 2), (1, 1), "cannot tell"),
        (0, (1, 1, 2), (1, 2), "worse"),
        (0, (1, 1, 2), (0, 2), "cannot tell"),
        (1, (0, 0, 3), (0, 3), "no better"),
    ],
)
def test_an_order_stands_to_all_that_say_nothing(own, random, shifted, standing):
    verdict = judge_recovery(numbers(own, random, shifted))
    assert verdict.standing == standing
    assert (verdict.right, verdict.points, verdict.random, verdict.shifted) == (own, 3, random, shifted)


@pytest.mark.parametrize(
    ("own", "random", "answer", "end"),
    [
        (3, (0, 1, 2), "Better than chance.", "1 (0 to 2 in 3 draws)|It points at pixels that matter here."),
        (
            1,
            (0, 1, 1),
            "Not clearly better than chance.",
            "0.7 (0 to 1 in 3 draws)|4 of the 5 draws did as well or better: do not read it pixel by pixel.",
        ),
        (0, (1, 1, 1), "Worse than chance.", "1 in each of 3 draws|It points away from the pixels that matter."),
        (
            0,
            (0, 1, 2),
            "This image cannot tell.",
            "1 (0 to 2 in 3 draws)|No order can do worse, and 1 of the 5 draws did as badly.",
        ),
    ],
)
def test_trust_rests_on_one_number_of_shares(own, random, answer, end):
    verdict = write_trusted(numbers(own, random, (1, 2)))
    assert verdict.answer == answer
    chance, advice = end.split("|")
    assert verdict.sentence == (
        "With the pixels that its evidence map ranks highest made black (10 to 30 % of all), the model "
        f"sees oak again at {own} of 3 shares; with random pixels at {chance}, with the map shifted elsewhere at 1.5 "
        f"(1 to 2 in 2 draws). A trustworthy map beats every draw. {advice}"
    )


def test_what_was_never_lost_is_not_brought_back():
    verdict = write_trusted(numbers(3, (0, 0, 0), (0,), outcome="failed", seen=0))
    assert judge_recovery(numbers(seen=0)) is None
    assert verdict.answer == "This image cannot tell."
    assert verdict.sentence.startswith("The model still sees oak, so there is nothing to bring back")
    # What the model never saw does not come again.
    assert " again " not in write_trusted(numbers(outcome="already wrong")).sentence


def effect(true, wrong, whole=(-2.0, 2.0)):
    return {
        "logit_change": {"true": whole[0], "wrong": whole[1]},
        "sum_over_regions": {"true": true, "wrong": wrong},
    }


@pytest.mark.parametrize(
    ("given", "answer", "part"),
    [
        (effect(-1.5, 2.0), "Yes, nearly.", "accounts for 88 % of what it changes"),
        (effect(-0.5, 0.5), "No, they act together.", "accounts for 25 % of what it changes"),
        (effect(-0.5, 0.5, (1.0, -1.0)), "This image cannot tell.", "does not bring the two classes closer"),
    ],
)
def test_without_maps_trust_rests_on_how_regions_add_up(given, answer, part):
    found = {**numbers(), "effect": given}
    del found["recovery"]
    verdict = write_trusted(found)
    assert verdict.answer == answer
    assert part in verdict.sentence


def test_units_are_trusted_as_far_as_their_gradient_holds():
    layer = {
        "layer": "a",
        "rough": {"true": False, "wrong": False},
        "nonlinearity": {"true": 0.1, "wrong": 0.25},
        "completeness": {"true": 0.92, "wrong": 1.1},
    }
    found = {**numbers(), "units": {"rule": {"nonlinearity": 0.5, "amiss": 0.25}, "layers": [layer]}}
    del found["recovery"]
    assert write_trusted(found).answer == "Yes, to first order."
    assert write_trusted(found).sentence == (
        "All effects of a layer add up to 92 to 110 % of a logit's change (all of it would be 100 %), and the gradient "
        "that they come from changes by up to 0.25 from one image to the other (0: not at all). Trust ends 25 % off, "
        "and at 0.5."
    )
    layer["rough"]["wrong"] = True
    assert write_trusted(found).answer == "Not in a."


def test_next_steps_leave_out_what_was_done():
    commands = [step.command for step in list_next_steps(numbers())]
    assert any("study recovery" in command for command in commands)
    assert any(command.startswith("whyfooled dissect ") for command in commands)
    assert any(command.startswith("whyfooled universal fit ") for command in commands)
    done = [step.command for step in list_next_steps({**numbers(), "units": {}, "trust": {}})]
    assert not any("dissect" in command or "universal" in command for command in done)
    failed = numbers(outcome="failed")
    assert any("--epsilon" in step.command for step in list_next_steps(failed))
    # Of an image made elsewhere there is no attack to give more room.
    assert not any("--epsilon" in step.command for step in list_next_steps({**failed, "parameters": {}}))


@pytest.mark.parametrize(
    ("given", "more", "why", "command"),
    [
        ({"own": 3}, {}, "The map beats chance here; check that it is stable, and depends on the model:", "--checks"),
        (
            {"own": 3},
            {"checks": {}},
            "The map beats chance here, on one image; see whether it does on many:",
            "study recovery",
        ),
        (
            {"own": 1},
            {},
            "The map does not clearly beat chance here; test other maps on many photographs:",
            "study recovery",
        ),
        (
            {"own": 0, "random": (1, 1, 2), "shifted": (1,)},
            {},
            "The map does worse than chance here; test other maps on many photographs:",
            "study recovery",
        ),
        (
            {"own": 3, "random": (3, 3)},
            {},
            "This image cannot tell whether to trust the map; many photographs can:",
            "study recovery",
        ),
        (
            {"chance": (2, 19)},
            {},
            "Random changes of this size fool the model too; measure how weak it is on many photographs:",
            "attack FOLDER --attack auto",
        ),
        (
            {"outcome": "failed", "aim": 2},
            {},
            "The model sees another class, if not the one asked for; measure on many how often any will do:",
            "attack FOLDER --attack auto",
        ),
        (
            {},
            {"parameters": {"attack": "aware(steps=20)"}},
            "The attack was to keep its map; see how well it did, beside a plain one and chance:",
            "explain PHOTOGRAPH --forge",
        ),
        (
            {"outcome": "failed"},
            {},
            "The attack failed; before calling the model robust, give it more room:",
            "--epsilon 8/255",
        ),
        (
            {"outcome": "failed"},
            {"parameters": {}},
            "One image that does not fool the model says little; measure robust accuracy on many:",
            "attack FOLDER --attack auto",
        ),
        (
            {"outcome": "already wrong"},
            {},
            "The model is wrong here without any attack; measure how often, attacked or not:",
            "attack FOLDER --attack auto",
        ),
        (
            {},
            {"recovery": None},
            "This report has no maps of what speaks for each class; see them:",
            "--adversarial tensors.safetensors",
        ),
    ],
)
def test_the_first_step_is_what_the_findings_make_most_useful(given, more, why, command):
    first, *others = list_next_steps({**numbers(**given), **more})
    assert first.why == why
    assert command in first.command
    # It does not come a second time, and leaves nothing out.
    assert first.command not in [step.command for step in others]
    assert len(others) >= 2


@pytest.mark.parametrize(
    ("parameters", "ending"),
    [
        ({"model": "lite0"}, "--labels FILE"),
        ({"model": "mine", "options of the model": "--model onnx:a.onnx --mean 0"}, "--model onnx:a.onnx --mean 0"),
        # Made in Python, where nobody knows how the command line would name it.
        ({"model": "Net"}, "--model MODEL"),
    ],
)
def test_next_steps_are_for_the_same_model(parameters, ending):
    commands = [step.command for step in list_next_steps({**numbers(), "parameters": parameters})]
    assert len(commands) > 2
    assert all(command.endswith(ending) for command in commands if "--labels" in command or ending != "--labels FILE")
    assert not any("  " in command or command.endswith(" ") for command in commands)


def test_what_is_left_of_the_class_before_is_said_where_it_is_listed():
    given = numbers()
    left = {"index": 0, "name": "oak", "probability": 0.39}
    given["predictions"]["adversarial"].append(left)
    assert write_happened(given).sentence.startswith(
        "The model saw oak (90.0 %) and now sees elm (60.0 %), ahead of oak (39.0 %); of 19"
    )
