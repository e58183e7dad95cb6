"""
One perturbation for many maps
==============================

One fixed pattern changes the saliency maps of images that it has never seen. How much of that would any pattern do?
"""

import matplotlib.pyplot as plt
import skimage.data
import torch

from whyfooled import UPIPCA, Classifier, Gradient, evaluate, load_classifier

# %%
# Crops of three photographs to fit the pattern to, and of three others to test it on. What the classifier sees in
# a crop counts as true: it is the map that is to change, and not the prediction.


def cut_crops(classifier: Classifier, names: tuple[str, ...], count: int, seed: int) -> torch.Tensor:
    """Cut (n,3,h,w) crops, values in [0, 1], out of photographs that scikit-image brings along."""
    generator = torch.Generator().manual_seed(seed)
    height, width = classifier.size
    crops = []
    for name in names:
        photograph = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1) / 255
        for _ in range(count):
            top = int(torch.randint(photograph.shape[1] - height, (), generator=generator))
            left = int(torch.randint(photograph.shape[2] - width, (), generator=generator))
            crops.append(photograph[:, top : top + height, left : left + width])
    return torch.stack(crops)


classifier = load_classifier()
fitted_to = cut_crops(classifier, ("astronaut", "chelsea", "rocket"), 4, seed=0)
tested_on = cut_crops(classifier, ("coffee", "immunohistochemistry", "retina"), 2, seed=1)

# %%
# ``UPIPCA`` looks for the direction that moves all maps most, to first order. A real fit takes some
# hundred images, and more than one pass over them.

delta = UPIPCA(epsilon=10, passes=1, vectors=1).fit(
    classifier, (fitted_to, classifier.predict(fitted_to)), saliency=Gradient()
)
tested = evaluate(classifier, delta, (tested_on, classifier.predict(tested_on)))
print(tested.to_frame().groupby("perturbation")[["dissimilarity", "fooled"]].mean())
print("further than random patterns:", tested.gain())

# %%
# The pattern, stretched to be seen, and what it does to the gradient of one image that it was not fitted to.

image = tested_on[:1]
label = classifier.predict(image)
before, after = (
    Gradient()(classifier, seen, label)[0].abs().sum(0) for seen in (image, (image + delta.delta).clamp(0, 1))
)
panels = {
    "an image": image[0].permute(1, 2, 0),
    "the pattern": (0.5 + delta.delta.squeeze(0) / (6 * delta.delta.std())).clamp(0, 1).permute(1, 2, 0),
    "its map": before,
    "its map under the pattern": after,
}
figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for axis, (title, panel) in zip(axes, panels.items(), strict=True):
    axis.imshow(panel, cmap="inferno", vmax=float(before.quantile(0.995)))
    axis.set(title=title, xticks=[], yticks=[])
