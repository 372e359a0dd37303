# %% [markdown]
# # Which area carries an image feature?
#
# Train a network to read a feature of an image off the cortex, then ask what its predictions rest
# on. Integrated gradient correlation (IGC) splits the correlation r between decoded and true
# feature over the vertices, so an area's share is a plain sum, and all areas and the rest of the
# cortex add up to r.
#
# The areas are those of early visual cortex and, each merged from several patches, those that
# prefer bodies, faces, places and words. The data are simulated, in the layout of the Natural
# Scenes Dataset: with the real release, only the folder and `space="fsaverage"` change. About
# half a minute.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from neuroigc.attribution import integrated_gradient_correlation
from neuroigc.datasets import image_statistics, load_nsd, load_nsd_images, make_study
from neuroigc.models import NeuralDecoder
from neuroigc.surface import (
    SurfaceMap,
    aggregate_rois,
    combine,
    load_atlas,
    load_mask,
    plot_roi_bars,
    plot_surface_overview,
)


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


# %% [markdown]
# ## The data
#
# Three subjects see a set of images each, and a shared set that is kept for testing. Responses
# come z-scored per session and averaged over repeats, one row per image, for the vertices of a
# mask of visual cortex.

# %%
FEATURES = ["luminance_contrast", "one_over_f_slope"]
SUBJECTS = ["01", "02", "03"]
CATEGORIES = ["bodies", "faces", "places", "words"]
temporary = tempfile.TemporaryDirectory()
root = make_study(
    Path(temporary.name) / "nsd",
    n_subjects=len(SUBJECTS),
    n_sessions=3,
    trials_per_session=300,
    n_shared_images=100,
    image_size=64,
)
labels = root / "nsddata" / "freesurfer"
mask = load_mask(labels / "fsaverage5" / "label" / "{hemi}.nsdgeneral.mgz")
subjects = {name: load_nsd(root, name, space="fsaverage5", mask=mask) for name in SUBJECTS}
features = {
    name: image_statistics(load_nsd_images(root, data.image_ids))[FEATURES].to_numpy()
    for name, data in subjects.items()
}
vertices = subjects["01"].vertices
n_vertices = subjects["01"].responses.shape[1]
print(f"{n_vertices} vertices, {len(subjects['01'].image_ids)} images a subject")

# %% [markdown]
# ## The decoder
#
# One network for all subjects, told by a number whose brain it reads. It never sees the test
# images of anyone.


# %%
def stack(values):
    """Put the subjects' arrays one below the other."""
    return np.concatenate(list(values))


is_test = stack(data.is_test for data in subjects.values())
responses = stack(data.responses for data in subjects.values())
targets = stack(features.values())
conditions = np.repeat(range(len(SUBJECTS)), [len(f) for f in features.values()])
decoder = NeuralDecoder(hidden=(128,) * 5)
decoder.fit(responses[~is_test], targets[~is_test], conditions=conditions[~is_test])
r = decoder.correlation(responses[is_test], targets[is_test], conditions=conditions[is_test])
print("r on held-out images:", dict(zip(FEATURES, r.round(2).tolist(), strict=True)))
lowest_r = float(r.min())

# %% [markdown]
# ## The attribution
#
# For each subject, over the held-out images. Giving the areas as groups yields the standard errors
# of their sums: those of single vertices would not do, because neighbours share their noise.

# %%
tables, results, gaps = [], {}, []
for number, name in enumerate(SUBJECTS):
    folder = labels / f"subj{name}" / "label"
    early = load_atlas(folder / "{hemi}.prf-visualrois.mgz")
    early = early.merge({"V1": ["V1v", "V1d"], "V2": ["V2v", "V2d"], "V3": ["V3v", "V3d"]})
    categories = [load_atlas(folder / f"{{hemi}}.floc-{category}.mgz") for category in CATEGORIES]
    merged = [
        atlas.merge({category: atlas.names})
        for category, atlas in zip(CATEGORIES, categories, strict=True)
    ]
    areas = combine([early, *merged])
    groups = areas.groups(vertices, by_hemisphere=True, elsewhere=True)
    own = is_test & (conditions == number)
    result = integrated_gradient_correlation(
        decoder.module_,
        responses[own],
        targets[own],
        conditions=conditions[own],
        groups=groups,
        tolerance=0.03,
    )
    errors = dict(zip(groups, result.group_standard_errors.T, strict=True))
    tables.append(
        aggregate_rois(
            result.attributions,
            areas,
            vertices,
            subject=name,
            outputs=FEATURES,
            standard_errors=errors,
        )
    )
    results[name] = (result, areas)
    gaps.append(np.abs(result.completeness_gap).max())
table = pd.concat(tables)
largest_gap = float(max(gaps))
print(table[table["output"] == FEATURES[0]].round(3).to_string(index=False))

# %%
contrast = table[(table["output"] == FEATURES[0]) & (table["roi"] != "elsewhere")]
by_area = contrast.pivot_table(index="subject", columns="roi", values="igc", aggfunc="sum")
v1_leads = bool((by_area.idxmax(axis=1) == "V1").all())
sums = table.pivot_table(index="subject", columns="output", values="igc", aggfunc="sum")
totals = np.array([results[name][0].attributions.sum(axis=1) for name in SUBJECTS])
partition_error = float(np.abs(sums[FEATURES].to_numpy() - totals).max())
print("V1 carries most of the contrast in every subject:", v1_leads)

# %% [markdown]
# ## On the cortex, and as bars
#
# Contrast is carried by V1, whose vertices respond to contrast nearly linearly. The slope of the
# amplitude spectrum, a ratio between spatial scales, takes several areas, most of them beyond hV4.

# %%
result, areas = results["01"]
for k, feature in enumerate(FEATURES):
    title = feature.replace("_", " ").capitalize()
    values = SurfaceMap.from_columns(
        result.attributions[k], vertices, space="fsaverage5", units="IGC (sums to r)"
    )
    figure = plot_surface_overview(values, outlines=areas, title=f"{title}, subject 01")
    finish(figure, f"which_area_{feature}")

# %%
figure = plt.figure(figsize=(7, 3.5), layout="constrained")
plot_roi_bars(table, ax=figure.add_subplot())
finish(figure, "which_area_bars")

# %% [markdown]
# Bars are means over subjects, error bars the standard deviation between subjects, dots the
# subjects. A negative value is no lack of information: such an area corrects, systematically, what
# the others overestimate. And credit is shared among correlated vertices: IGC says what the network
# uses, not what a lesion would do.

# %%
temporary.cleanup()
plt.show()
