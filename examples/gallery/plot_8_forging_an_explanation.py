"""
An attack that knows the explanation
====================================

The evidence map reacts to attacks, unless the attacker looks at it too.
"""

import matplotlib.pyplot as plt

from whyfooled import Enhanced, ExplanationAware, Untargeted, load_classifier, run_aware
from whyfooled.images import example_photograph

classifier = load_classifier()
image = classifier.prepare(example_photograph())
label = classifier.predict(image)

# %%
# ``ExplanationAware`` fools the classifier and keeps the enhanced map near that of the clean image, by
# one perturbation. ``run_aware`` runs a plain attack of the same size beside it.

result = run_aware(ExplanationAware(epsilon=4 / 255, steps=20), classifier, image, Untargeted(label))
print("failed part:", result.failed)
print(result.maps_frame()[["shown", "cosine", "top_share"]].round(3))

# %%
# The map that an analyst would look at, before the attack and after it.

rival = classifier(image).topk(2).indices[:, 1]
maps = {
    "clean: its class": Enhanced()(classifier, image, label, contrast=rival),
    "forged: the class now seen": Enhanced()(classifier, result.adversarial, result.predictions, contrast=label),
}
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), layout="constrained")
axes[0].imshow(result.adversarial[0].permute(1, 2, 0))
axes[0].set(title=classifier.class_name(int(result.predictions)), xticks=[], yticks=[])
for axis, (title, found) in zip(axes[1:], maps.items(), strict=True):
    evidence = found[0].sum(0)
    axis.imshow(evidence, cmap="inferno", vmax=float(evidence.quantile(0.99)))
    axis.set(title=title, xticks=[], yticks=[])
