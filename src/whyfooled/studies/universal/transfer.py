"""Whether a perturbation that was fitted on one model moves the maps of others (Ehsani Oskouie & Farnia 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.registry import Card
from whyfooled.running.publishing import hide_folders
from whyfooled.studies.parts.models import Models, check_same_classes
from whyfooled.studies.parts.right_images import right_images
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, check_entries
from whyfooled.studies.table import Columns
from whyfooled.studies.universal import transfer_account
from whyfooled.studies.universal.comparison import CHANCE, D_AND_FOOLED, D
from whyfooled.studies.universal.fits import Fitted, named
from whyfooled.studies.universal.study import GRADIENT, UniversalStudy
from whyfooled.tensors.balls import Ball
from whyfooled.universal import UPIGrad
from whyfooled.universal.evaluation import DIRECTIONS

_METHOD = UPIGrad()


@final
@dataclass(frozen=True)
class UniversalTransfer(UniversalStudy):
    """Fit a perturbation on each of several models, and test each on all of them.

    All models see the same pixels: images and perturbations have the input size of the run's own model, and a model of
    another input size resizes inside (bilinearly, with antialiasing), so that no perturbation is resized by itself.
    What is fitted to a model, and tested on one, are images that it gets right.

    Parameters
    ----------
    method
        The way to find the perturbation; its radius and ball are the study's.
    models
        The models, by the names that ``--model`` takes; they must tell the same classes apart.
    saliency
        The saliency method whose maps are to change.
    """

    method: Any = _METHOD
    models: tuple[str, ...] = ("lite0", "lite1", "lite2")
    saliency: Any = GRADIENT
    epsilon: float = 10.0
    ball: Ball = "l2"
    scale: int = 1
    fit: str = ""
    fit_labels: str = ""
    fit_count: int | None = None
    directions: int = DIRECTIONS

    card: ClassVar[Card] = Card(
        name="universal-transfer",
        title="Universal perturbations on other models",
        summary="How far a perturbation that was fitted on one model moves the maps of others.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, sec. 5",
        cost="a fit on each model; for each image and model a map, and for each model and random direction 1 "
        "map, 1 forward",
    )
    columns: ClassVar[Columns] = {
        "method": "text",
        **UniversalStudy.ball_columns,
        **UniversalStudy.chance_columns,
        "fitted_on": "text",
        "tested_on": "text",
        **UniversalStudy.fit_columns,
        **dict.fromkeys(D_AND_FOOLED, "real"),
    }
    headline: ClassVar[str] = "D on the model fitted on"

    def __post_init__(self) -> None:
        self.check_parameters((self.method,), (self.epsilon,), (self.saliency,))
        # By which they are told apart in tables, wherever their files lie.
        check_entries("models", [hide_folders(name) for name in self.models], once=True)

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which images are fitted to, and the models' weights."""
        models = Models(self.models, setting.seed)
        digests = [(name, models.get(name, setting.classifier).digest()) for name in self.models]
        return {**super().identity(setting), "models_digests": digests}

    def prepare(self, setting: Setting) -> Prepared:
        """Fit on every model."""
        models = Models(self.models, setting.seed)
        check_same_classes(models, setting.classifier, [setting.source, self.fitting_images(setting).source])
        fits = self.begin_fits(setting)
        method = self.sized(self.method, self.epsilon)
        fitted = [
            _on_model(name, fits.find(method, self.saliency, classifier=models.get(name, setting.classifier)))
            for name in self.models
        ]
        return fits.prepared((models, fitted))

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Test every perturbation on every model, with the images that the model gets right."""
        rows: list[dict[str, Any]] = []
        whole = Passes()
        for name in self.models:
            model = batch.prepared[0].get(name, classifier)
            # The run counts those through its own classifier.
            with count_passes(model, besides=classifier) as passes:
                rows += self._test_on(name, model, batch)
            whole.add(passes)
        return Measured(rows, passes=whole)

    def _test_on(self, name: str, model: Classifier, batch: Batch) -> list[dict[str, Any]]:
        """Test every perturbation on one model."""
        right = right_images(model, batch)
        perturbed = self.perturb(right.batch.images, batch.prepared[1], self.epsilon, batch.seed)
        rows = [*right.wrong_rows(), *self.measure_changes(self.saliency, model, right, perturbed)]
        shared = {"tested_on": name, **self.ball_facts(self.epsilon)}
        chance = {"method": named(self.method), "fitted_on": CHANCE}
        return [{**shared, **row, **(chance if row.get("method") == CHANCE else {})} for row in rows]

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take D where a perturbation is tested on the model that it was fitted on."""
        return [row[D] for row in rows if D in row and row["fitted_on"] == row["tested_on"]]

    summarise = staticmethod(transfer_account.summarise)
    draw = staticmethod(transfer_account.draw)


def _on_model(name: str, fitted: Fitted) -> Fitted:
    """Let the rows of a perturbation say which model it was fitted on."""
    facts = {**fitted.facts, "fitted_on": name}
    if "error" in facts:
        facts |= {"fit_images": None, "error": f"{name}: {facts['error']}"}
    return replace(fitted, facts=facts)
