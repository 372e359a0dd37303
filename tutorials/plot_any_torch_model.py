# %% [markdown]
# # What do the predictions of my torch model rest on?
#
# No brains here. Any trained torch model that maps samples to numbers can be asked which of its
# inputs carry what it has learnt: **integrated gradient correlation** (IGC; Lelièvre and Chen)
# splits the correlation r between predictions and truth over the inputs, so that their values add
# up to r. An input of IGC 0.2 carries 0.2 of a correlation of, say, 0.7; one below zero costs.
#
# We ask a residual network about ten measurements of patients and a convolutional one about the
# pixels of digits. Both data sets come with scikit-learn. About half a minute.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.inspection import permutation_importance
from torch import nn

from neuroigc.attribution import (
    MeanBaseline,
    gradient_times_input,
    integrated_gradient_correlation,
)

FAST = "NEUROIGC_FAST" in os.environ  # a shorter version, for automatic tests
N_PERMUTATIONS, N_SHUFFLES = (200, 5) if FAST else (1000, 50)


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


# %% [markdown]
# ## A table: which measurements foretell the course of diabetes?
#
# 442 patients, ten measurements each, and how far the disease has progressed a year later. 242
# patients train the network, the other 200 are explained. The measurements are correlated, total
# and LDL cholesterol most of all.

# %%
NAMES = ["age", "sex", "body mass index", "blood pressure", "total cholesterol", "LDL", "HDL"]
NAMES += ["cholesterol ratio", "triglycerides", "glucose"]
table, progression = load_diabetes(return_X_y=True, scaled=False)
order = np.random.default_rng(0).permutation(len(table))
train, held_out = order[:242], order[242:]
table = (table - table[train].mean(0)) / table[train].std(0)
progression = (progression - progression[train].mean()) / progression[train].std()
x, y = (torch.tensor(values, dtype=torch.float32) for values in (table, progression[:, None]))
alike = np.corrcoef(table[:, 4], table[:, 5])[0, 1]
print(f"total and LDL cholesterol correlate by {alike:.2f}")
for k in (1, 4):
    alone = np.corrcoef(table[held_out, k], progression[held_out])[0, 1]
    print(f"{NAMES[k]} and progression correlate by {alone:.2f}")

# %% [markdown]
# ## Your model, trained your way
#
# Nothing here knows about attribution: modules of one's own, a plain loop, dropout as a layer.


# %%
class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, x):
        return x + self.body(x)


def train_model(model, inputs, targets, loss_function, *, n_epochs, learning_rate):
    """Train by plain torch, in batches of 32."""
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.1)
    model.train()
    for _ in range(n_epochs):
        for batch in torch.randperm(len(inputs)).split(32):
            loss = loss_function(model(inputs[batch]), targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


torch.manual_seed(0)
network = nn.Sequential(
    nn.Linear(10, 32), Residual(32), Residual(32), nn.Dropout(0.3), nn.Linear(32, 1)
)
train_model(network, x[train], y[train], nn.MSELoss(), n_epochs=30, learning_rate=1e-3)

# %% [markdown]
# ## One call
#
# Groups are sums over inputs, and a tree of groups adds up level by level. With permutations of
# the targets each group gets a p-value, and one that is corrected for looking at all of them
# (family-wise). The intervals say where a value would be with endlessly many patients; they and
# the p-values are about this network, not about another one trained on other patients.

# %%
tree = {
    "person": {"age": [0], "sex": [1]},
    "body": {"body mass index": [2], "blood pressure": [3]},
    "blood": {
        "cholesterol": {name: [4 + k] for k, name in enumerate(NAMES[4:8])},
        "triglycerides": [8],
        "glucose": [9],
    },
}
result = integrated_gradient_correlation(
    network, x[held_out], y[held_out], groups=tree, n_permutations=N_PERMUTATIONS
)
paths = result.settings["groups"]  # "blood", "blood/cholesterol", "blood/cholesterol/LDL", ...
igc = dict(zip(paths, result.group_values[0], strict=True))
intervals = dict(zip(paths, result.group_intervals(0.95)[0], strict=True))
p_values = dict(zip(paths, result.group_p_values_fwe[0], strict=True))
r = result.correlation[0]
levels = ("body", "blood", "person")
levels_gap = abs(sum(igc[name] for name in levels) - result.attributions.sum())
table_gap = abs(result.attributions.sum() - r)
print(f"r = {r:.3f}; the ten values add up to {result.attributions.sum():.3f}")
print(f"{result.n_gradients} gradients a patient; error {result.numerical_error[0]:.1%} of the map")
for path in paths:
    low, high = intervals[path]
    print(f"{path:37s} {igc[path]:6.3f}  [{low:6.3f}, {high:6.3f}]  p = {p_values[path]:.3f}")

# %% [markdown]
# ## Two other answers
#
# **Permutation importance** asks how much r falls when a measurement is shuffled among patients.
# That makes patients who cannot be, of high LDL and low total cholesterol, and asks the network
# about those. It counts whatever the network would miss, and r falls by less than r in all:
# what correlated measurements tell alike is not lost when one of them is shuffled. IGC divides what
# there is. Look at sex: by itself it says next to nothing about progression, so it carries none of
# r, but shuffled it lowers r, for the network corrects other measurements by it. And total
# cholesterol, higher in patients who fare worse, lowers this network's forecast: a negative value,
# which what shuffling takes away (next to nothing) cannot show.
#
# **Gradient times input** looks at the slope at each patient only. Averaged as IGC is, it adds up
# to r where a model is linear. Here much is missing: layer norms divide by the size of what comes
# in, so that the network is steep near the mean patient and flat where most patients are.


# %%
class Predictor:
    """What scikit-learn wants a model to be."""

    def fit(self, *_):
        return self

    def predict(self, table):
        with torch.no_grad():
            return network(torch.tensor(table, dtype=torch.float32))[:, 0].numpy()


def correlation(predictor, table, targets):
    return np.corrcoef(predictor.predict(table), targets)[0, 1]


own = table[held_out], progression[held_out]
shuffled = permutation_importance(
    Predictor(), *own, scoring=correlation, n_repeats=N_SHUFFLES, random_state=0
)
drops = dict(zip(NAMES, shuffled.importances, strict=True))


# %%
def joint_drops(members):
    """Return how much r falls when several measurements of a patient are shuffled together."""
    rng, falls = np.random.default_rng(0), []
    for _ in range(N_SHUFFLES):
        mixed = own[0].copy()
        mixed[:, members] = mixed[rng.permutation(len(mixed))][:, members]
        falls.append(r - correlation(Predictor(), mixed, own[1]))
    return np.array(falls)


groups = {"person": [0, 1], "body": [2, 3], "blood": range(4, 10), "cholesterol": range(4, 8)}
drops |= {name: joint_drops(list(members)) for name, members in groups.items()}
sum_of_drops = sum(drops[name].mean() for name in NAMES)
print(f"r falls by {sum_of_drops:.2f} in all, summed over single measurements; r is {r:.2f}")
for name, path in (("sex", "person/sex"), (NAMES[4], f"blood/cholesterol/{NAMES[4]}")):
    print(f"{name}: r falls by {drops[name].mean():.3f}; IGC {igc[path]:.3f}")

slopes = gradient_times_input(network, x[held_out], baseline=MeanBaseline())
scores = (own[1] - own[1].mean()) / own[1].std() / slopes.predictions[:, 0].std()
times_input = (slopes.attributions[:, 0] * scores[:, None]).mean(0)
print(f"gradient x input adds up to {times_input.sum():.3f}, off by {times_input.sum() - r:.3f}")

# %% [markdown]
# In the figure each group comes before its members, largest first; bars of a colour add up to the
# darker bar above them. A star marks p < 0.05, family-wise.


# %%
def sorted_paths(parent=""):
    """Return the paths below one, the largest value first, each followed by its members."""
    depth = parent.count("/") + 1 if parent else 0
    inside = [path for path in paths if path.startswith(f"{parent}/" if parent else "")]
    children = [path for path in inside if path.count("/") == depth]
    for path in sorted(children, key=igc.get, reverse=True):
        yield path
        yield from sorted_paths(path)


rows = list(sorted_paths())
colours = {"person": "tab:green", "body": "tab:orange", "blood": "tab:red"}
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9.5, 5.2), sharey=True, layout="constrained", width_ratios=[1.3, 1]
)
for row, path in enumerate(rows):
    is_group = any(other.startswith(f"{path}/") for other in paths)
    style = {"color": colours[path.split("/")[0]], "alpha": 0.9 if is_group else 0.4}
    drop = drops[path.split("/")[-1]]
    left.barh(row, igc[path], **style)
    right.barh(row, drop.mean(), **style)
    left.plot(intervals[path], [row, row], color="black", linewidth=1.2)
    right.plot(drop.mean() + drop.std() * np.array([-1, 1]), [row, row], color="0.5", linewidth=1.2)
    if p_values[path] < 0.05:
        left.text(intervals[path][1] + 0.01, row, "*", va="center_baseline", fontsize=12)
left.plot(r, len(rows), "kD", markersize=6)
left.axvline(r, color="black", linestyle=":", linewidth=1)
labels = ["    " * path.count("/") + path.split("/")[-1] for path in rows]
left.set_yticks(range(len(rows) + 1), [*labels, "all: r"], ha="left")
left.tick_params(axis="y", length=0, pad=120)
right.tick_params(axis="y", length=0)
left.invert_yaxis()
left.set_xlabel("IGC (share of r), 95 % interval")
right.set_xlabel("fall of r when shuffled, ± 1 s.d. over shuffles")
for ax, letter, title in ((left, "a", "adds up to r"), (right, "b", "permutation importance")):
    ax.set_title(f"{letter}   {title}", loc="left", fontsize=10, fontweight="bold")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
finish(figure, "any_torch_model_table")

# %% [markdown]
# ## Data without labels
#
# Without targets the predictions themselves take their place (auto-correlation, which adds up to
# 1): what does the network *listen* to? Beside the shares of r this tells what it listens to in
# vain, or even to its harm.

# %%
unlabelled = integrated_gradient_correlation(network, x[held_out], None)
auto_sum = unlabelled.attributions.sum()
print(f"the shares of the predictions add up to {auto_sum:.3f}")
shares = result.attributions[0] / r
for name, listened, useful in zip(NAMES, unlabelled.attributions[0], shares, strict=True):
    print(f"{name:18s} {listened:6.1%} of the predictions, {useful:6.1%} of r")

# %% [markdown]
# ## What is refused
#
# Dropout as a layer is switched off for the time being. Called as a function it goes on drawing
# random numbers, so that there is no function to attribute, and the call says so.


# %%
class Restless(nn.Module):
    def forward(self, x):
        return network(nn.functional.dropout(x, 0.1, training=True))


refusal = ""
try:
    integrated_gradient_correlation(Restless(), x[held_out], y[held_out])
except ValueError as error:
    refusal = str(error)
refused = bool(refusal)
print(refusal)

# %% [markdown]
# ## Images: which pixels tell each digit from the others?
#
# 1,797 digits of 8 x 8 pixels; 1,000 train a small convolutional network whose outputs are
# probabilities, and the others are explained. The targets of a class are 1 for its digits and 0
# for the rest.

# %%
pictures, labels = load_digits(return_X_y=True)
images = torch.tensor(pictures.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
classes = torch.tensor(labels)
shuffled_rows = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
seen, unseen = shuffled_rows[:1000], shuffled_rows[1000 : 1300 if FAST else None]
torch.manual_seed(0)
convolutional = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(144, 10)),
)
train_model(
    convolutional,
    images[seen],
    classes[seen],
    nn.CrossEntropyLoss(),
    n_epochs=5 if FAST else 15,
    learning_rate=3e-3,
)
probabilities = nn.Sequential(convolutional, nn.Softmax(1))
with torch.no_grad():
    accuracy = (probabilities(images[unseen]).argmax(1) == classes[unseen]).double().mean().item()
print(f"{accuracy:.1%} of {len(unseen)} unseen digits are read correctly")
one_hot = nn.functional.one_hot(classes, 10)
digits = integrated_gradient_correlation(
    probabilities,
    images[unseen],
    one_hot[unseen],
    tolerance=0.3 if FAST else 0.1,
)
digits_gap = np.abs(digits.attributions.sum((1, 2, 3)) - digits.correlation).max()
print(f"{digits.n_gradients} gradients an image and class; largest gap {digits_gap:.4f}")

# %%
maps = digits.attributions[:, 0]
limit = np.abs(maps).max()
figure, axes = plt.subplots(2, 5, figsize=(9.5, 4.3), layout="constrained")
for digit, ax in enumerate(axes.flat):
    drawn = ax.imshow(maps[digit], cmap="RdBu_r", vmin=-limit, vmax=limit)
    mean_digit = images[seen][classes[seen] == digit].mean((0, 1))
    ax.contour(mean_digit, levels=[0.5], colors="black", linewidths=1)
    ax.set_title(f"{digit}   (sum {maps[digit].sum():.2f})", fontsize=9)
    ax.set(xticks=[], yticks=[])
bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)
bar.set_label("IGC: share of the correlation,\nfor each pixel", fontsize=9)
figure.supxlabel("line: where the mean digit is half ink", fontsize=9)
finish(figure, "any_torch_model_digits")
hole = maps[0, 3:5, 3:5].sum()
print(f"the four pixels in the middle carry {hole:.2f} of the {maps[0].sum():.2f} of a 0")

# %% [markdown]
# Red pixels add to the correlation, be it by ink or by paper: a 0 is told by the paper in its
# middle, a 7 by the paper at the lower right.

# %%
plt.show()
