# %% [markdown]
# # Does the map depend on the network, or on the method?
#
# A map of **integrated gradient correlation** (IGC) is of a trained network. If another network
# that reads digits as well had quite another map, it would say little about digits. And it is
# made of integrated gradients, where **Shapley values**, which are much older, would serve as
# well: they take the pixels from one image to the other one at a time, in random orders, instead
# of all at once.
#
# We train three networks, a convolutional one with smooth units (Mish), one with ReLU units, and a
# multilayer perceptron, and compare their maps with each other; and the first one's with a map of
# Baseline Shapley Correlation. These are Figures A7 and A8 of the IGC paper (Lelièvre and Chen),
# with numbers: correlations of maps, and their 95 % intervals. The maps themselves are explained in
# [Which pixels tell a 4 from the other digits?](plot_digits.py)
#
# It takes about three and a half minutes on one core, of which training takes half a minute.

# %%
import os
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from scipy import stats

import neuroigc
from neuroigc.attribution import integrated_gradient_correlation, shapley_correlation
from neuroigc.datasets import load_manifest, load_mnist
from neuroigc.models import NeuralClassifier

FAST = "NEUROIGC_FAST" in os.environ  # a shorter version, for automatic tests


def find_data(folder, manifest):
    """Return the folder of a data set, or stop and say how to obtain it."""
    checkout = Path(neuroigc.__file__).resolve().parents[1]
    root = Path(os.environ.get("NEUROIGC_DATA", checkout.parent / "shared" / "data"))
    if not (root / folder).is_dir():
        raise SystemExit(
            f"There is no folder {folder} in {root}: set the environment variable NEUROIGC_DATA "
            f"to the folder that holds it.\n\n{load_manifest(manifest).how_to_obtain}"
        )
    return root / folder


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        path = Path(os.environ["NEUROIGC_FIGURES"], f"{name}.png")
        figure.savefig(path, dpi=120, bbox_inches="tight")


# %% [markdown]
# ## Data
#
# The 10,000 test digits of MNIST, shuffled: 8,000 to learn from, and 1,000 of the others to explain
# (a tenth of all, as in the paper). We deal those out to ten groups with as many of each digit: ten
# maps of a hundred images each tell how much a map depends on the images.

# %%
images, labels = load_mnist(find_data("mnist", "mnist"))
order = np.random.default_rng(0).permutation(len(images))
train, held_out = order[:8000], order[8000:]
digits = np.arange(10)
n_groups, n_each = (3, 4) if FAST else (10, 10)
by_digit = np.stack([held_out[labels[held_out] == digit][: n_groups * n_each] for digit in digits])
groups = by_digit.reshape(10, n_groups, n_each).swapaxes(0, 1).reshape(n_groups, -1)

# %% [markdown]
# ## Three networks

# %%
networks = {
    "CNN, Mish": dict(channels=(8, 16), max_epochs=6),
    "CNN, ReLU": dict(channels=(8, 16), max_epochs=6, activation="relu"),
    "MLP, Mish": dict(channels=(), max_epochs=12),
}
modules, accuracies = {}, {}
for name, options in networks.items():
    if FAST:
        options["max_epochs"] = 2
    classifier = NeuralClassifier(**options).fit(images[train], labels[train])
    modules[name] = classifier.module_
    accuracies[name] = classifier.score(images[held_out], labels[held_out])
    print(f"{name}: {accuracies[name]:.1%} of {len(held_out)} held-out digits are read correctly")

# %% [markdown]
# ## Maps
#
# IGC of each group of images and each network, and Shapley values of the first one. To take each
# pixel on its own would need 785 evaluations of the network for one pair of images: we take
# squares of 2 x 2 pixels, and every image in four pairs, with one order each.

# %%
pool = 4 if FAST else 2


def attribute_groups(attribute, module, **options):
    """Return one map for each group and class."""
    return np.stack(
        [
            attribute(module, images[group], np.equal.outer(labels[group], digits) * 1.0, **options)
            .attributions
            for group in groups
        ]
    )  # fmt: skip


maps = {
    name: attribute_groups(integrated_gradient_correlation, module, max_gradients=15)
    for name, module in modules.items()
}
shapley = attribute_groups(
    shapley_correlation, modules["CNN, Mish"], pool=pool, n_rounds=2, n_orders=1
)


# %%
def in_squares(maps):
    """Sum maps over squares of pixels."""
    side = maps.shape[-1] // pool
    return maps.reshape(*maps.shape[:-2], side, pool, side, pool).sum((-3, -1))


def correlate(ours, theirs):
    """Return the correlation of two maps of all classes, each the mean over groups."""
    return np.corrcoef(ours.mean(0).ravel(), theirs.mean(0).ravel())[0, 1]


def agreement(ours, theirs):
    """Return the correlation of two maps, and its 95 % interval: the jackknife's, over groups."""
    r = correlate(ours, theirs)
    # Fisher's transform keeps the ends of the interval below 1.
    without = np.arctanh(
        [correlate(*(np.delete(m, g, 0) for m in (ours, theirs))) for g in range(n_groups)]
    )
    error = np.sqrt((n_groups - 1) * without.var())
    reach = stats.t.ppf(0.975, n_groups - 1) * error
    return r, *np.tanh(np.arctanh(r) + np.array([-reach, reach]))


pairs = {f"{a}  and  {b}": agreement(maps[a], maps[b]) for a, b in combinations(maps, 2)}
pairs["CNN, Mish:  IGC and Shapley"] = agreement(in_squares(maps["CNN, Mish"]), shapley)
for name, (r, low, high) in pairs.items():
    print(f"{name}: r {r:.2f} ({low:.2f} to {high:.2f})")
lowest_of_networks = min(r for r, _, _ in list(pairs.values())[:3])
shapley_r = pairs["CNN, Mish:  IGC and Shapley"][0]

# %% [markdown]
# How much of that is chance? Two maps of the same network, each of one half of the images, do not
# agree perfectly either.

# %%
half = n_groups // 2
repeat_r = {
    name: correlate(one[:half], one[half:]) for name, one in {**maps, "Shapley": shapley}.items()
}
for name, r in repeat_r.items():
    print(f"{name}: maps of one and of the other half of the images, r {r:.2f}")

# %% [markdown]
# ## Figures A7 and A8
#
# What is red adds to the correlation; each row has a scale of its own. Dotted is the mean digit,
# the blue line is where a digit of the class is likely to differ from the others.

# %%
ink, is_digit = images[train], labels[train] == digits[:, None]
mean_digits = np.array([ink[rows].mean(0) for rows in is_digit])
mean_others = np.array([ink[~rows].mean(0) for rows in is_digit])
levels = np.quantile(mean_digits, 0.8, axis=(1, 2))
differences = mean_digits * (1 - mean_others) + mean_others * (1 - mean_digits)

rows = {**maps, "CNN, Mish\nShapley": shapley}
figure, axes = plt.subplots(4, 10, figsize=(10.5, 4.9), layout="constrained")
for number, (row, (name, of_groups)) in enumerate(zip(axes, rows.items(), strict=True)):
    mean = of_groups.mean(0)
    limit = np.abs(mean).max()
    for digit, ax in zip(digits, row, strict=True):
        # Squares keep their place among the pixels.
        ax.imshow(
            mean[digit], cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(-0.5, 27.5, 27.5, -0.5)
        )
        ax.contour(
            mean_digits[digit], [levels[digit]], colors="black", linestyles=":", linewidths=0.8
        )
        ax.contour(differences[digit], [0.5], colors="tab:blue", linewidths=0.8)
        ax.set(xticks=[], yticks=[])
        if number == 0:
            ax.set_title(digit, fontsize=10)
    row[0].set_ylabel(name, fontsize=9)
lines = [
    Line2D([], [], color="black", linestyle=":", label="mean digit"),
    Line2D([], [], color="tab:blue", label="likely to differ from other digits"),
]
figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
finish(figure, "digits_agreement_maps")

# %%
figure, ax = plt.subplots(figsize=(6.4, 2.2), layout="constrained")
for place, (r, low, high) in enumerate(pairs.values()):
    ax.errorbar(r, -place, xerr=[[r - low], [high - r]], fmt="o", color="black")
ax.set_yticks(-np.arange(len(pairs)), pairs)
ax.set_xlim(None, 1)
ax.set_xlabel("correlation of maps, 95 % interval over groups of images")
ax.spines[["top", "right"]].set_visible(False)
finish(figure, "digits_agreement")

# %% [markdown]
# The two convolutional networks, which read equally well, use much the same pixels, whatever their
# units. The perceptron, which reads less well, uses the same places in a more patchy way: its maps
# have sharper local changes, as the paper remarks. They repeat themselves over images as well as
# the others do, so that this is no chance. Shapley values say what IGC says, and take more work.

# %%
plt.show()
