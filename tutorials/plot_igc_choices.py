# %% [markdown]
# # Baselines, gradients, images, networks: what does a map depend on?
#
# The paper of **integrated gradient correlation** (IGC; Lelièvre and Chen) leaves some questions
# open, which every user meets. We measure the answers on a case where the truth is known: images
# with the spectrum of photographs, whose target is the largest of the means of three overlapping
# discs (experiment B of [Which method finds the pixels that matter?](plot_which_method.py)), and
# networks that had to learn it.
#
# A last question, whether IGC finds receptive fields as they are known from classical experiments,
# is answered by [Receptive fields from natural images](plot_prf_natural_images.py), against the
# truth, and by [Population receptive fields of V1](plot_szinte_prf.py), against published ones.
#
# It takes about a minute on one core.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from torch import nn

from neuroigc.attribution import (
    GivenBaseline,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
    integrated_gradient_correlation,
)
from neuroigc.datasets import make_localised_statistics
from neuroigc.models import NeuralDecoder

FAST = "NEUROIGC_FAST" in os.environ  # a shorter version, for automatic tests


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        path = Path(os.environ["NEUROIGC_FIGURES"], f"{name}.png")
        figure.savefig(path, dpi=120, bbox_inches="tight")


# %% [markdown]
# ## Images, target, networks
#
# The targets have noise, as brains have. Four networks differ in units, depth and width; that the
# images they explain are not those they were trained with goes without saying.

# %%
n_train, n_held_out = (2000, 800) if FAST else (10_000, 4000)
made = make_localised_statistics("maximum", n_train + n_held_out)
rng = np.random.default_rng(0)
signal = made.targets[:, 0] / made.targets.std()
targets = signal + rng.standard_normal(len(signal))
flat = made.images.reshape(len(made.images), -1)
images, wanted = made.images[n_train:], targets[n_train:]

shapes = {
    "Mish, 3 x 128": dict(hidden=(128,) * 3),
    "ReLU, 3 x 128": dict(hidden=(128,) * 3, activation="relu"),
    "Mish, 5 x 64": dict(hidden=(64,) * 5),
    "Mish, 1 x 256": dict(hidden=(256,)),
}
options = dict(learning_rate=2e-3, weight_decay=0.05, dropout=0.2, max_epochs=8)
networks, accuracy = {}, {}
for name, shape in shapes.items():
    decoder = NeuralDecoder(**options, **shape).fit(flat[:n_train], targets[:n_train])
    networks[name] = nn.Sequential(nn.Flatten(), decoder.module_).eval()
    accuracy[name] = decoder.score(flat[n_train:], wanted)
ceiling = np.corrcoef(signal[n_train:], wanted)[0, 1]
print(f"noise ceiling of r: {ceiling:.3f}")
for name, r in accuracy.items():
    print(f"{name}: r {r:.3f} with held-out targets")
network = networks["Mish, 3 x 128"]


def overlap(found):
    """Return which part of a map's total lies as the truth does: 1 if they are in proportion."""
    found, truth = np.abs(found), made.truth[0]
    return np.minimum(found / found.sum(), truth / truth.sum()).sum()


def correlate(one, other):
    """Return the correlation of two maps over pixels."""
    return np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]


# %% [markdown]
# ## Which baseline?
#
# By default every image is compared with others of the data set. A fixed set of images, the mean
# image, or zero (here nearly the mean, as it is for responses that were standardised) are other
# choices; a uniform bright image is one that the network has never seen the like of. All maps add
# up to the correlation, but for the few gradients taken.

# %%
baselines = {
    "other images (default)": PairedBaseline(),
    "32 of the images": SampledBaseline(32),
    "one of the images": SampledBaseline(1),
    "mean image": MeanBaseline(),
    "zero": ZeroBaseline(),
    "bright: 3 SD everywhere": GivenBaseline(np.full((32, 32), 3.0)),
}
some = slice(min(2000, n_held_out))
baseline_maps = {
    name: integrated_gradient_correlation(
        network, images[some], wanted[some], baseline=baseline, max_gradients=33
    ).attributions[0]
    for name, baseline in baselines.items()
}
default = baseline_maps["other images (default)"]
baseline_r = {name: correlate(found, default) for name, found in baseline_maps.items()}
for name, found in baseline_maps.items():
    print(
        f"{name}: adds up to {found.sum():.3f}, r with the default map {baseline_r[name]:.3f}, "
        f"overlap with the truth {overlap(found):.2f}"
    )
least_natural_r = baseline_r["bright: 3 SD everywhere"]
least_usual_r = min(baseline_r[name] for name in ("32 of the images", "mean image", "zero"))

# %% [markdown]
# ## How many gradients?
#
# What is left of the error goes down with the number of gradients for each image; the result tells
# its size without any converged map. (The textbook's 32 baselines in 32 steps are 1,024. See also
# [How many gradients does my model need?](plot_accuracy_against_cost.py))

# %%
converged = integrated_gradient_correlation(
    network, images[some], wanted[some], tolerance=1e-9, max_gradients=400, seed=1
).attributions[0]
numbers = [3, 5, 9, 17, 33, 65]
true_errors, told_errors = [], []
for n_gradients in numbers:
    result = integrated_gradient_correlation(
        network, images[some], wanted[some], tolerance=1e-9, max_gradients=n_gradients
    )
    difference = np.linalg.norm(result.attributions[0] - converged)
    true_errors.append(difference / np.linalg.norm(converged))
    told_errors.append(result.numerical_error[0])
    print(
        f"{result.n_gradients} gradients an image: error {true_errors[-1]:.3f}, "
        f"told {told_errors[-1]:.3f}, r with the converged map "
        f"{correlate(result.attributions, converged):.4f}"
    )
error_at_17 = true_errors[numbers.index(17)]

# %% [markdown]
# ## How many images?
#
# Maps of two sets of images that have none in common: how well do they agree, and how well does one
# of them agree with the truth? The network stays the same.

# %%
counts = [count for count in (125, 250, 500, 1000, 2000) if 2 * count <= n_held_out]
repeat_r, overlaps = [], []
for count in counts:
    both = [
        integrated_gradient_correlation(
            network, images[part], wanted[part], max_gradients=17
        ).attributions[0]
        for part in (slice(count), slice(count, 2 * count))
    ]
    repeat_r.append(correlate(*both))
    overlaps.append(np.mean([overlap(found) for found in both]))
    print(f"{count} images: r of two maps {repeat_r[-1]:.3f}, overlap {overlaps[-1]:.2f}")
last_repeat_r = repeat_r[-1]

# %% [markdown]
# ## Which network?
#
# Networks that predict equally well, on the same images. Their maps differ more than those of
# different images: where neighbouring pixels are alike, many weights predict the same.

# %%
network_maps = {
    name: integrated_gradient_correlation(
        module, images[some], wanted[some], max_gradients=17
    ).attributions[0]
    for name, module in networks.items()
}
table = np.corrcoef([found.ravel() for found in network_maps.values()])
for name, row in zip(network_maps, table, strict=True):
    listed = "  ".join(f"{r:.3f}" for r in row)
    print(f"{name}: {listed}; overlap {overlap(network_maps[name]):.2f}")
lowest_network_r = table.min()
accuracy_range = max(accuracy.values()) - min(accuracy.values())

# %% [markdown]
# ## In one figure

# %%
figure, axes = plt.subplots(2, 2, figsize=(9.5, 6), layout="constrained")
ax = axes[0, 0]
ax.barh(list(baseline_r), list(baseline_r.values()), color="0.4")
ax.invert_yaxis()
ax.set(xlim=(0, 1), xlabel="r with the default map", title="Which baseline?")
ax = axes[0, 1]
ax.loglog(numbers, true_errors, "o-", color="black", label="against the converged map")
ax.loglog(numbers, told_errors, "s--", color="tab:orange", label="told by the result")
ax.set_xticks(numbers, numbers)
steps = [0.002, 0.005, 0.01, 0.02, 0.05]
ax.set_yticks(steps, steps)
ax.minorticks_off()
ax.set(ylim=(0.8 * min(told_errors), 1.3 * max(true_errors)))
ax.set(xlabel="gradients for each image", ylabel="relative error", title="How many gradients?")
ax.legend(frameon=False)
ax = axes[1, 0]
ax.plot(counts, repeat_r, "o-", color="black", label="r of two maps")
ax.plot(counts, overlaps, "s--", color="tab:orange", label="overlap with the truth")
ax.set_xscale("log")
ax.set_xticks(counts, counts)
ax.minorticks_off()
ax.set(xlabel="images", ylim=(0, 1.05), title="How many images?")
ax.legend(frameon=False)
ax = axes[1, 1]
drawn = ax.imshow(table, vmin=0, vmax=1, cmap="viridis")
for (row, column), r in np.ndenumerate(table):
    ax.text(column, row, f"{r:.2f}", ha="center", va="center", color="black", fontsize=8)
labels = [f"{name}\nr {accuracy[name]:.3f}" for name in network_maps]
ax.set_yticks(range(4), labels, fontsize=8)
ax.set_xticks([])
ax.set_title("Which network? (r of maps)")
for ax in axes.flat[:3]:
    ax.spines[["top", "right"]].set_visible(False)
finish(figure, "igc_choices")

# %%
plt.show()
