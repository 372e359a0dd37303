# %% [markdown]
# # Which figures does a study leave, and which goes into the paper?
#
# `neuroigc run` draws every figure of its report into `figures/`: as PNG for slides, as PDF whose
# letters and lines a journal can edit, and drawings as SVG, too. This puts them side by side on
# one sheet, to look them over before a choice is made, and then draws the variants that only the
# library has: maps with and without opacity by evidence, and intervals at the width of a column.
#
# Name the folder of a study of your own in the environment variable NEUROIGC_STUDY; without it a
# small one is simulated and run, in about two minutes.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from neuroigc.datasets import make_study
from neuroigc.surface import SurfaceMap, load_atlas, plot_roi_intervals, plot_surface_map

SHORT = "NEUROIGC_FAST" in os.environ
temporary = tempfile.TemporaryDirectory()

STUDY = """
title = "A study to look at"
[data]
root = "{root}"
layout = "nsd"
space = "fsaverage5"
subjects = ["01", "02", "03"]
test_fraction = 0.2
truth = true
[rois]
atlases = ["prf-visualrois", "floc-faces", "floc-places"]
[rois.merge]
V1 = ["V1v", "V1d"]
V2 = ["V2v", "V2d"]
V3 = ["V3v", "V3d"]
faces = ["OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"]
places = ["OPA", "PPA", "RSC"]
[decoding]
tolerance = 0.05
[decoding.network]
hidden = [64, 64]
max_epochs = {epochs}
[encoding]
subjects = ["01"]
image_size = 32
n_phantoms = 100
rois = ["V1", "V2", "V3", "hV4"]
[encoding.network]
max_epochs = {epochs}
"""


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


def simulate(folder):
    """Invent data, run the study on them, and return its folder."""
    root = make_study(
        folder / "nsd",
        n_subjects=3,
        n_sessions=2 if SHORT else 6,
        trials_per_session=80 if SHORT else 300,
        n_shared_images=24 if SHORT else 120,
        image_size=48,
    )
    toml = folder / "study.toml"
    toml.write_text(STUDY.format(root=root, epochs=2 if SHORT else 12), encoding="utf-8")
    command = [sys.executable, "-m", "neuroigc", "run", toml, "--out", folder / "study", "--quiet"]
    subprocess.run(command, check=True)
    return folder / "study"


study = Path(os.environ.get("NEUROIGC_STUDY") or simulate(Path(temporary.name)))

# %% [markdown]
# ## The contact sheet
#
# In the order of their names, each in its own proportions. What they show stands in their captions
# in `report.html`.

# %%
paths = sorted((study / "figures").glob("*.png"))
n_figures = len(paths)
n_columns = 4
n_rows = -(-n_figures // n_columns)
sheet, axes = plt.subplots(
    n_rows, n_columns, figsize=(16, 2.7 * n_rows), layout="constrained", squeeze=False
)
for ax in axes.flat:
    ax.set_axis_off()
for ax, path in zip(axes.flat, paths, strict=False):
    with Image.open(path) as picture:
        ax.imshow(np.asarray(picture.convert("RGB")), interpolation="antialiased")
    ax.set_title(path.stem.replace("$", r"\$"), fontsize=9)
finish(sheet, "contact-sheet")
n_vector = sum(path.with_suffix(".pdf").is_file() for path in paths)
print(f"{n_figures} figures in {study.name}/figures, {n_vector} of them as PDF, too")

# %% [markdown]
# ## Opacity by evidence
#
# A threshold hides what is just below it. Instead, colours can be as opaque as the evidence is
# strong: here the value over its standard error, full from two of these. The names of BIDS tell
# which file is which.

# %%
scores = pd.read_csv(study / "decoding.tsv", sep="\t", dtype={"subject": str})
subject, feature = scores["subject"][0], scores["output"][0]


def files(stat):
    """Return the surface map of one statistic, as the study's folder names it."""
    folder, words = study / f"sub-{subject}", feature.split("_")
    desc = words[0] + "".join(word[0].upper() + word[1:] for word in words[1:])
    return {
        side: next(folder.glob(f"*_hemi-{letter}_*_desc-{desc}_stat-{stat}_statmap.shape.gii"))
        for side, letter in (("left", "L"), ("right", "R"))
    }


igc, z = SurfaceMap.load(files("igc")), SurfaceMap.load(files("z"))
labels = {
    side: next((study / "labels").glob(f"sub-{subject}_hemi-{letter}_*isualrois*.label.gii"))
    for side, letter in (("left", "L"), ("right", "R"))
}
atlas = load_atlas(labels)
figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
for ax, evidence, title in zip(axes, (None, z), ("all values", "faded by evidence"), strict=True):
    plot_surface_map(
        igc,
        mesh="flat",
        outlines=atlas,
        outline_names=True,
        evidence=evidence,
        label="IGC per vertex",
        title=title,
        ax=ax,
    )
finish(figure, "evidence")

# %% [markdown]
# The same map goes to nilearn and comes back as it was.

# %%
back = SurfaceMap.from_surface_image(igc.to_surface_image(), name=igc.name)
round_trip = all(np.array_equal(back.data[s], igc.data[s], equal_nan=True) for s in igc.data)
print("the same after a round trip through nilearn:", round_trip)

# %% [markdown]
# ## Intervals, one column wide
#
# One subject's areas with 95 % intervals of the jackknife over images, and stars where the
# family-wise p of permuted targets is 0.05 or less.

# %%
rois = pd.read_csv(study / "roi.tsv", sep="\t", dtype={"subject": str})
own = rois[rois["subject"] == subject]
ax = plot_roi_intervals(own, output=feature, title=f"{feature.replace('_', ' ')}, {subject}")
finish(ax.figure, "intervals")
n_starred = int((own.loc[own["output"] == feature, "p_fwe"] <= 0.05).sum())
print(f"{n_starred} areas stand out in subject {subject}")
width_cm = float(ax.figure.get_figwidth() * 2.54)

# %% [markdown]
# The simulated study goes; one of your own stays.

# %%
temporary.cleanup()
