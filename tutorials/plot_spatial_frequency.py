# %% [markdown]
# # Which spatial frequency does a vertex prefer, and where?
#
# A map of integrated gradient correlation (IGC) says *where* in the image the predictions of a
# vertex come from. Blur integrated gradients also say at which *scale*: their path leads through
# the image's own blurred versions, from the coarsest to the sharp one, and what a prediction gains
# on each stretch of it is carried by that band of spatial frequencies. One encoder therefore gives
# position and spatial frequency of every vertex, with natural stimuli alone.
#
# The vertices are invented: contrast energy at a place, by filters of one spatial frequency, which
# falls with eccentricity as it does in V1. So the truth is known. About a minute.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import nn

from neuroigc.attribution import blur_correlation
from neuroigc.prf import fit_prf

FAST = "NEUROIGC_FAST" in os.environ  # a shorter version, for automatic tests
SIZE, EXTENT_DEG = 32, 8.4
PER_DEG = SIZE / EXTENT_DEG
rng = np.random.default_rng(0)


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


# %% [markdown]
# ## Images and vertices
#
# Images have the amplitudes of natural ones, one over the frequency, and patches of different
# contrast, so that places can be told apart. A vertex adds up the energy of filters of four
# orientations under a Gaussian window, and takes the root; then comes noise.


# %%
def make_images(n):
    """Return n images (n, SIZE, SIZE) of contrast 1."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE))
    frequency[0, 0] = np.inf
    noise, strength = (
        np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, SIZE, SIZE))) * f, s=(SIZE, SIZE))
        for f in (1 / frequency, np.exp(-((frequency * SIZE / 3) ** 2)))
    )
    images = noise * np.exp(0.6 * strength / strength.std())
    return (images / images.std((1, 2), keepdims=True)).astype(np.float32)


def respond(images, x, y, frequency):
    """Return contrast energies (n_images, n_vertices), at pixels and cycles per pixel."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    responses = np.empty((len(images), len(x)))
    flat = images.reshape(len(images), -1)
    for vertex, (at_x, at_y, f) in enumerate(zip(x, y, frequency, strict=True)):
        window = np.exp(-((columns - at_x) ** 2 + (rows - at_y) ** 2) * 2 * f**2)
        energy = 0
        for angle in np.pi / 4 * np.arange(4):
            along = (columns - at_x) * np.cos(angle) + (rows - at_y) * np.sin(angle)
            wave = window * np.exp(2j * np.pi * f * along)
            wave -= window * wave.sum() / window.sum()
            energy = energy + np.abs(flat @ wave.ravel().astype(np.complex64)) ** 2
        responses[:, vertex] = np.sqrt(energy)
    return responses


n_images, n_vertices = (900, 20) if FAST else (2500, 50)
images = make_images(n_images)
eccentricity_deg = 0.3 + 2.9 * np.sqrt(rng.random(n_vertices))
angle = 2 * np.pi * rng.random(n_vertices)
x_deg, y_deg = eccentricity_deg * np.cos(angle), eccentricity_deg * np.sin(angle)
# Cycles per degree; vertices of one eccentricity differ as well.
true_frequency = 1.3 * 2 ** (-eccentricity_deg / 2 + 0.2 * rng.standard_normal(n_vertices))
centre = (SIZE - 1) / 2
responses = respond(
    images, centre + x_deg * PER_DEG, centre - y_deg * PER_DEG, true_frequency / PER_DEG
)
responses += 0.7 * responses.std(0) * rng.standard_normal(responses.shape)
held_out = slice(-(100 if FAST else 250), None)

# %% [markdown]
# ## The encoder
#
# Contrast energy in four bands and four orientations on a grid (a Gabor wavelet pyramid), weighted
# by ridge regression. Its bands are not those of the vertices, and nobody tells it of frequencies:
# they are in the weights, mixed with places. Any network that predicts the responses would do; an
# encoder knows frequencies as well as its features do.


# %%
class Pyramid(nn.Module):
    """Energies of Gabor filters, and a weighted sum of them for each vertex."""

    def __init__(self, n_outputs, frequencies=(0.06, 0.1, 0.17, 0.28), width=17, stride=3):
        super().__init__()
        place = np.arange(width) - width // 2
        filters = []
        for f in frequencies:
            window = np.exp(-(place**2 + place[:, None] ** 2) * 2 * f**2)
            for angle in np.pi / 4 * np.arange(4):
                along = place * np.cos(angle) + place[:, None] * np.sin(angle)
                wave = window * np.exp(2j * np.pi * f * along)
                wave -= window * wave.sum() / window.sum()
                wave /= np.linalg.norm(wave)
                filters += [wave.real, wave.imag]
        self.stem = nn.Conv2d(1, len(filters), width, stride, width // 2, bias=False)
        self.stem.weight = nn.Parameter(torch.tensor(np.array(filters)[:, None]).float())
        side = (SIZE - 1) // stride + 1
        self.head = nn.Linear(len(filters) // 2 * side**2, n_outputs)

    def features(self, images):
        energy = self.stem(images[:, None]).square().unflatten(1, (-1, 2)).sum(2)
        return (energy + 1e-3).sqrt().flatten(1)

    def forward(self, images):
        return self.head(self.features(images))


encoder = Pyramid(n_vertices)
with torch.no_grad():
    batches = torch.from_numpy(images).split(250)
    features = torch.cat([encoder.features(batch) for batch in batches]).numpy()
learnt = slice(None, held_out.start)
ridge = RidgeCV(np.geomspace(1, 1e5, 6), alpha_per_target=True)
ridge.fit(features[learnt], responses[learnt])
with torch.no_grad():
    encoder.head.weight.copy_(torch.from_numpy(ridge.coef_))
    encoder.head.bias.copy_(torch.from_numpy(ridge.intercept_))

# %% [markdown]
# ## Position and scale from one attribution
#
# `scale_attributions` has one map for each vertex and band. Summed over pixels, a band carries a
# part of the correlation; summed over bands, a pixel does. The bands and the remainder, which is
# what images blurred to the end still carry, add up to the correlation exactly.

# %%
result = blur_correlation(encoder, images[held_out], responses[held_out], n_points=2)
print(f"median r on held-out images: {np.median(result.correlation):.2f}")
largest_gap = float(np.abs(result.completeness_gap).max())
sums = result.scale_values.sum(1) + result.remainder
print(f"bands and remainder add up to r within {np.abs(sums - result.correlation).max():.1e}")
print(f"maps add up to it within {largest_gap:.1e}")

# %%
found_frequency = result.preferred_frequencies() * PER_DEG
r_frequency = float(np.corrcoef(np.log(found_frequency), np.log(true_frequency))[0, 1])
fields = fit_prf(result.attributions, extent_deg=EXTENT_DEG)
distance = np.hypot(fields.x_deg - x_deg, fields.y_deg - y_deg)
median_distance = float(np.nanmedian(distance))
ratio = float(np.exp(np.median(np.log(found_frequency / true_frequency))))
print(f"r of log spatial frequency {r_frequency:.2f}, found / true {ratio:.2f} (median)")
print(f"median distance of centres {median_distance:.2f} deg")

# %% [markdown]
# Found frequencies are those *of the predictions on these images*, which have more coarse detail
# than fine, and as good as the encoder. Compare vertices that saw the same images with each other.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
octaves = [0.25, 0.5, 1, 2]
axes[0].loglog(true_frequency, found_frequency, "o", ms=4, alpha=0.7)
ends = np.array([0.25, 2])
axes[0].plot(ends, ends, color="0.6", lw=1, label="equal")
axes[0].set(xlabel="true (cycles per degree)", ylabel="found (cycles per degree)")
axes[0].set_title(f"Spatial frequency, r = {r_frequency:.2f}", fontsize=10)
axes[0].legend(frameon=False)
axes[1].semilogy(eccentricity_deg, true_frequency, "o", ms=4, color="0.7", label="true")
found_eccentricity = np.hypot(fields.x_deg, fields.y_deg)
axes[1].semilogy(found_eccentricity, found_frequency, "o", ms=4, alpha=0.7, label="found")
axes[1].set(xlabel="eccentricity (deg)", ylabel="cycles per degree", xlim=(0, 4))
axes[1].set_title("Both found from the same attribution", fontsize=10)
axes[1].legend(frameon=False)
for axis in (axes[0].xaxis, axes[0].yaxis, axes[1].yaxis):
    axis.set_ticks(octaves, [f"{f:g}" for f in octaves])
    axis.set_minor_formatter(plt.NullFormatter())
finish(figure, "spatial_frequency_vertices")

# %% [markdown]
# ## The maps of single vertices
#
# Three vertices, from fine to coarse. Each column is a band, named by its spatial frequency; what
# it carries of the correlation is written above it.

# %%
order = np.argsort(found_frequency)[::-1]
shown = order[[n_vertices // 10, n_vertices // 2, -1 - n_vertices // 10]]
bands = np.flatnonzero(result.frequencies * PER_DEG > 0.1)
figure, axes = plt.subplots(
    len(shown), len(bands), figsize=(1.5 * len(bands), 5), layout="constrained"
)
half = EXTENT_DEG / 2
for place, (row, vertex) in enumerate(zip(axes, shown, strict=True)):
    maps = result.scale_attributions[vertex][bands]
    limit = np.abs(maps).max()
    for ax, values, band in zip(row, maps, bands, strict=True):
        drawn = ax.imshow(
            values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(-half, half, -half, half)
        )
        ax.plot(x_deg[vertex], y_deg[vertex], "k+", ms=8, mew=0.8)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{result.scale_values[vertex, band]:.2f}", fontsize=9)
        if place == len(shown) - 1:
            ax.set_xlabel(f"{result.frequencies[band] * PER_DEG:.2f} cpd", fontsize=9)
    row[0].set_ylabel(f"true {true_frequency[vertex]:.2f} cpd", fontsize=9)
figure.suptitle("IGC by scale and place; crosses: true centres; rows have their own colours")
finish(figure, "spatial_frequency_bands")

# %% [markdown]
# Fine vertices get their correlation from sharp detail, coarse ones from what a blur leaves, each
# at its own place. The attribution has no baseline to choose, and no random pairs: its error is
# that of a quadrature, known for every band.

# %%
plt.show()
