# %% [markdown]
# # Which hidden units carry a decoding, and which areas feed them?
#
# Integrated gradient correlation (IGC) splits the correlation r between decoded and true feature
# over the vertices of the cortex. The same can be asked of every layer in between: what a *hidden
# unit* carries of r. In each layer the units add up to r anew. And because a unit's share can be
# taken for one area of the cortex alone (the unit *targeted* at a region), there is a table of
# units and areas whose columns add up to the areas' IGC, whose rows add up to the units', and
# whose whole is r: a picture of how a network brings areas together.
#
# The data are simulated, in the layout of the Natural Scenes Dataset. About half a minute.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from neuroigc.attribution import compare_maps, integrated_gradient_correlation, layer_correlation
from neuroigc.datasets import image_statistics, load_nsd, load_nsd_images, make_study
from neuroigc.models import NeuralDecoder
from neuroigc.surface import load_atlas, load_mask

FAST = "NEUROIGC_FAST" in os.environ  # a shorter version, for automatic tests


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


# %% [markdown]
# ## A decoder of two features
#
# Luminance contrast and the slope of the amplitude spectrum, read off the visual cortex of one
# subject by a small network. Every third image is held out, and explained.

# %%
FEATURES = {"luminance_contrast": "contrast", "one_over_f_slope": "1/f slope"}
temporary = tempfile.TemporaryDirectory()
root = make_study(
    Path(temporary.name) / "nsd",
    n_subjects=1,
    n_sessions=2 if FAST else 4,
    trials_per_session=300,
    n_shared_images=50,
    image_size=48,
)
labels = root / "nsddata" / "freesurfer"
mask = load_mask(labels / "fsaverage5" / "label" / "{hemi}.nsdgeneral.mgz")
data = load_nsd(root, "01", space="fsaverage5", mask=mask)
statistics = image_statistics(load_nsd_images(root, data.image_ids))
targets = statistics[list(FEATURES)].to_numpy()
held_out = np.arange(len(targets)) % 3 == 0
decoder = NeuralDecoder(hidden=(64, 64, 16), max_epochs=15 if FAST else 30)
decoder.fit(data.responses[~held_out], targets[~held_out])
x, y = data.responses[held_out], targets[held_out]
r = decoder.correlation(x, y)
lowest_r = float(r.min())
print("r on held-out images:", dict(zip(FEATURES.values(), r.round(2).tolist(), strict=True)))

# %% [markdown]
# ## Units, areas, and the table of both
#
# The units are those of the last hidden layer, `body`; the regions are areas and, so that the
# table is complete, all other vertices.

# %%
atlas = load_atlas(labels / "subj01" / "label" / "{hemi}.prf-visualrois.mgz")
atlas = atlas.merge({"V1": ["V1v", "V1d"], "V2": ["V2v", "V2d"], "V3": ["V3v", "V3d"]})
areas = atlas.groups(data.vertices, elsewhere=True)
found = layer_correlation(
    decoder.module_, x, y, layer="body", regions=areas, n_pairs=8 if FAST else 24, n_steps=4
)
table = found.region_attributions  # (n_outputs, n_areas, n_units)
names = found.settings["groups"]
unit_gap = float(np.abs(table.sum(1) - found.attributions).max())
area_gap = float(np.abs(table.sum(2) - found.group_values).max())
largest_gap = float(np.abs(found.completeness_gap).max())
print(f"areas add up to units within {unit_gap:.0e}, units to areas within {area_gap:.0e}")
print(f"all of them add up to r within {largest_gap:.3f}, for want of more pairs")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 5), layout="constrained")
n_units = table.shape[2]
order = np.argsort(found.attributions[0])[::-1]
limit = np.abs(table).max()
for ax, values, units, regions, feature in zip(
    axes, table, found.attributions, found.group_values, FEATURES.values(), strict=True
):
    drawn = ax.imshow(values[:, order].T, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    marks = [f"{name}\n{value:.2f}" for name, value in zip(names, regions, strict=True)]
    ax.set_xticks(range(len(names)), marks, fontsize=8)
    ax.set_yticks(range(n_units), [f"{value:.2f}" for value in units[order]], fontsize=7)
    ax.set_title(f"{feature}, sum {values.sum():.2f}", fontsize=10)
axes[0].set_ylabel("hidden units, in the order of contrast, with their sums")
figure.colorbar(drawn, ax=axes, shrink=0.7, label="IGC of a unit for an area")
finish(figure, "layers_units_by_area")

# %% [markdown]
# Each row is a unit, and the same one on both sides: contrast comes from V1 and the areas around
# it, the slope from elsewhere, and most units serve one of them more than the other. And what do
# the other layers add up to?

# %%
shared = float(np.corrcoef(found.attributions)[0, 1])
print(f"units' values of the two features correlate with r = {shared:.2f}")
layers = {"stem": "first", "body": "last hidden", "head": "outputs"}
sums = {}
for layer, title in layers.items():
    one = layer_correlation(decoder.module_, x, y, layer=layer, n_pairs=4, n_steps=4)
    sums[layer] = one.attributions.sum(1)
    print(f"{title:12s} {one.attributions.shape[1]:3d} units, sums {sums[layer].round(3)}")
layer_gap = float(max(np.abs(value - sums["stem"]).max() for value in sums.values()))

# %% [markdown]
# The same pairs give the same sum in every layer: what is carried only changes its carriers.
#
# ## Can the map be trusted?
#
# A map says what the model uses. Take away what it points at: replace whole areas by their means
# in all samples, and read the same decoder again. `deletion` is the area under the curve of what
# is left, most important area first (small is good); `insertion` puts areas back in that order
# (large is good); `sensitivity` correlates what random sets of areas are worth by the map with
# what they cost.

# %%
igc = integrated_gradient_correlation(decoder.module_, x, y, tolerance=0.1)
rows = compare_maps(
    decoder.module_,
    x,
    {"IGC": igc.attributions[0], "mean |response|": np.abs(x).mean(0)},
    targets=y[:, 0],
    groups=areas,
    n_sets=20,
)
for row in rows:
    print("  ".join(f"{k} {v}" if k == "method" else f"{k} {v:.2f}" for k, v in row.items()))
faithful = rows[0]["deletion"] < rows[-1]["deletion"]
sensitivity = rows[0]["sensitivity"]

# %%
temporary.cleanup()
plt.show()
