# %% [markdown]
# # Which method finds the pixels that matter?
#
# To tell whether a map of attributions is right one has to know what is right. Here we do: we
# invent images with the spectrum of photographs, and targets that depend on some places only.
#
# - **A**: the luminance under a wide Gaussian, less half of that under a narrow one in its middle.
# - **B**: the largest of the means of three discs that overlap in the middle.
# - **C**: how similar a disc is to the one below it, the larger similarity of two such pairs. In
#   half of the images, chosen at random, the pair on the right is not looked at: no model can know
#   when, but the targets do.
# - **D**: a category, which of four discs in the corners is most similar to the disc in the middle.
#   Squares in these discs change places before they are compared, at random in every image: no
#   model can know how, but the targets do. So squares have no say in the category. (They still
#   tell of it, because they resemble what surrounds them.)
#
# Then we ask **integrated gradient correlation** (IGC) and its rivals for maps, of the functions
# that made the targets, and of networks that had to learn them. The experiments are those of the
# later edition of the IGC paper (Lelièvre and Chen). The benchmark
# tests/benchmarks/bench_family_simulation.py does the same with more images, more methods
# (Shapley values among them) and further scores, beside the numbers of the paper.
#
# It takes half a minute on one core.

# %%
import os
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from neuroigc.attribution import (
    SampledBaseline,
    ZeroBaseline,
    component_correlation,
    component_t_test,
    gradient_times_input,
    integrated_gradient_correlation,
    summarise_attributions,
)
from neuroigc.datasets import make_localised_statistics
from neuroigc.models import NeuralClassifier, NeuralDecoder

FAST = "NEUROIGC_FAST" in os.environ  # a shorter version, for automatic tests


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        path = Path(os.environ["NEUROIGC_FIGURES"], f"{name}.png")
        figure.savefig(path, dpi=120, bbox_inches="tight")


# %% [markdown]
# ## The methods
#
# IGC sums to the correlation of predictions and targets. **IGaC** takes the predictions in place of
# the targets. Three naive summaries are of integrated gradients (IG) of single images: their
# **mean**, which is close to zero against baselines from the data themselves, their standard
# deviation (**SD**), and that of **gradient × input**, which is cheap. Two need no model: the
# **correlation** of each pixel with the target, and a **t-test** of each pixel between images of
# high and of low targets.

# %%


def attribute(model, images, targets):
    """Return the map of each method, as sizes, (size, size); of D for the first category."""
    first = dict(outputs=[0])
    igc = partial(integrated_gradient_correlation, model, images, max_gradients=33, **first)
    summarise = partial(summarise_attributions, model, images, **first)
    summaries = {
        "IG": summarise(baseline=SampledBaseline(16), n_steps=2),
        "g × i": summarise(method=gradient_times_input, baseline=ZeroBaseline()),
    }
    maps = {
        "IGC": igc(targets).attributions,
        "IGaC": igc(None).attributions,
        "IG mean": summaries["IG"].mean,
        "IG SD": summaries["IG"].standard_deviation,
        "grad × input SD": summaries["g × i"].standard_deviation,
        "correlation": component_correlation(images, targets),
        "t-test": component_t_test(images, targets).t,
    }
    return {name: np.abs(of_outputs[0]) for name, of_outputs in maps.items()}


def overlap(found, truth):
    """Return which part of a map's total lies as the truth does: 1 if they are in proportion."""
    return np.minimum(found / found.sum(), truth / truth.sum()).sum()


# %% [markdown]
# ## Functions and networks
#
# A network is trained for each experiment on other images than those that are explained.

# %%
n_train, n_explained = (1500, 1000) if FAST else (10_000, 1500)
kinds = {"A": "weighted sum", "B": "maximum", "C": "similarity", "D": "category"}
made, of_functions, of_networks = {}, {}, {}
for letter, kind in kinds.items():
    made[letter] = invented = make_localised_statistics(kind, n_train + n_explained)
    flat, targets = invented.images.reshape(len(invented.images), -1), invented.targets
    options = dict(hidden=(128,) * 3, learning_rate=2e-3, weight_decay=0.05, dropout=0.2)
    if kind == "category":
        network = NeuralClassifier(channels=(), **options)
        network.fit(flat[:n_train], targets[:n_train].argmax(1))
    else:
        network = NeuralDecoder(**options).fit(flat[:n_train], targets[:n_train])
    explained, wanted = invented.images[n_train:], targets[n_train:]
    model = nn.Sequential(nn.Flatten(), network.module_).eval()
    of_functions[letter] = attribute(invented.function, explained, wanted)
    of_networks[letter] = attribute(model, explained, wanted)
    with torch.no_grad():
        x = torch.from_numpy(explained)
        both = [f(x).numpy()[:, 0] for f in (invented.function, model)]
    r = [np.corrcoef(f, wanted[:, 0])[0, 1] for f in both]
    print(f"{letter}, {kind}: r with the targets {r[0]:.2f} (function), {r[1]:.2f} (network)")

# %% [markdown]
# ## The maps
#
# On the left the truth: how much each pixel counts, black most. Below each map its overlap with it.

# %%


def draw(maps, title):
    """Draw the truth and each method's map of each experiment."""
    names = list(maps["A"])
    figure, axes = plt.subplots(4, 1 + len(names), figsize=(10.5, 6.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for row, letter in zip(axes, kinds, strict=True):
        truth = made[letter].truth[0]
        for ax, name in zip(row, ["truth", *names], strict=True):
            found = truth if name == "truth" else maps[letter][name]
            ax.imshow(found, cmap="Greys", vmin=0, vmax=np.quantile(found, 0.998))
            ax.set(xticks=[], yticks=[])
            if name != "truth":
                ax.set_xlabel(f"{overlap(found, truth):.2f}", fontsize=8, labelpad=2)
            if letter == "A":
                ax.set_title(name, fontsize=9)
        row[0].set_ylabel(f"{letter}  {kinds[letter]}", fontsize=9)
    return figure


finish(draw(of_functions, "Maps of the functions that made the targets"), "which_method_functions")
finish(draw(of_networks, "Maps of trained networks"), "which_method_networks")

# %% [markdown]
# ## What the maps say of regions
#
# In B, pixels of one disc alone count when this disc has the largest mean, a third of the time. In
# C, the pair on the right counts half of the time, and in D squares have no say; both is known from
# the targets only.


# %%
def relative(maps, letter, some, others):
    """Return the mean of some maps in some regions, relative to that in others."""
    regions = made[letter].regions
    inside, beside = (np.any([regions[name] for name in names], 0) for names in (some, others))
    return {name: maps[letter][name][inside].mean() / maps[letter][name][beside].mean()
            for name in ("IGC", "IGaC", "IG SD")}  # fmt: skip


def tell(title, values):
    """Print a value of each method."""
    print(f"{title}:\n  " + "  ".join(f"{name} {value:.2f}" for name, value in values.items()))


corners = [f"corner {k}" for k in (1, 2, 3, 4)]
alone = [relative(of_functions, "B", [f"disc {k} alone"], ["all discs"]) for k in (1, 2, 3)]
print("B, each disc alone, relative to where all overlap:")
for name in alone[0]:
    print(f"  {name}: " + "  ".join(f"{one[name]:.2f}" for one in alone))
at_chance = relative(of_functions, "C", ["at chance"], ["counts"])
in_squares = relative(of_functions, "D", ["squares"], ["middle", *corners])
in_others = relative(of_functions, "D", corners[1:], corners[:1])
tell("C, the pair that counts at chance, relative to the other", at_chance)
tell("D, squares that change places, relative to what is around them", in_squares)
tell("D, the three other corners, relative to that of the category", in_others)
alone_igc = np.mean([one["IGC"] for one in alone])
chance_igc, chance_igac = at_chance["IGC"], at_chance["IGaC"]
squares_igc, squares_igac = in_squares["IGC"], in_squares["IGaC"]

# %% [markdown]
# ## What to take
#
# Statistics of pixels without a model fail wherever pixels count together (C, D), and blur where
# neighbours are alike (A, B). The mean of IG is mostly noise.
#
# The SD of IG is as good as IGC at telling *that* a pixel is used by a function that is known
# exactly. But it does not know the targets: in C the pair that counts half of the time is as dark
# as the other, and in D squares that mislead are as dark as what is around them. Only IGC sees
# both, the latter in part: squares resemble what is around them, and so go with the targets. In D
# it makes less than the truth of the three other corners, which act on the first category a third
# as much as its own where all four are equally likely, and carry a sixth as much of the
# correlation; there the SD overlaps more. The SD has no sign either, adds up to nothing, and in
# trained networks it counts whatever noise they have learnt: there IGC resembles the truth more,
# in all four.

# %%
scores = {
    title: {letter: {name: overlap(m, made[letter].truth[0]) for name, m in maps[letter].items()}
            for letter in kinds}
    for title, maps in (("functions", of_functions), ("networks", of_networks))
}  # fmt: skip
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for ax, (title, of_letters) in zip(axes, scores.items(), strict=True):
    for number, name in enumerate(of_functions["A"]):
        heights = [of_letters[letter][name] for letter in kinds]
        ax.bar(np.arange(4) + 0.11 * (number - 3), heights, width=0.1, label=name)
    ax.set_xticks(np.arange(4), [f"{k}\n{kind}" for k, kind in kinds.items()], fontsize=8)
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("overlap with the truth")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", frameon=False, fontsize=8)
finish(figure, "which_method_overlap")
igc_over_r = min(
    of_names["IGC"] - of_names["correlation"]
    for letter, of_names in scores["functions"].items()
    if letter != "A"
)

# %%
plt.show()
