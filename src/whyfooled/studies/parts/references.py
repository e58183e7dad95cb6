"""Images of a run that its others are compared with: a few, read before the measurements."""

from __future__ import annotations

from collections.abc import Callable

from whyfooled.errors import WhyfooledError
from whyfooled.studies.prepare import Setting
from whyfooled.types import Image

Labels = tuple[int, ...]
Reference = tuple[str, Image]
"""An image's name, and the image as the classifier takes it."""


def read_references(
    setting: Setting, count: int, group_of: Callable[[Labels], Labels | None] = lambda _: ()
) -> dict[Labels, list[Reference]]:
    """Read the first images of each group; those that cannot be read are passed over.

    Parameters
    ----------
    setting
        The run.
    count
        How many images of a group.
    group_of
        The group that an image with certain labels is of; None if it is of none. All are of one, ``()``, if left out.
    """
    references: dict[Labels, list[Reference]] = {}
    for place in setting.places:
        group = group_of(setting.source.labels(place))
        chosen = [] if group is None else references.setdefault(group, [])
        if group is None or len(chosen) == count:
            continue
        try:
            sample = setting.source[place]
            chosen.append((sample.name, sample.fitted(setting.classifier.fit, setting.classifier.channels)))
        except WhyfooledError:
            continue  # the runner says so when the image's turn comes
    return references
