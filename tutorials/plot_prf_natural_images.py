# %% [markdown]
# # Where does a vertex look, without a retinotopy scan?
#
# Train a network that predicts the responses of visual cortex from the images a subject saw. Its
# integrated gradient correlation (IGC) maps, one per vertex, show which places the predictions
# rest on: a picture of the vertex's population receptive field (pRF), made from natural images.
# Phantoms, invented vertices whose receptive fields are known, go the same way, and tell what
# sizes and centres are worth on the images at hand.
#
# The data are simulated, so the true receptive fields are known. About a minute; with more images
# than here the maps get sharper (see "How many images do I need?").

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from neuroigc.attribution import window_correlation
from neuroigc.datasets import load_nsd, load_nsd_images, make_study
from neuroigc.datasets.simulation import load_truth
from neuroigc.models import FieldEncoder
from neuroigc.prf import (
    calibrate_prfs,
    compare_prfs,
    fit_prf,
    make_phantoms,
    plot_calibration,
    plot_prf_comparison,
    plot_prf_gallery,
    stimulus_power,
)
from neuroigc.stats import noise_ceiling, reaches_ceiling
from neuroigc.surface import load_atlas

FAST = "NEUROIGC_FAST" in os.environ
EXTENT_DEG = 8.4


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


# %% [markdown]
# ## The data
#
# One subject; the vertices of V1 to hV4. Images are grey and 48 pixels wide, which is coarse, but
# so are the receptive fields.

# %%
temporary = tempfile.TemporaryDirectory()
root = make_study(
    Path(temporary.name) / "nsd",
    n_subjects=1,
    n_sessions=5 if FAST else 9,
    trials_per_session=400,
    n_shared_images=100,
    image_size=96,
)
label_folder = root / "nsddata" / "freesurfer" / "subj01" / "label"
areas = load_atlas(label_folder / "{hemi}.prf-visualrois.mgz")
mask = {side: areas.labels[side] > 0 for side in ("left", "right")}
data = load_nsd(root, "01", space="fsaverage5", mask=mask)
images = load_nsd_images(root, data.image_ids, size=48)
n_vertices = data.responses.shape[1]
print(f"{len(images)} images, {n_vertices} vertices")

# %% [markdown]
# ## The encoder
#
# Convolutions that are learned, and for every vertex a Gaussian window on them, divided by what
# the whole scene holds and compressed. Phantoms are trained with the vertices: they have the
# subject's noise, and fields all over the image. Every tenth image is held out, and so are the
# shared ones. A perfect model would reach the noise ceiling, which the signal-to-noise ratio of
# single trials (`ncsnr`) tells; vertices are kept whose encoder reaches half of it.

# %%
held_out = data.is_test | (np.arange(len(images)) % 10 == 0)
phantoms = make_phantoms(
    images,
    extent_deg=EXTENT_DEG,
    n_repeats=data.n_repeats,
    ncsnr=data.ncsnr,
    n_phantoms=150 if FAST else 400,
)
responses = np.concatenate([data.responses, phantoms.responses], axis=1)
encoder = FieldEncoder(max_epochs=12)
encoder.fit(images[~held_out], responses[~held_out], sample_weight=data.n_repeats[~held_out])
r = encoder.correlation(images[held_out], responses[held_out])[:n_vertices]
ceiling = noise_ceiling(data.ncsnr, n_repeats=data.n_repeats[held_out])
good = reaches_ceiling(r, ceiling)
share_good = good.mean()
print(f"median r {np.median(r):.2f}, ceiling {np.median(np.sqrt(ceiling)):.2f}")
print(f"{share_good:.0%} of the vertices reach half the ceiling")

# %% [markdown]
# ## The maps
#
# All vertices at once, on the grid of features that the windows look at. By default predictions
# stand for the targets, so that maps are free of the noise of responses, and images that were
# learned from serve as well. The variance of contrast differs from place to place, and maps with
# it; dividing by it leaves the receptive field. The encoder also tells how strongly a vertex
# compresses what it pools, which widens its responses to small things.

# %%
result = window_correlation(encoder.module_, images)
n_rows, n_columns = result.attributions.shape[1:]
maps = result.attributions / stimulus_power(images, shape=(n_rows, n_columns))
fields = fit_prf(maps, extent_deg=EXTENT_DEG)
fields = fields.with_exponent(encoder.receptive_fields(EXTENT_DEG)["exponent"])
ncsnr = np.concatenate([data.ncsnr, phantoms.ncsnr])
fields, calibration = calibrate_prfs(
    fields[:n_vertices],
    fields[n_vertices:],
    phantoms,
    quality=ncsnr[:n_vertices],
    phantom_quality=ncsnr[n_vertices:],
)
print(calibration.expected_errors())
figure = plot_calibration(calibration)
finish(figure, "prf_natural_images_phantoms")

# %% [markdown]
# ## Against the truth

# %%
truth = load_truth(root, 1)
truth = {
    name: np.concatenate([truth[side][name][data.vertices[side]] for side in ("left", "right")])
    for name in ("x_deg", "y_deg", "size_deg")
}
comparison = compare_prfs(fields, truth, where=good & (fields.status == "ok"))
for name, value in comparison.items():
    print(f"{name:26s} {value:.3f}")
median_centre_error = float(comparison["median_centre_error_deg"])
r_eccentricity = float(comparison["r_eccentricity"])
r_angle = float(comparison["r_angle"])

# %% [markdown]
# ## What they look like
#
# For each of four areas two vertices, solid circles estimated and dotted ones true, both of
# 1 SD.

# %%
shown = []
for area in ("V1v", "V2d", "V3v", "hV4"):
    columns = areas.groups(data.vertices)[area]
    columns = columns[good[columns]]
    order = columns[np.argsort(r[columns])[::-1]]
    shown += [order[0], order[len(order) // 3]]
names = np.full(n_vertices, "", dtype=object)
for area, columns in areas.groups(data.vertices).items():
    names[columns] = area
figure = plot_prf_gallery(
    maps[shown],
    extent_deg=EXTENT_DEG,
    estimates=fields[shown],
    references={name: values[shown] for name, values in truth.items()},
    titles=[f"{names[v]}, r = {r[v]:.2f}" for v in shown],
)
finish(figure, "prf_natural_images_gallery")

# %%
figure = plot_prf_comparison(
    fields, truth, where=good & (fields.status == "ok"), labels=("IGC", "truth")
)
finish(figure, "prf_natural_images_comparison")

# %% [markdown]
# Centres follow the truth up to the edge of the images; fields that reach beyond it are cut off,
# and their centres are drawn inwards.

# %%
temporary.cleanup()
plt.show()
