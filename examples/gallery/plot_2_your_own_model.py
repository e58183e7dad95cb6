"""
Your own model
==============

Anything that maps images to logits can be explained. Here a small network learns to tell textures apart, and is then
fooled.
"""

import matplotlib.pyplot as plt
import skimage.data
import torch
from torch import nn

from whyfooled import FMN, Classifier, Enhanced, GradCAM, Gradient, Untargeted, run_attack

# %%
# Patches of 32 × 32 pixels of three photographs: brick, grass and gravel. The upper halves are learned from, the lower
# ones are held out.

NAMES = ("brick", "grass", "gravel")
PATCH = 32


def cut_patches(half: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut half of each photograph into patches (n,1,32,32) with values in [0, 1]; the labels (n,) say which it was."""
    photographs = [torch.from_numpy(getattr(skimage.data, name)())[half] / 255 for name in NAMES]
    patches = [photo.unfold(0, PATCH, 16).unfold(1, PATCH, 16).reshape(-1, 1, PATCH, PATCH) for photo in photographs]
    labels = [torch.full((len(patch),), index) for index, patch in enumerate(patches)]
    return torch.cat(patches), torch.cat(labels)


images, labels = cut_patches(slice(0, 256))
held_out, truth = cut_patches(slice(256, 512))

# %%
# The network is a plain PyTorch module. ``Classifier`` adds what the module does not know: how large
# its images are, how they are normalised, and what the classes are called. Attacks and maps see images in [0, 1].

torch.manual_seed(0)
module = nn.Sequential(
    *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(NAMES))),
)
optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
for _ in range(8):
    for chosen in torch.split(torch.randperm(len(images)), 64):
        loss = nn.functional.cross_entropy(module((images[chosen] - 0.5) / 0.25), labels[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

classifier = Classifier(module.eval(), mean=(0.5,), std=(0.25,), size=(PATCH, PATCH), class_names=NAMES)
right = classifier.predict(held_out) == truth
print(f"Right on {right.float().mean():.3f} of {len(held_out)} patches held out.")

# %%
# How large a change does it take to fool it? ``FMN`` looks for the smallest one of each patch. Success
# is judged by ``run_attack`` itself.

chosen = torch.where(right)[0][::20]
result = run_attack(FMN(), classifier, held_out[chosen], Untargeted(truth[chosen]))
print(result.to_frame()[["l2", "linf", "success"]].describe().loc[["mean", "min", "max"]])

# %%
# Where is the evidence for the wrong class? Several methods take the same arguments: the images, the class, and for an
# enhanced map the class to hold it against.

first = [int(torch.where(truth[chosen] == index)[0][0]) for index in range(len(NAMES))]
fooled, seen, shown = result.adversarial[first], result.predictions[first], truth[chosen][first]
maps = {
    "gradient": Gradient()(classifier, fooled, seen),
    "Grad-CAM": GradCAM()(classifier, fooled, seen),
    "enhanced": Enhanced()(classifier, fooled, seen, contrast=shown),
}
figure, axes = plt.subplots(3, 5, figsize=(9, 5.6), layout="constrained")
for row, (clean, after) in enumerate(zip(held_out[chosen][first], fooled, strict=True)):
    panels = [clean, after, *(found[row].abs().sum(0, keepdim=True) for found in maps.values())]
    heads = [NAMES[shown[row]], NAMES[seen[row]], *maps]
    for axis, panel, head in zip(axes[row], panels, heads, strict=True):
        axis.imshow(panel[0], cmap="gray" if head in NAMES else "inferno")
        axis.set(title=head, xticks=[], yticks=[])
