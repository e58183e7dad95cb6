"""
Object or background
====================

Does the perturbation act on the object, or on what is around it? A mask of the object is all it takes.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import skimage.data
import torch
from PIL import Image

from whyfooled import FMN, Untargeted, explain, load_classifier, run_attack

# %%
# A cup of coffee, and a rough mask of it: an ellipse. Label 1 is the cup, 0 what is around it.

photograph = Image.fromarray(skimage.data.coffee())
down, across = torch.linspace(-1, 1, photograph.height), torch.linspace(-1, 1, photograph.width)
rows, columns = torch.meshgrid(down, across, indexing="ij")
mask = (((columns + 0.03) / 0.42).square() + ((rows + 0.22) / 0.7).square() < 1).long()
folder = Path(tempfile.mkdtemp())
(folder / "names.txt").write_text("background\ncup\n")

figure, axis = plt.subplots(figsize=(4.5, 3), layout="constrained")
axis.imshow(photograph)
axis.contour(mask, [0.5], colors="white")
axis.set_axis_off()

# %%
# Effects by name. Removing the perturbation from one region alone says what it does there; the share of its energy
# on a region is to be read beside the region's share of the area.

classifier = load_classifier()
explanation = explain(classifier, photograph, attack=FMN(), regions=mask, names=folder / "names.txt", checks=False)
print(pd.DataFrame(explanation.to_dict()["named"]["regions"]).drop(columns="prediction").round(3))

# %%
# The same attack where it may act on one of them only: how much larger does the perturbation have to be? Pixels
# outside of the mask stay what they are, to the bit.

image = classifier.prepare(photograph)
label = classifier.predict(image)
on_cup = classifier.prepare(Image.fromarray((mask * 255).byte().numpy()).convert("RGB"))[0, 0].round()
for name, allowed in {"anywhere": None, "on the cup": on_cup, "around it": 1 - on_cup}.items():
    result = run_attack(FMN(), classifier, image, Untargeted(label), mask=allowed)
    print(f"{name}: length {float(result.l2):.4f}, now {classifier.class_name(int(result.predictions))}")
