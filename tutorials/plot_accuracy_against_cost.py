# %% [markdown]
# # How many gradients does my model need?
#
# An attribution has two errors. The *numerical* one comes from the finite number of gradients and
# shrinks with work; the *sampling* one comes from the finite number of samples and shrinks only
# with data. Once the first is small beside the second, further gradients are wasted.
#
# This measures both for a model of your own, or for the two that are trained here, and computes
# the `tolerance` to ask for. About a minute.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits, make_friedman1
from torch import nn

from neuroigc.attribution import integrated_gradient_correlation

FAST = "NEUROIGC_FAST" in os.environ  # a shorter version, for automatic tests


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


def train_model(model, inputs, targets, loss_function, n_epochs):
    """Train by plain torch, in batches of 50."""
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(n_epochs):
        for batch in torch.randperm(len(inputs)).split(50):
            loss = loss_function(model(inputs[batch]), targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


# %% [markdown]
# ## Two models
#
# A perceptron for an invented table (Friedman's: five of ten columns matter, by a product, a
# square and two straight lines), and a convolutional network for 8 x 8 digits, whose outputs are
# the probabilities of ten classes. Of each, what it has not seen in training is explained.

# %%
torch.manual_seed(0)
n_trained, n_explained = 1000, 200 if FAST else 400
table, answers = make_friedman1(n_trained + n_explained, noise=1.0, random_state=0)
x = torch.tensor((table - 0.5) * 12**0.5, dtype=torch.float32)
y = torch.tensor((answers - answers.mean()) / answers.std(), dtype=torch.float32)[:, None]
perceptron = nn.Sequential(
    *(nn.Linear(10, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
)
train_model(perceptron, x[:n_trained], y[:n_trained], nn.MSELoss(), n_epochs=20)

pictures, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(pictures))
images = torch.tensor(pictures[order].reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
classes = torch.tensor(labels[order])
convolutional = nn.Sequential(
    *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(72, 10)),
)
train_model(convolutional, images[:1000], classes[:1000], nn.CrossEntropyLoss(), n_epochs=10)
probabilities = nn.Sequential(convolutional, nn.Softmax(1))
one_hot = nn.functional.one_hot(classes, 10).float()

# %% [markdown]
# ## Put your own model here
#
# A title, the model in evaluation mode, the inputs, one column of targets for each output, and
# which outputs to look at. Two hundred samples and one output will do for a first look.

# %%
explained = slice(1000, 1000 + n_explained)
MODELS = {
    "perceptron, table of 10 columns": (perceptron, x[explained], y[explained], [0]),
    "convolutional, digits of 8 x 8 pixels": (
        probabilities,
        images[explained],
        one_hot[explained],
        [3, 8],
    ),
}

# %% [markdown]
# ## Errors at a ladder of gradients
#
# The error of a map is its distance to a converged map, relative to that map's norm, and the root
# mean square of it over the outputs. The converged map takes eight times the gradients of the last
# step, from another seed, so that it shares no random choice with the maps that it judges. What
# the library itself reports (`numerical_error`) stands beside the truth, which nobody knows who
# has not computed a converged map. Like any error of a random draw, that of a single map goes up
# and down: we take the root mean square over three seeds.
#
# The **paper's setting** is 32 random baselines for all samples and 32 steps of a Riemann sum,
# 1,024 gradients a sample.
#
# The **sampling error** is the norm of the standard errors, relative to the map's.

# %%
LADDER = [3, 5, 9, 17, 33] if FAST else [3, 5, 9, 17, 33, 65, 129]
SEEDS = range(1, 3 if FAST else 4)
SHARE = 1 / 3  # of the sampling error that the numerical one may be
N_BASELINES = N_STEPS = 4 if FAST else 32


def root_mean_square(values):
    return float(np.sqrt(np.mean(np.square(values))))


def norms(maps):
    """Return the norm of each output's map."""
    return np.linalg.norm(maps.reshape(len(maps), -1), axis=1)


def paper_map(model, inputs, targets, outputs, seed):
    """Return IGC by equations 8 and 9 of the paper, in plain torch."""
    generator = torch.Generator().manual_seed(seed)
    baselines = inputs[torch.randperm(len(inputs), generator=generator)[:N_BASELINES]]
    with torch.no_grad():
        predictions = model(inputs)[:, outputs]
    targets = targets[:, outputs]
    weights = (targets - targets.mean(0)) / (
        targets.std(0, correction=0) * predictions.std(0, correction=0)
    )
    total = torch.zeros(len(outputs), *inputs.shape[1:])
    for baseline in baselines:
        for step in range(1, N_STEPS + 1):
            points = baseline + step / N_STEPS * (inputs - baseline)
            values = model(points.requires_grad_())[:, outputs]
            # A row of outputs depends on its own point alone: weights go before the gradient.
            for k in range(len(outputs)):
                weighted = (values[:, k] * weights[:, k]).sum()
                (slopes,) = torch.autograd.grad(weighted, points, retain_graph=True)
                total[k] += (slopes * (inputs - baseline)).mean(0)
    return (total / (N_BASELINES * N_STEPS)).numpy()


def measure(model, inputs, targets, outputs):
    """Return the errors of a model's maps against the gradients that they take."""

    def attribute(**options):
        return integrated_gradient_correlation(
            model, inputs, targets, outputs=outputs, tolerance=1e-9, **options
        )

    def error(maps):
        return root_mean_square(norms(maps - converged.attributions) / size)

    converged = attribute(max_gradients=8 * LADDER[-1], seed=0)
    size = norms(converged.attributions)
    found = {"gradients": [], "error": [], "reported": []}
    for limit in LADDER:
        runs = [attribute(max_gradients=limit, seed=seed) for seed in SEEDS]
        found["gradients"].append(runs[0].n_gradients)
        found["error"].append(root_mean_square([error(run.attributions) for run in runs]))
        found["reported"].append(root_mean_square([run.numerical_error for run in runs]))
    paper = [error(paper_map(model, inputs, targets, outputs, seed)) for seed in SEEDS]
    return found | {
        "paper": root_mean_square(paper),
        "reference": root_mean_square(converged.numerical_error),
        "sampling": root_mean_square(norms(converged.standard_errors) / size),
    }


measured = {title: measure(*model) for title, model in MODELS.items()}

# %% [markdown]
# ## How many are enough
#
# The two errors are independent, so they add as squares: a numerical error of a third of the
# sampling error makes the whole larger by 5 %. That is the `tolerance` to ask for. The library
# stops by itself once it reports an error below the tolerance *and* the map adds up to r within a
# fifth of it. The second may take far longer; where only the map matters, give `max_gradients`.


# %%
def first_below(found, tolerance):
    """Return the first step of the ladder whose error is small enough, or the last."""
    below = np.flatnonzero(np.array(found["error"]) <= tolerance)
    return below[0] if len(below) else len(found["error"]) - 1


wanted, enough = {}, {}
n_paper = N_BASELINES * N_STEPS
for title, (model, inputs, targets, outputs) in MODELS.items():
    found = measured[title]
    wanted[title] = tolerance = SHARE * found["sampling"]
    enough[title] = step = first_below(found, tolerance)
    result = integrated_gradient_correlation(
        model, inputs, targets, outputs=outputs, tolerance=tolerance, max_gradients=n_paper
    )
    print(f"\n{title}, {len(inputs)} samples, r = {result.correlation.round(2)}")
    print("gradients a sample  error  reported")
    for row in zip(found["gradients"], found["error"], found["reported"], strict=True):
        print("{:18d}  {:5.3f}  {:8.3f}".format(*row))
    print(f"{n_paper:18d}  {found['paper']:5.3f}  (baselines x steps, as in the paper)")
    print(f"reported error of the converged map {found['reference']:.4f}")
    print(f"sampling error {found['sampling']:.3f}: ask for tolerance={tolerance:.2g}")
    print(f"{found['gradients'][step]} gradients a sample give {found['error'][step]:.3f};")
    gap = np.abs(result.completeness_gap).max()
    print(f"by itself the library takes {result.n_gradients}, to add up to r within {gap:.4f}")

# %% [markdown]
# In the figure, gradients right of the diamond no longer pay: four times the samples would lower
# the grey line to about its half, no number of gradients does. The perceptron is smooth and nearly
# additive, and the cheapest map is exact enough for its samples. The convolutional network takes
# some more. The 1,024 gradients of the paper's setting buy no more than a handful does here,
# because they are spent on 32 baselines, which stand for all samples.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), sharey=True, layout="constrained")
for ax, letter, (title, found) in zip(axes, "ab", measured.items(), strict=True):
    step = enough[title]
    ax.axhline(found["sampling"], color="0.5", linewidth=2, label="sampling error (N samples)")
    ax.axhline(wanted[title], color="0.5", linewidth=1, linestyle="--", label="a third of it")
    ax.plot(found["gradients"], found["error"], "o-", color="tab:blue", label="numerical error")
    ax.plot(
        found["gradients"], found["reported"], "x:", color="tab:orange", label="the same, reported"
    )
    ax.plot(
        n_paper,
        found["paper"],
        "s",
        color="tab:red",
        label=f"{N_BASELINES} baselines x {N_STEPS} steps (paper)",
    )
    at_step = found["gradients"][step], found["error"][step]
    ax.plot(*at_step, "kD", markersize=10, fillstyle="none", label="enough for N samples")
    ax.set(xscale="log", yscale="log", xlabel="gradients per sample")
    n_samples = len(MODELS[title][1])
    ax.set_title(f"{letter}   {title}, N = {n_samples}", loc="left", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("error of the map, relative to its norm")
figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=3,
    frameon=False,
    fontsize=9,
)
finish(figure, "accuracy_against_cost")

# %%
worst_first, worst_last = (max(found["error"][k] for found in measured.values()) for k in (0, -1))
worst_share = max(
    found["error"][enough[title]] / found["sampling"] for title, found in measured.items()
)
reported_ratio = float(
    np.median(np.concatenate([np.divide(f["reported"], f["error"]) for f in measured.values()]))
)
print(f"\nreported errors are {reported_ratio:.2f} of the true ones (median)")
plt.show()
