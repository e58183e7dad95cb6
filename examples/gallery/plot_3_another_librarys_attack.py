"""
Another library's attack
========================

Foolbox, torchattacks, ART and adv-lib run as they are; passes are counted and success is judged in the same way for
all.
"""

import foolbox
import matplotlib.pyplot as plt
import pandas as pd
from torch import Tensor, nn

from whyfooled import DDN, PGD, Enhanced, Untargeted, adapt, load_classifier, run_attack
from whyfooled.images import example_photograph

classifier = load_classifier()
image = classifier.prepare(example_photograph())
label = classifier.predict(image)

# %%
# Foolbox's attacks are objects; one that needs a radius is given it by ``adapt``. Ours stand beside
# them. The passes are those that were counted on the model.

attacks = {
    "Foolbox PGD": adapt(foolbox.attacks.LinfPGD(steps=20), epsilon=2 / 255),
    "PGD": PGD(epsilon=2 / 255, steps=20),
    "Foolbox DDN": foolbox.attacks.DDNAttack(steps=60),
    "DDN": DDN(steps=60),
}
results = {name: run_attack(attack, classifier, image, Untargeted(label)) for name, attack in attacks.items()}
columns = ["success", "l2", "linf", "forwards", "backwards"]
print(pd.concat({name: result.to_frame()[columns].iloc[0] for name, result in results.items()}, axis=1).T)

# %%
# What each made is explained in the same way: the evidence for the class that is seen now, against that for the true
# one.

figure, axes = plt.subplots(1, len(results), figsize=(10, 3), layout="constrained")
for axis, (name, result) in zip(axes, results.items(), strict=True):
    evidence = Enhanced()(classifier, result.adversarial, result.predictions, contrast=label)[0].sum(0)
    axis.imshow(evidence, cmap="inferno", vmax=float(evidence.quantile(0.99)))
    axis.set(title=f"{name}:\n{classifier.class_name(int(result.predictions))}", xticks=[], yticks=[])

# %%
# Any function will do. This one adds a constant, and fools nobody, which is said.


def brighten(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Add 2/255 everywhere."""
    return (images + 2 / 255).clamp(0, 1)


print("brighter:", run_attack(brighten, classifier, image, Untargeted(label)).success.tolist())
