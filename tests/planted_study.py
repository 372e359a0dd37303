"""A study in which hV4 alone carries a third feature, run through the stages of the command."""

import numpy as np
import pandas as pd

from neuroigc.cli.config import parse_config
from neuroigc.cli.folder import StudyFolder
from neuroigc.cli.stages import run_stage
from neuroigc.datasets import make_study

AREA, SHARE = "hV4", 0.3
TOML = """
[data]
root = "{root}"
space = "fsaverage5"
subjects = ["01", "02"]
test_fraction = 0.3
truth = true

[rois]
atlases = ["prf-visualrois", "floc-bodies", "floc-faces", "floc-places", "floc-words"]

[rois.merge]
V1 = ["V1v", "V1d"]
V2 = ["V2v", "V2d"]
V3 = ["V3v", "V3d"]
bodies = ["EBA", "FBA-1", "FBA-2", "mTL-bodies"]
faces = ["OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"]
places = ["OPA", "PPA", "RSC"]
words = ["OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"]

[decoding]
features = ["luminance_contrast", "one_over_f_slope", "planted"]
features_file = "{root}/truth/planted.tsv"
n_permutations = 199
ridge = false
map_tests = ["largest"]
sanity = {sanity}

[decoding.network]
hidden = [64, 64]
max_epochs = 12
"""


def run_planted(folder, *, seed=0, small=False, sanity=False):
    """Invent the study and run it up to the table of areas."""
    sizes = (2, 90, 20) if small else (3, 400, 200)
    n_sessions, trials, n_shared = sizes
    make_study(
        folder / "data",
        n_subjects=2,
        n_sessions=n_sessions,
        trials_per_session=trials,
        n_shared_images=n_shared,
        image_size=48,
        planted={AREA: SHARE},
        seed=seed,
        n_workers=1,
    )
    text = TOML.format(root=folder / "data", sanity=str(sanity).lower())
    study = StudyFolder.create(folder / "study", parse_config(f"seed = {seed}\n{text}"))
    for stage in ("prepare", "train", "attribute", "roi"):
        run_stage(study, stage)
    return study


def read_areas(study):
    """Return the table of areas, as the command wrote it."""
    return pd.read_csv(study.path / "roi.tsv", sep="\t", dtype={"subject": str})


def largest_areas(areas, output):
    """Return for each subject the area of largest value, hemispheres summed."""
    own = areas[(areas["output"] == output) & (areas["roi"] != "elsewhere")]
    table = own.pivot_table(index="subject", columns="roi", values="igc", aggfunc="sum")
    return np.asarray(table.idxmax(axis=1))
