"""
Explain one photograph
======================

What did an attack do to a photograph, and can the explanation be trusted?
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from whyfooled import FMN, explain, load_classifier
from whyfooled.images import example_photograph

# %%
# The classifier comes with the package. ``FMN`` looks for the nearest image that is given another
# class.

classifier = load_classifier()
explanation = explain(classifier, example_photograph(), attack=FMN())
print(explanation.summary())

# %%
# In a notebook, ``explanation`` alone shows the whole report. Here are the two images and what lies between them,
# which is too small to be seen, and so is stretched.

delta = explanation.delta
pictures = {
    explanation.names[explanation.true]: explanation.clean,
    explanation.names[explanation.wrong]: explanation.adversarial,
    "the difference": 0.5 + delta / (2 * delta.abs().max()),
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture.permute(1, 2, 0))
    axis.set(title=title, xticks=[], yticks=[])

# %%
# The folder holds the report, every number in ``explanation.json``, each beside its chance level, and every panel as a
# file for a paper.

folder = Path(tempfile.mkdtemp())
explanation.save(folder, figures="pdf")
print(*sorted(path.name for path in folder.iterdir()), sep="\n")
