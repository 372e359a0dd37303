# %% [markdown]
# # Which pixels tell a 4 from the other digits?
#
# A network that reads handwritten digits is a small model of a visual system whose strategy we
# do not know. **Integrated gradients** (IG) say, for *one* image, how much each pixel pushed the
# probability of a class up or down. They differ from image to image, so they do not answer the
# question. **Integrated gradient correlation** (IGC) does: it averages IG over all images, each
# weighted by whether it is a 4, so that the map adds up to the correlation between the predicted
# probability of a 4 and the truth. A pixel of IGC 0.01 carries 0.01 of that correlation.
#
# The pictures are Figures 5 and 6 of the IGC paper (Lelièvre and Chen), on the real digits.
# It takes about half a minute on two cores.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

import neuroigc
from neuroigc.attribution import (
    GivenBaseline,
    integrated_gradient_correlation,
    integrated_gradients,
)
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
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


# %% [markdown]
# ## The data
#
# The 10,000 test digits of MNIST, 28 x 28 pixels; 0 is paper and 1 is ink. We shuffle them,
# because the two halves of the file were written by different people. The network learns from
# 8,000; the other 2,000, which it never sees, are those we explain.

# %%
images, labels = load_mnist(find_data("mnist", "mnist"))
order = np.random.default_rng(0).permutation(len(images))
train, held_out = order[:8000], order[8000:]
digits = np.arange(10)

# %% [markdown]
# ## The model
#
# Two convolutions, then five linear layers, with batch normalisation and Mish units as in the
# paper. Its ten outputs are probabilities.

# %%
classifier = NeuralClassifier(channels=(8, 16), max_epochs=3 if FAST else 6)
classifier.fit(images[train], labels[train])
accuracy = classifier.score(images[held_out], labels[held_out])
print(f"{accuracy:.1%} of {len(held_out)} held-out digits are read correctly")

# %% [markdown]
# ## One image at a time: integrated gradients (Figure 5)
#
# An attribution is a comparison: a pixel is important *compared with* another picture. Here these
# are 16 digits from the training set, over which we average. Each row is one sample, each column
# one of the ten probabilities: ink or paper at a red pixel raised that probability, at a blue one
# lowered it. Every picture adds up to the sample's probability minus that of the comparison.

# %%
four = held_out[labels[held_out] == 4][:10]
one_each = np.array([held_out[labels[held_out] == digit][0] for digit in digits])
panels = {"a   digits 0-9": one_each, "b   ten different 4": four}
n_steps = 2 if FAST else 8
sample_maps = {
    title: integrated_gradients(
        classifier.module_,
        images[samples],
        baseline=GivenBaseline(images[train[:16]]),
        n_steps=n_steps,
    ).attributions
    for title, samples in panels.items()
}


# %%
def draw_samples(panel, samples, maps):
    """Draw one row for each sample and one column for each class; rows have their own scale."""
    axes = panel.subplots(10, 10, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for row, (sample, row_maps) in enumerate(zip(samples, maps, strict=True)):
        limit = np.abs(row_maps).max()
        for column, picture in enumerate(row_maps):
            ax = axes[row, column]
            ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
            if column == labels[sample]:
                ax.contour(images[sample], levels=[0.5], colors="black", linewidths=0.5)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(color="0.85", linewidth=0.4)
            if row == 0:
                ax.set_title(column, fontsize=8, pad=3)
        axes[row, 0].set_ylabel(labels[sample], fontsize=8, rotation=0, va="center", labelpad=7)
    return axes


figure = plt.figure(figsize=(9.5, 5.3))
for panel, (title, samples) in zip(figure.subfigures(1, 2), panels.items(), strict=True):
    draw_samples(panel, samples, sample_maps[title])
    panel.subplots_adjust(left=0.1, right=0.98, top=0.87, bottom=0.11)
    panel.suptitle(title, x=0.04, y=0.98, ha="left", fontsize=10, fontweight="bold")
    panel.supxlabel("probability of class", y=0.92, fontsize=9)
    panel.supylabel("sample", fontsize=9)
bar = figure.colorbar(
    ScalarMappable(Normalize(-1, 1), "RdBu_r"),
    cax=figure.add_axes([0.4, 0.08, 0.2, 0.012]),
    orientation="horizontal",
    ticks=[-1, 0, 1],
)
bar.set_ticklabels(["lowers", "0", "raises"], fontsize=8)
bar.set_label("IG, each row relative to its largest", fontsize=8, labelpad=2)
finish(figure, "digits_ig_samples")

# %% [markdown]
# The gap between the arms of a 4 is often red in the column of the 4, but each 4 is different,
# and it is not clear what to do with the digits that are *not* 4.
#
# ## All images: integrated gradient correlation (Figure 6)
#
# 1,000 of the held-out digits are compared with one another. Targets are one column for each
# class, 1 for the images of that class and 0 otherwise. To be quick we take 15 gradients of each
# image; the result says how exact its maps are, and leaving `max_gradients` out makes them as
# exact as `tolerance` asks.

# %%
explained = held_out[: 300 if FAST else 1000]
targets = (labels[explained, None] == digits).astype(float)
result = integrated_gradient_correlation(
    classifier.module_, images[explained], targets, max_gradients=15
)
largest_gap = np.abs(result.attributions.sum((1, 2)) - result.correlation).max()
for digit in digits:
    print(
        f"{digit}: map adds up to {result.attributions[digit].sum():.2f}, "
        f"correlation {result.correlation[digit]:.2f}, "
        f"numerical error of the map {result.numerical_error[digit]:.0%}"
    )

# %% [markdown]
# For comparison we draw what the images alone suggest: the mean digit (dotted: 80 % of its pixels
# are lighter than this line), and where a digit of this class is likely to *differ* from one of
# the other classes, reading ink as the probability that a pixel is written on (blue: 0.5).


# %%
def difference_probability(ours, others):
    """Return where one of two digits has ink and the other has not."""
    return ours * (1 - others) + others * (1 - ours)


ink, is_digit = images[train], labels[train] == digits[:, None]
mean_digits = np.array([ink[rows].mean(0) for rows in is_digit])
mean_others = np.array([ink[~rows].mean(0) for rows in is_digit])
levels = np.quantile(mean_digits, 0.8, axis=(1, 2))
differences = difference_probability(mean_digits, mean_others)


# %%
def draw_class_maps(maps):
    """Draw the IGC map of each class with the two lines."""
    figure, axes = plt.subplots(2, 5, figsize=(9.5, 4.4), layout="constrained")
    limit = np.abs(maps).max()
    for digit, ax in zip(digits, axes.flat, strict=True):
        drawn = ax.imshow(maps[digit], cmap="RdBu_r", vmin=-limit, vmax=limit)
        dotted = {"levels": [levels[digit]], "colors": "black", "linestyles": ":"}
        ax.contour(mean_digits[digit], linewidths=1, **dotted)
        ax.contour(differences[digit], levels=[0.5], colors="tab:blue", linewidths=1)
        ax.set_title(f"{digit}   (sum {maps[digit].sum():.2f})", fontsize=9)
        ax.set(xticks=[], yticks=[])
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("IGC: share of the correlation,\nfor each pixel", fontsize=9)
    lines = [
        Line2D([], [], color="black", linestyle=":", label="mean digit"),
        Line2D([], [], color="tab:blue", label="likely to differ from other digits"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


finish(draw_class_maps(result.attributions), "digits_igc_classes")

# %% [markdown]
# How much of the correlation comes from pixels outside of the mean digit, where a digit of the
# class usually leaves the paper white?

# %%
outside = mean_digits < levels[:, None, None]
shares = (result.attributions * outside).sum((1, 2)) / result.attributions.sum((1, 2))
outside_share = shares.mean()
print(f"{outside_share:.0%} of the correlation lies outside of the mean digits; for each digit:")
print("  ".join(f"{digit}: {share:.0%}" for digit, share in zip(digits, shares, strict=True)))

# %% [markdown]
# The network reads digits by what is *absent* as much as by strokes: the empty centre of a 0, the
# paper on the left of a 3, the gap between the arms of a 4. The mean digit cannot show this.
#
# Other networks, and Shapley values, are asked in
# [Does the map depend on the network, or on the method?](plot_digits_agreement.py)

# %%
plt.show()
