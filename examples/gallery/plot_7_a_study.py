"""
A study, from start to figure
=============================

Does removing the most salient pixels bring the true class back, and does it do so more often than removing any
others?
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import skimage.data
from PIL import Image

from whyfooled import FMN, Enhanced, Gradient, load_classifier, run_study
from whyfooled.studies import Recovery

# %%
# A folder of photographs, and a study: an attack, the maps to compare, and what pixels are replaced by.

photographs = Path(tempfile.mkdtemp())
for name in ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry"):
    Image.fromarray(getattr(skimage.data, name)()).save(photographs / f"{name}.png")
study = Recovery(attack=FMN(steps=20), methods=(Enhanced(), Gradient()), fills=("zero",))

# %%
# The run is written as it goes on; the same call goes on where it stopped. With ``engine="ray"`` it is spread over a
# cluster.

classifier = load_classifier()
output = Path(tempfile.mkdtemp()) / "recovery"
result = run_study(study, photographs, output, classifier=classifier)
print(result.summary)

# %%
# Six photographs say little, and the summary says so. The figure, as it was written:

figure = next(output.glob("*.png"))
plt.figure(figsize=(8, 5), layout="constrained")
plt.imshow(plt.imread(figure))
plt.gca().set_axis_off()

# %%
# And the table, with a row for each photograph, map and share of pixels.

result.table.read().head()
