# %% [markdown]
# # Where does a vertex look, without a retinotopy scan?
#
# Train a network that predicts the responses of visual cortex from the images a subject saw. Its
# integrated gradient correlation (IGC) maps, one per vertex, show which pixels the predictions
# rest on: a picture of the vertex's population receptive field (pRF), made from natural images.
#
# The data are simulated, so the true receptive fields are known. About a minute; with more images
# than here the maps get sharper.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from neuroigc.attribution import integrated_gradient_correlation
from neuroigc.datasets import load_nsd, load_nsd_images, make_study
from neuroigc.datasets.simulation import load_truth
from neuroigc.models import NeuralEncoder
from neuroigc.prf import compare_prfs, fit_prf, plot_prf_comparison, plot_prf_gallery
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
# Five convolutions and two linear layers. Every tenth image is held out, and so are the shared
# ones. A perfect model would reach the noise ceiling, which the signal-to-noise ratio of single
# trials (`ncsnr`) tells; vertices are kept whose encoder reaches half of it.

# %%
held_out = data.is_test | (np.arange(len(images)) % 10 == 0)
encoder = NeuralEncoder(n_latents=96)
encoder.fit(images[~held_out], data.responses[~held_out])
r = encoder.correlation(images[held_out], data.responses[held_out])
ceiling = noise_ceiling(data.ncsnr, n_repeats=data.n_repeats[held_out])
good = reaches_ceiling(r, ceiling)
share_good = good.mean()
print(f"median r {np.median(r):.2f}, ceiling {np.median(np.sqrt(ceiling)):.2f}")
print(f"{share_good:.0%} of the vertices reach half the ceiling")

# %% [markdown]
# ## The maps
#
# All vertices at once: gradients are taken for the 96 latents before the last layer, and one
# product turns them into maps of every vertex. Maps are summed over 2 x 2 pixels.

# %%
chosen = np.flatnonzero(held_out)[:150]
result = integrated_gradient_correlation(
    encoder.module_, images[chosen], data.responses[chosen], pool=2, max_gradients=5
)
fields = fit_prf(result.attributions, extent_deg=EXTENT_DEG)

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
# For each of four areas two vertices, solid circles from the map and dotted ones true, both of
# 1 SD. Sizes of maps are not yet sizes of receptive fields: a network that pools local energy
# widens them, natural images narrow them.

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
    result.attributions[shown],
    extent_deg=EXTENT_DEG,
    estimates=fields[shown],
    references={name: values[shown] for name, values in truth.items()},
    titles=[f"{names[v]}, r = {r[v]:.2f}" for v in shown],
)
finish(figure, "prf_natural_images_gallery")

# %%
figure = plot_prf_comparison(
    fields, truth, where=good & (fields.status == "ok"), labels=("IGC map", "truth")
)
finish(figure, "prf_natural_images_comparison")

# %% [markdown]
# Centres follow the truth up to the edge of the images; fields that reach beyond it are cut off,
# and their centres are drawn inwards.

# %%
temporary.cleanup()
plt.show()
