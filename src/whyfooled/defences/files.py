"""Judging many files: photographs, tensors and folders of adversarial images, against clean ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import pandas as pd
import torch
from PIL import Image as PILImage

from whyfooled.attacks.adversaries import adversary_file, is_run, load_adversaries, read_adversary
from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier
from whyfooled.defences.calibration import Calibration, Combination, Judgement, calibrate, find_fewest
from whyfooled.defences.detector import Detector, check_detectors
from whyfooled.defences.evaded import say_evaded
from whyfooled.errors import ImageError, at_least, bad_parameter, warn
from whyfooled.images import (
    common_folder,
    content_digest,
    is_folder,
    is_tensor_file,
    photographs_in,
    read_adversarial,
    read_clean,
    read_photograph,
    to_tensor,
)
from whyfooled.registry import describe
from whyfooled.running.publishing import hide_folders
from whyfooled.tensors.randomness import choose
from whyfooled.types import Images, Progress, silent

TOGETHER = "together"
"""The name under which several detectors are one."""


@final
@dataclass(frozen=True, eq=False)
class Detections:
    """What detectors say of files.

    Parameters
    ----------
    frame
        A row for each file and detector: ``file``, ``prediction``, ``detector``, ``score``, ``threshold`` (the score
        above which it is flagged; missing for several detectors together), ``p_value``, ``flagged``.
    errors
        Why files, or clean ones, were left out, by their names.
    clean
        Of how many clean images each detector knows the scores, by its name.
    false_positives
        The share of clean images that may be flagged.
    """

    frame: pd.DataFrame
    errors: dict[str, str]
    clean: dict[str, int]
    false_positives: float

    def summary(self) -> str:
        """Say how many images each detector flags, how many of clean ones it would, and what that is worth."""
        lines = []
        for detector, rows in self.frame.groupby("detector", sort=False):
            flagged, expected = int(rows["flagged"].sum()), self.false_positives * len(rows)
            size = f", as it learned from {self.clean[str(detector)]}" if detector in self.clean else ""
            lines.append(
                f"{detector} flags {flagged} of {len(rows)} images; of as many clean ones it would flag about "
                f"{expected:.1f} ({self.false_positives:.3g} of them{size})."
            )
        return "\n".join([*lines, say_evaded(list(self.clean))])


@one_thread()
def detect_files(
    classifier: Classifier,
    images: Sequence[str | Path],
    clean: Sequence[str | Path],
    detectors: Sequence[Detector],
    *,
    false_positives: float = 0.05,
    count: int | None = 200,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress = silent,
) -> Detections:
    """Judge photographs, or adversarial images, by detectors that are calibrated on clean ones.

    Parameters
    ----------
    classifier
        The classifier that an attack would have to fool.
    images
        Photographs and folders of them; folders that ``whyfooled attack`` wrote, of which the adversarial images are
        judged (where the attack failed, what it tried); tensors (``.safetensors``, ``.npy``, ``.pt``).
    clean
        The same, for images that nobody has attacked; of folders that ``whyfooled attack`` wrote, the clean images.
    detectors
        The detectors; where there are several, they are judged together too.
    false_positives
        The share of clean images that may be flagged.
    count
        How many clean images to take, drawn at random; all if None.
    batch_size
        How many images are judged together.
    seed
        Seed of that draw.
    progress
        Called with the images done, the images in all, and what is being done.

    Raises
    ------
    ParameterError
        If there are too few clean images for so small a share of false positives.
    ImageError
        If there is no image, or none can be read.
    """
    check_classifier(classifier)
    at_least("batch_size", batch_size, 1)
    check_detectors(detectors)
    judged, clean_files = _find_images(images, adversarial=True), _find_images(clean, adversarial=False)
    _check_count(count, false_positives)
    errors: dict[str, str] = {}
    known = _read_known(classifier, clean_files, count, batch_size, seed, errors, progress)
    calibrations = _calibrate_each(classifier, known, detectors, false_positives)
    rows: list[dict[str, Any]] = []
    for names, batch in _read(classifier, judged, batch_size, errors, progress, "images"):
        rows += _judge(classifier, names, torch.cat(batch), calibrations)
        _warn_of_clean(names, batch, known)
    if not rows:
        raise ImageError(f"None of the {len(judged)} images could be read. {next(iter(errors.values()))}")
    sizes = {describe(one.asked): len(one.clean_scores) for one in calibrations}
    return Detections(pd.DataFrame(rows), errors, sizes, false_positives)


@one_thread()
def calibrate_on_files(
    classifier: Classifier,
    clean: Sequence[str | Path],
    detector: Detector,
    *,
    false_positives: float = 0.05,
    count: int | None = 200,
    seed: int = 0,
    progress: Progress = silent,
) -> Calibration:
    """Calibrate a detector on the clean images of files and folders, as `detect_files` does.

    Raises
    ------
    ParameterError
        If there are too few clean images for so small a share of false positives.
    ImageError
        If none can be read.

    Warns
    -----
    WhyfooledWarning
        If one cannot be read.
    """
    check_detectors([detector])
    _check_count(count, false_positives)
    errors: dict[str, str] = {}
    files = _find_images(clean, adversarial=False)
    known = _read_known(classifier, files, count, 8, seed, errors, progress)
    if errors:
        name, reason = next(iter(errors.items()))
        warn(f"{len(errors)} of the clean images are left out, such as {name}: {reason}")
    return _calibrate_each(classifier, known, [detector], false_positives)[0]


class _File(NamedTuple):
    """An image that is read when it is asked for."""

    name: str
    read: Callable[[Classifier], Images]


def _find_images(places: Sequence[str | Path], *, adversarial: bool) -> list[_File]:
    """List the images of files, named by what sets them apart, and of folders, named below their own."""
    paths = list(map(Path, places))
    loose = [path for path in paths if not is_folder(path)]
    files: list[_File] = []
    if loose:
        root, names = common_folder(photographs_in(loose))
        files += [_File(name, _file_reader(root / name, adversarial)) for name in names]
    for place in filter(is_folder, paths):
        if is_run(place):
            files += [
                _File(f"{place.name}/{name}", _adversary_reader(adversary_file(place, name), adversarial))
                for name in load_adversaries(place).names
            ]
            continue
        for path in photographs_in([place]):
            files.append(_File(path.relative_to(place.parent).as_posix(), _file_reader(path, adversarial)))
    if not files:
        raise bad_parameter("images" if adversarial else "clean", "must name at least one image", "none")
    return files


def _adversary_reader(path: Path, adversarial: bool) -> Callable[[Classifier], Images]:
    def read(classifier: Classifier) -> Images:
        result = read_adversary(path)
        image = result.attempted if adversarial else result.clean
        wanted = (classifier.channels, *classifier.size)
        if image.shape[1:] != wanted:
            raise ImageError(
                f"{path} holds an image of {tuple(image.shape[1:])}; the model's input is {wanted}. "
                "Attack the photographs with this model."
            )
        return image

    return read


def _file_reader(path: Path, adversarial: bool) -> Callable[[Classifier], Images]:
    def read(classifier: Classifier) -> Images:
        if not is_tensor_file(path):
            photograph = read_photograph(path)
            prepared = classifier.prepare(photograph)
            if adversarial:
                _warn_of_prepared(path, photograph, prepared)
            return prepared
        shape = (classifier.channels, *classifier.size)
        return read_adversarial(path, shape) if adversarial else read_clean(path, shape)

    return read


def _warn_of_prepared(path: Path, photograph: PILImage.Image, prepared: Images) -> None:
    """Warn of a picture that may be what the model was fed, and is resized and cropped once more."""
    if (photograph.height, photograph.width) != tuple(prepared.shape[-2:]):
        return
    if not torch.equal(to_tensor(photograph, prepared.shape[1]), prepared[0].cpu()):
        warn(
            f"{path.name} is as large as the model's input, and is resized and cropped like any photograph. If it is "
            "what the model was fed, give it as a tensor (.npy, .safetensors)."
        )


def _read(
    classifier: Classifier,
    files: Sequence[_File],
    size: int,
    errors: dict[str, str],
    progress: Progress,
    doing: str,
) -> Iterator[tuple[list[str], list[Images]]]:
    """Read images batch by batch, with their names; note why some cannot be read."""
    for start in range(0, len(files), size):
        names, images = [], []
        for file in files[start : start + size]:
            try:
                images.append(file.read(classifier).to(classifier.device))
                names.append(file.name)
            except ImageError as error:
                errors[file.name] = hide_folders(str(error))
        if names:
            yield names, images
        progress(min(start + size, len(files)), len(files), doing)


def _read_known(
    classifier: Classifier,
    files: Sequence[_File],
    count: int | None,
    batch_size: int,
    seed: int,
    errors: dict[str, str],
    progress: Progress,
) -> list[Images]:
    """Read clean images, as many as are wanted, drawn at random."""
    chosen = [files[place] for place in choose(len(files), count, seed)]
    batches = _read(classifier, chosen, batch_size, errors, progress, "clean images")
    return [image for _, batch in batches for image in batch]


def _calibrate_each(
    classifier: Classifier, known: Sequence[Images], detectors: Sequence[Detector], false_positives: float
) -> list[Calibration]:
    if not known:
        raise ImageError("None of the clean images could be read.")
    clean = torch.cat(list(known))
    return [calibrate(detector, classifier, clean, false_positives=false_positives) for detector in detectors]


def _judge(
    classifier: Classifier, names: Sequence[str], images: Images, calibrations: Sequence[Calibration]
) -> Iterator[dict[str, Any]]:
    """Give the rows of a batch: for each image what each detector says, and all of them together."""
    seen = [classifier.class_name(label) for label in classifier.predict(images).tolist()]
    judgements: dict[str, tuple[Judgement, float | None]] = {
        describe(one.asked): (one.judge(images), one.threshold) for one in calibrations
    }
    if len(calibrations) > 1:
        judgements[TOGETHER] = Combination(tuple(calibrations)).judge(images), None
    for place, (name, prediction) in enumerate(zip(names, seen, strict=True)):
        for detector, (judgement, threshold) in judgements.items():
            yield {
                "file": name,
                "prediction": prediction,
                "detector": detector,
                "score": float(judgement.scores[place]),
                "threshold": threshold,
                "p_value": float(judgement.p_values[place]),
                "flagged": bool(judgement.flagged[place]),
            }


def _warn_of_clean(names: Sequence[str], images: Sequence[Images], known: Sequence[Images]) -> None:
    """Warn of images that are among the clean ones, whose p-values say nothing."""
    digests = {content_digest(image[0]) for image in known}
    same = [name for name, image in zip(names, images, strict=True) if content_digest(image[0]) in digests]
    if same:
        warn(
            f"{', '.join(same)}: among the clean images, at least in 8 bits a channel. What is known to be clean "
            "cannot be judged by itself.",
            stacklevel=3,
        )


def _check_count(count: int | None, false_positives: float) -> None:
    """Raise `ParameterError` before anything is read if so few clean images cannot be enough."""
    if not 0 < false_positives < 1:
        raise bad_parameter("false_positives", "must be above 0 and under 1", false_positives)
    if count is not None:
        at_least("count", count, find_fewest(false_positives))
