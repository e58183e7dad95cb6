"""
Dissect hidden units
====================

Which colours do hidden units react to? Colours need no annotation, so any folder of photographs will do.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import skimage.data
from PIL import Image

from whyfooled import dissect, load_classifier, open_concepts

# %%
# A folder of photographs. Some hundred are a good number; with a few, most of what is found is chance, which the
# numbers show.

folder = Path(tempfile.mkdtemp())
for name in ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry", "hubble_deep_field"):
    Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")

# %%
# A unit detects the colour that the places where it is most active overlap most, if it does so by more than 0.04.
# Every number has a chance level: colours permuted among the photographs.

classifier = load_classifier()
found = dissect(classifier, ["blocks.1", "blocks.3"], open_concepts(f"colours:{folder}"))
table = found.to_frame()
table[["layer", "unit", "concept", "iou", "chance_iou", "detector"]].sort_values("iou", ascending=False).head(10)

# %%
# Detectors by colour.

detectors = table[table["detector"]].groupby(["concept", "layer"]).size().unstack(fill_value=0)
detectors.plot.barh(stacked=True, figsize=(7, 3.5), xlabel="units", ylabel="")
plt.tight_layout()
