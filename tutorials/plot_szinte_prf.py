# %% [markdown]
# # Where in the visual field does a V1 voxel look?
#
# The classical way to find a voxel's population receptive field (pRF) is to assume its shape (a
# Gaussian), to predict a time series from it, and to search for the Gaussian that predicts best.
# Here we assume no shape. We train a model that predicts each voxel's BOLD signal from the
# *pixels* of the stimulus, ask with integrated gradient correlation (IGC) which pixels its
# predictions rest on, and look where in the map the voxel is. A Gaussian comes in only at the
# end, to read centres off the maps. The centres are compared with the published ones, and with
# those of a classical fit of our own.
#
# The data are real: V1 of one subject who saw moving bars (Szinte 2024, as distributed with
# braincoder), with published Gaussian fits. It takes a few seconds.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from nilearn.glm.first_level import spm_hrf

import neuroigc
from neuroigc.attribution import integrated_gradient_correlation
from neuroigc.datasets import load_manifest
from neuroigc.prf import fit_prf, fit_timeseries_prf, plot_prf_map


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
# One BOLD value for each volume and voxel, and one picture of the stimulus for each volume: where
# on the screen the bar was. Pictures get rows from top to bottom and columns from left to right,
# as everywhere in neuroigc. Of all voxels we keep those that the published Gaussian explains well
# (r² > 0.5), because only of those do we know where they look.

# %%
TR = 1.317025  # seconds
data = find_data("prf_szinte2024", "szinte2024")
bold = pd.read_csv(data / "bold.tsv.gz", sep="\t", index_col="time")
published = pd.read_csv(data / "gauss_parameters.tsv", sep="\t", index_col="source")
grid = pd.read_csv(data / "grid_coordinates.tsv", sep="\t")
apertures = np.load(data / "dm_gazecenter.npz")["arr_0"].transpose(0, 2, 1)  # [t, x, y] to rows

n_volumes, n_rows, n_columns = apertures.shape
width_deg = np.ptp(grid.x) * n_columns / (n_columns - 1)
height_deg = np.ptp(grid.y) * n_rows / (n_rows - 1)
# From here on degrees count from the centre of the pictures, 0.04° above fixation.
published = published[published.r2 > 0.5]
published_x = published.x.to_numpy() - grid.x.mean()
published_y = published.y.to_numpy() - grid.y.mean()
responses = bold[published.index.astype(str)].to_numpy()
responses = (responses - responses.mean(0)) / responses.std(0)
n_voxels = responses.shape[1]
print(f"{n_volumes} volumes, {n_voxels} voxels, pictures of {width_deg:.1f}° x {height_deg:.1f}°")

# %% [markdown]
# ## The model
#
# BOLD lags behind the stimulus, so each pixel's time course is first convolved with the
# haemodynamic response. Then the model is linear: a voxel's prediction is a weighted sum of
# pixels. There are 3,600 weights for each voxel but only 150 volumes, so something has to be said
# about the weights in advance: they are *smooth*. Formally, weights have a Gaussian prior whose
# covariance between two pixels falls off with their distance (standard deviation 4 pixels, 0.9°).
# How much to trust prior against data is one number for all voxels, chosen by predicting left-out
# parts of the run.

# %%
hrf = spm_hrf(TR, oversampling=1)
pixels = apertures.reshape(n_volumes, -1)
design = np.stack([np.convolve(pixel, hrf)[:n_volumes] for pixel in pixels.T], axis=1)
design = (design - design.mean(0)) / design.std()

SMOOTHNESS = 4  # pixels


def gaussian_covariance(n):
    """Return the prior covariance of the weights of n pixels in a line."""
    place = np.arange(n)
    return np.exp(-((place[:, None] - place) ** 2) / (2 * SMOOTHNESS**2))


# The covariance over the plane is that over rows times that over columns.
pictures = design.reshape(n_volumes, n_rows, n_columns)
smoothed = gaussian_covariance(n_rows) @ pictures @ gaussian_covariance(n_columns)
smoothed = smoothed.reshape(n_volumes, -1)
similarity = smoothed @ design.T / n_columns


def fit_volumes(train, noise):
    """Return one coefficient for each training volume and voxel (Gaussian process regression)."""
    kernel = similarity[np.ix_(train, train)] + noise * np.eye(len(train))
    return np.linalg.solve(kernel, responses[train])


def left_out_error(noise, n_parts=5):
    """Return the mean squared error of predictions of left-out parts of the run."""
    errors = []
    for test in np.array_split(np.arange(n_volumes), n_parts):
        train = np.setdiff1d(np.arange(n_volumes), test)
        predicted = similarity[np.ix_(test, train)] @ fit_volumes(train, noise)
        errors.append(((predicted - responses[test]) ** 2).mean(1))
    return np.concatenate(errors).mean()


scale = np.trace(similarity) / n_volumes
noise_levels = scale * np.geomspace(0.1, 100, 13)
noise = min(noise_levels, key=left_out_error)
weights = smoothed.T @ fit_volumes(np.arange(n_volumes), noise) / n_columns

# %% [markdown]
# The fitted weights go into an ordinary torch model. Any torch model would do here, with as many
# layers as you like: IGC only needs its gradients.

# %%
encoder = torch.nn.Linear(n_rows * n_columns, n_voxels, dtype=torch.float64)
with torch.no_grad():
    encoder.weight.copy_(torch.from_numpy(weights.T))
    encoder.bias.zero_()

# %% [markdown]
# ## IGC maps
#
# For each voxel, IGC says how much each pixel contributes to the correlation between predicted
# and measured BOLD; the map adds up to that correlation.

# %%
result = integrated_gradient_correlation(encoder, design, responses)
maps = result.attributions.reshape(n_voxels, n_rows, n_columns)
largest_gap = np.abs(maps.sum((1, 2)) - result.correlation).max()
print(f"correlation of prediction and BOLD: median {np.median(result.correlation):.2f}")
print(f"maps add up to it within {largest_gap:.1e}")

# %% [markdown]
# ## From maps to centres
#
# A Gaussian is fitted to each map, and its centre compared with the published one. Sizes are left
# aside: the map of a smooth model is wider or narrower than the receptive field, depending on the
# stimulus and the prior, and the published sizes of single voxels are noisy too.

# %%
fields = fit_prf(maps, extent_deg=(width_deg, height_deg))
r_x = np.corrcoef(fields.x_deg, published_x)[0, 1]
r_y = np.corrcoef(fields.y_deg, published_y)[0, 1]
distance = np.hypot(fields.x_deg - published_x, fields.y_deg - published_y)
median_distance = np.median(distance)
print(f"r = {r_x:.3f} for x, {r_y:.3f} for y; median distance {median_distance:.2f}°")


# %% [markdown]
# ## The classical fit beside it
#
# `fit_timeseries_prf` searches for the Gaussian whose overlap with the bar, after the haemodynamic
# response, explains the BOLD signal best (Dumoulin & Wandell 2008): much the same as what the
# published fit did. So it should agree with that one better than IGC, which was told nothing of
# Gaussians. Its Gaussians have a positive gain; three voxels whose published gain is negative (BOLD
# falls when a bar comes) are left out of the table.

# %%
classical = fit_timeseries_prf(
    apertures, responses, extent_deg=(width_deg, height_deg), tr=TR, drift_order=1
)
excited = published.amplitude.to_numpy() > 0


def agreement(found):
    """Return how well centres agree with the published ones, over excited voxels."""
    x, y = found.x_deg[excited], found.y_deg[excited]
    apart = np.hypot(x - published_x[excited], y - published_y[excited])
    return {
        "r of x": np.corrcoef(x, published_x[excited])[0, 1],
        "r of y": np.corrcoef(y, published_y[excited])[0, 1],
        "median distance (deg)": np.median(apart),
        "90 % are within (deg)": np.quantile(apart, 0.9),
    }


table = pd.DataFrame({"IGC map": agreement(fields), "classical fit": agreement(classical)}).T
print(f"{excited.sum()} voxels, against the published fit:")
print(table.round(3).to_string())


# %%
def draw_comparison(panel):
    """Draw the centres of excited voxels, of both methods, against the published ones."""
    axes = panel.subplots(2, 2, sharey="row")
    methods = [("IGC map", fields), ("classical fit", classical)]
    for column, (method, found) in zip(axes.T, methods, strict=True):
        rows = [
            ("x", published_x, found.x_deg, width_deg / 2),
            ("y", published_y, found.y_deg, height_deg / 2),
        ]
        for ax, (name, theirs, ours, edge) in zip(column, rows, strict=True):
            for side in (-1, 1):
                ax.axvspan(side * edge, side * 1.95 * edge, color="0.93", linewidth=0)
            ax.axline((0, 0), slope=1, color="0.7", linewidth=0.8)
            ax.scatter(theirs[excited], ours[excited], s=10, alpha=0.5, linewidths=0)
            r = table.loc[method, f"r of {name}"]
            ax.set_title(f"{method}: r = {r:.3f}", fontsize=9)
            ticks = np.arange(-10, 11, 5) if edge > 6 else np.arange(-6, 7, 3)
            limits = (-1.95 * edge, 1.95 * edge)
            ax.set(xlabel=f"{name}, published (deg)", aspect="equal")
            ax.set(xlim=limits, ylim=limits, xticks=ticks, yticks=ticks)
    for ax, name in zip(axes[:, 0], "xy", strict=True):
        ax.set_ylabel(f"{name}, ours (deg)")


def draw_examples(panel):
    """Draw the maps of the best-known voxel in each of six directions."""
    direction = np.degrees(np.arctan2(published_y, published_x)) % 360 // 60
    r2 = published.r2.to_numpy()
    best = [np.flatnonzero(direction == d)[r2[direction == d].argmax()] for d in range(6)]
    panel.suptitle("IGC: share of the correlation, for each pixel", fontsize=10)
    for ax, voxel in zip(panel.subplots(3, 2).T.flat, best, strict=True):
        plot_prf_map(
            maps[voxel],
            extent_deg=(width_deg, height_deg),
            estimate=(fields.x_deg[voxel], fields.y_deg[voxel], fields.size_deg[voxel]),
            reference=(published_x[voxel], published_y[voxel], published.sd.iloc[voxel]),
            ax=ax,
        )
        ax.set_title(f"voxel {published.index[voxel]}", fontsize=9)
        ax.label_outer()


figure = plt.figure(figsize=(11.5, 5.5), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.3])
draw_comparison(left)
draw_examples(right)
finish(figure, "szinte_prf")

# %% [markdown]
# Left: centres of the voxels in the table; grey is outside of the screen, where no bar ever was,
# so that both methods can only point in its direction. Right: examples, with the Gaussian of the
# map (solid) and the published receptive field (dotted), circles of 1 SD. The small square at
# fixation is the fixation target, which is part of the pictures. Faint vertical and horizontal
# arms show the limit of bars: pixels that were always lit together can hardly be told apart.

# %%
plt.show()
