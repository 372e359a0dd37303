# %% [markdown]
# # From an NSD download to maps
#
# You have the Natural Scenes Dataset (NSD) on a disk, or a part of it. Six commands lead from its
# files to maps of what each vertex carries, tables of areas, receptive fields and a report. Here
# they are run one by one, interrupted and gone on with, on a small invented release in the same
# layout. About two minutes on one core.
#
# **What the real release takes.** A session is two files of 491.5 MB, one for each hemisphere.
# Subjects came for 30 to 40 sessions, so that one of them takes 60 to 80 files and 29 to 39 GB, and
# all eight 568 files and 279 GB. To these come the stimuli (one file of 37 GB for all subjects) and
# some MB of design, labels and noise ceilings. A few subjects, or ten sessions of each (10 GB), do
# to begin with. Preparing takes less than twice as long as reading the files, and half a gigabyte
# of memory however many there are. A subject with 10,000 images becomes 1.5 GB at the 37,984
# vertices of `nsdgeneral`, or half of that with `dtype = "float16"`, and until it is done needs
# 4.6 GB more for the 30,000 trials. A decoder of eight subjects takes 0.9 GiB of memory to train
# from that. How times and memory were measured: `tests/benchmarks/RESULTS.md`.

# %%
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pandas as pd
from scipy.io import loadmat

from neuroigc.attribution import IGCResult
from neuroigc.datasets import SubjectData, make_study, prepare_nsd
from neuroigc.datasets.layouts import write_betas, write_labels
from neuroigc.surface import SurfaceMap, load_atlas, load_mask, plot_surface_overview

FAST = "NEUROIGC_FAST" in os.environ  # a shorter version, for automatic tests
N_SESSIONS = 2 if FAST else 3
SIDES = {"left": "lh", "right": "rh"}
temporary = tempfile.TemporaryDirectory()
here = Path(temporary.name)


def command(line):
    """Return a command line as this Python runs it."""
    return [sys.executable, "-u", "-m", *shlex.split(line)]


def run(line, *, status=0, hide="\n"):
    """Run a command in the temporary folder; show what it says but lines that begin with hide."""
    print("$", line)
    options = {"cwd": here, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command(line), **options)
    lines = [text for text in done.stdout.splitlines() if not text.startswith(hide)]
    # Progress goes to stderr, and so does what is wrong.
    print("\n".join([*lines, done.stderr if done.returncode else ""]))
    if done.returncode != status:
        raise SystemExit(f"exit status {done.returncode}, not {status}")


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


# %% [markdown]
# ## A download
#
# With the real release there is nothing to do here: its folder is `nsd`. Ours has three subjects,
# fewer and shorter sessions, and lies on fsaverage5. Two things are as they are in NSD. In the
# last session of one subject some vertices were not measured, and are NaN. And the areas are those
# of a group's atlas: the ones that were drawn for each subject (`prf-visualrois`, `floc-faces` and
# so on) come on the subjects' own surfaces alone, and do not fit betas on fsaverage.

# %%
nsd = make_study(
    here / "nsd",
    n_subjects=3,
    n_sessions=N_SESSIONS,
    trials_per_session=300,
    n_shared_images=60 if FAST else 100,
    image_size=48,
)
label_folder = nsd / "nsddata" / "freesurfer" / "subj01" / "label"
drawn = load_atlas(label_folder / "{hemi}.prf-visualrois.mgz")
table = dict(enumerate(drawn.names, start=1))
write_labels(nsd, "fsaverage5", "Kastner2015", drawn.labels, table)


def read_betas(subject, session):
    """Return the betas of both hemispheres, each (n_vertices, n_trials)."""
    folder = nsd / "nsddata_betas" / "ppdata" / f"subj{subject}" / "fsaverage5"
    folder = folder / "betas_fithrf_GLMdenoise_RR"
    paths = {s: folder / f"{hemi}.betas_session{session:02d}.mgh" for s, hemi in SIDES.items()}
    return {s: nibabel.load(path, mmap=False).get_fdata()[:, 0, 0] for s, path in paths.items()}


unmeasured = read_betas("03", N_SESSIONS)
mask = load_mask(nsd / "nsddata" / "freesurfer" / "fsaverage5" / "label" / "{hemi}.nsdgeneral.mgz")
unmeasured["left"][np.flatnonzero(mask["left"])[:40]] = np.nan
write_betas(nsd, "03", N_SESSIONS, unmeasured, space="fsaverage5")

# %% [markdown]
# ## The study
#
# One file says everything. For the real release, leave out the line `truth`, which says that these
# data are invented, and what makes them quick: `sessions`, which are the first so many (without it
# all there are), `max_gradients`, `tolerance`, `n_phantoms`, `image_size` and the two tables of
# networks. `space = "fsaverage"` takes all vertices, `space = "fsaverage5"` every sixteenth of
# them, out of the same files.

# %%
(here / "study.toml").write_text(f"""
title = "From an NSD download to maps"

[data]
root = "nsd"
subjects = ["01", "02", "03"]
space = "fsaverage5"
sessions = {N_SESSIONS}
truth = true

[rois]
atlases = ["Kastner2015"]

[rois.merge]
V1 = ["V1v", "V1d"]
V2 = ["V2v", "V2d"]
V3 = ["V3v", "V3d"]

[decoding]
features = ["luminance_contrast", "one_over_f_slope"]
max_gradients = {8 if FAST else 16}
tolerance = 0.001

[decoding.network]
hidden = [64, 64, 64]
max_epochs = {6 if FAST else 15}

[encoding]
subjects = ["01"]
image_size = 32
n_phantoms = {60 if FAST else 100}

[encoding.network]
max_epochs = {8 if FAST else 12}
""")

# %% [markdown]
# ## Is everything there?
#
# `verify` lists the files that *this study* needs: those that are missing and those that are
# damaged, with their sizes, in a moment, as only headers are read. One download here was not
# finished. The exit status is 2 until all is well, so that a script can wait for it.

# %%
lost = nsd / "nsddata_betas/ppdata/subj02/fsaverage5/betas_fithrf_GLMdenoise_RR"
lost = lost / "rh.betas_session02.mgh"
lost.rename(here / "elsewhere.mgh")
run("neuroigc verify nsd nsd --study study.toml --quiet", status=2, hide="unverified")
(here / "elsewhere.mgh").rename(lost)
run("neuroigc verify nsd nsd --study study.toml --quiet", hide="unverified")

# %% [markdown]
# ## Prepare
#
# Trials become one row per image: z-scored in each session and averaged over repeats. Of a
# real release this takes a while, so here it is killed once it is done with the first subject.
# Whoever starts again by mistake is stopped; with `--resume` it goes on where it was. (The median
# noise ceiling is 0 because most vertices of this invention respond to nothing.)

# %%
line = "neuroigc prepare study.toml --out study"
print("$", line)
options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
with subprocess.Popen(command(line), cwd=here, **options) as process:
    print(process.stdout.readline())
    process.kill()
kept = (here / "study" / "prepared" / "sub-01" / "responses.npy").stat().st_mtime_ns
run("neuroigc prepare study.toml --out study --quiet", status=2)
run("neuroigc prepare study.toml --out study --resume")
kept_on = kept == (here / "study" / "prepared" / "sub-01" / "responses.npy").stat().st_mtime_ns
print("subject 01 was not prepared again:", kept_on)

# %% [markdown]
# Each line says what was kept. Three mistakes that are easily made with these files were not:
#
# - **Units.** Betas on fsaverage are percent signal change as they are. Those on the subjects' own
#   surfaces, and in volumes, are whole numbers of a 300th of a percent. To divide the former by
#   300 is an error that no shape gives away.
# - **Numbers of images.** `nsd_expdesign.mat` counts from 1; the rows of `nsd_stimuli.hdf5`, and
#   the table of images, from 0. Here they all are rows, from 0.
# - **NaN.** A vertex that is NaN throughout one session (in NSD, of subjects 6 and 8) is left out,
#   counted and told, rather than averaged over fewer trials or turned into 0.
#
# In Python, a prepared subject is a few arrays. The responses stay on disk until they are used.
# Of the images, the design's own numbers lead to the same row.

# %%
data = SubjectData.load(here / "study" / "prepared" / "sub-03")
print(type(data.responses).__name__, data.responses.shape, data.responses.dtype)
print("dropped:", data.n_dropped, data.provenance["n_invalid_vertices_by_session"])
n_dropped = sum(data.n_dropped.values())

design = loadmat(nsd / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat")
first_image = int(design["subjectim"][2, int(design["masterordering"][0, 0]) - 1]) - 1
row = np.searchsorted(data.image_ids, first_image)
print(f"the first trial's image is {first_image}, in row {row} of the responses")

# %% [markdown]
# ## Train, attribute, tabulate, fit, report
#
# Each stage goes on from what the one before left in the folder; `neuroigc run` does all of them
# in a row. `train` makes one decoder for all subjects, and an encoder for the receptive fields of
# subject 01.

# %%
run("neuroigc train study --quiet")
run("neuroigc attribute study --quiet")

# %% [markdown]
# On a cluster, the attributions can be the jobs of an array instead, which need not run at the same
# time (`docs/cluster.md`); `merge` adds up what they left. The maps are the same but for rounding.
# (Jobs share blocks of up to 512 images. A subject here is one block, so each job takes subjects.)
# For that, all take `max_gradients` gradients; by itself, `attribute` stops as soon as the error
# is within the `tolerance` of the study.

# %%
path = here / "study" / "attributions" / "sub-01_decoding.npz"
alone = IGCResult.load(path)
run("neuroigc attribute study --shard 1/2 --quiet")
run("neuroigc attribute study --shard 2/2 --quiet")
run("neuroigc merge study --quiet")
shared = IGCResult.load(path)
difference = np.abs(shared.attributions - alone.attributions).max()
shard_gap = float(difference / np.abs(alone.attributions).max())
print(f"shards differ by at most {shard_gap:.0e} of the largest value")

# %%
run("neuroigc roi study")
run("neuroigc prf study")
run("neuroigc report study")

# %% [markdown]
# ## What came out
#
# Tables for any statistics program, missing values as `n/a`; GIFTI maps named as BIDS derivatives,
# each with a JSON file that tells its units, which every surface viewer opens; and `report.html`,
# one page with all figures, to be opened in a browser or sent as it is.

# %%
study = here / "study"
folders = {path.relative_to(study).parts[0] for path in study.rglob("*")}
for name in sorted(folders):
    files = [path for path in (study / name, *(study / name).rglob("*")) if path.is_file()]
    if files:
        n_bytes = sum(path.stat().st_size for path in files)
        print(f"{name:<26}{len(files):>3} files {n_bytes / 1e6:6.2f} MB")

# %% [markdown]
# `decoding.tsv` has r, the correlation of decoded and true features on images that the networks
# were not trained on, with that of ridge regression and how many gradients were taken.

# %%


def load_table(name):
    """Read one of the study's tables."""
    return pd.read_csv(study / name, sep="\t", dtype={"subject": str}, na_values="n/a")


decoding = load_table("decoding.tsv")
print(decoding[["subject", "output", "r", "n_test", "ridge_r"]].round(2).to_string(index=False))
lowest_r = float(decoding["r"].min())

# %% [markdown]
# `roi.tsv` shares each r out among the areas of each hemisphere and "elsewhere". Every share has
# its standard error, a 95 % interval, and p-values: of this area alone, and corrected for
# having looked at all areas and features. All rows of one subject and feature add up to r.

# %%
rois = load_table("roi.tsv")
one = rois[(rois["subject"] == "01") & (rois["output"] == "luminance_contrast")]
columns = ["hemisphere", "roi", "igc", "standard_error", "low", "high", "p", "p_fwe", "n_vertices"]
print(one[columns].round(3).to_string(index=False))
sums = rois.groupby(["subject", "output"])["igc"].sum()
parts = decoding.set_index(["subject", "output"])
sum_gap = float((sums - parts["r"] - parts["completeness_gap"]).abs().max())
print(f"sums differ from r, and the error of the integral, by at most {sum_gap:.0e}")

# %% [markdown]
# `group.tsv` has the mean over subjects, tested by flipping signs: with three subjects no p can be
# below 0.25, whatever the data. In how many subjects an area is significant by itself
# (`n_significant`), and how likely that is by chance (`p_replication`), says more there.

# %%
group = load_table("group.tsv")
columns = ["hemisphere", "roi", "output", "mean", "sd", "p", "n_significant", "p_replication"]
print(group[columns].round(3).head(6).to_string(index=False))
least_p = float(group["p"].min())

# %% [markdown]
# `prf.tsv` has one line per vertex of the areas asked for: centre and size in degrees of visual
# angle with 95 % intervals. Few images were shown here, so they are wide
# (`plot_how_many_images.py` tells what more images buy).

# %%
fields = load_table("prf.tsv")
columns = ["hemisphere", "vertex", "roi", "x_deg", "x_low", "x_high", "y_deg", "size_deg", "status"]
print(fields[columns].round(2).head(4).to_string(index=False))

# %% [markdown]
# ## Other surfaces, other betas
#
# What `prepare` does to a subject is `prepare_nsd`, which also goes where atlases and maps of a
# study do not yet: to the subject's own surface. There betas are HDF5 files of whole numbers.
# We write the first session of a subject in both forms of the release, as another version of the
# betas, and read both.

# %%
betas, version = read_betas("01", 1), "betas_fithrf"
on_template = {side: np.full((163842, len(v.T)), np.nan, np.float32) for side, v in betas.items()}
for side, values in betas.items():
    on_template[side][: len(values)] = values  # vertices in between are of no concern here
write_betas(nsd, "01", 1, on_template, space="fsaverage", beta_version=version)
folder = nsd / "nsddata_betas" / "ppdata" / "subj01" / "nativesurface" / version
folder.mkdir(parents=True)
for side, values in betas.items():
    with h5py.File(folder / f"{SIDES[side]}.betas_session01.hdf5", "w") as file:
        file["betas"] = np.rint(300 * values.T).astype(np.int16)

# %% [markdown]
# The meshes of fsaverage nest: its first 10,242 vertices are those of fsaverage5. So files on
# fsaverage are also files on fsaverage5 (and on fsaverage6), for a first look at a sixteenth of
# the vertices. The native surface here has been given as many, so that one mask fits both.

# %%
options = {"beta_version": version, "sessions": [1], "mask": mask}
nested = prepare_nsd(nsd, "01", here / "nested", space="fsaverage5", **options)
native = prepare_nsd(nsd, "01", here / "native", space="nativesurface", dtype="float16", **options)
print("nested:", nested.space, nested.responses.shape, nested.responses.dtype)
print("native:", native.space, native.responses.shape, native.responses.dtype)
native_gap = float(np.abs(nested.responses - native.responses).max())
print(f"z-scores differ by at most {native_gap:.3f}, from rounding to a 300th and to float16")

# %% [markdown]
# ## A map
#
# The GIFTI files of one feature, as any program can read them, on the cortex. Every vertex has its
# share of r; red ones add to it, blue ones take from it. Contrast is carried by V1.

# %%
name = (
    "sub-01_hemi-{hemi}_space-fsaverage_den-10k_desc-luminanceContrast_stat-igc_statmap.shape.gii"
)
contrast = SurfaceMap.load(study / "sub-01" / name)
areas = drawn.merge({"V1": ["V1v", "V1d"], "V2": ["V2v", "V2d"], "V3": ["V3v", "V3d"]})
r = contrast.metadata["Correlation"]
title = f"Luminance contrast, subject 01: r = {r:.2f}"
figure = plot_surface_overview(contrast, outlines=areas, label="IGC (sums to r)", title=title)
finish(figure, "nsd_download_to_maps")
by_area = one.groupby("roi")["igc"].sum()
v1_leads = bool(by_area.drop("elsewhere").idxmax() == "V1")
print("V1 carries most of the contrast:", v1_leads)

# %%
temporary.cleanup()
plt.show()
