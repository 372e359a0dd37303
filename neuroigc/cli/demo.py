"""The study that `neuroigc demo` runs: simulated data in the NSD layout, so no download."""

from __future__ import annotations

from neuroigc._files import make_output_folder
from neuroigc.cli.config import parse_config
from neuroigc.cli.folder import SIMULATE, StudyFolder

__all__ = ["DEMO", "start_demo"]

DEMO = """
title = "Demo: a simulated study of eight subjects"

[data]
root = "data"
layout = "nsd"
space = "fsaverage5"
subjects = ["01", "02", "03", "04", "05", "06", "07", "08"]
test_fraction = 0.05
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
features = ["luminance_contrast", "one_over_f_slope"]
tolerance = 0.02

[decoding.network]
hidden = [128, 128, 128, 128, 128]
max_epochs = 15
patience = 5

[encoding]
subjects = ["01"]
image_size = 48
n_phantoms = 300
rois = ["V1", "V2", "V3", "hV4"]
"""


def start_demo(out, *, resume=False, progress=False):
    """Invent the data and open the study folder around them."""
    from neuroigc.datasets import make_study

    out = make_output_folder(out, "--out")
    folder = StudyFolder.create(out, parse_config(DEMO, base=out), resume=resume)
    if not folder.is_done(SIMULATE):
        with folder.running(SIMULATE):
            make_study(folder.config.data.root, seed=folder.config.seed, progress=progress)
    return folder
