"""The demo, stage by stage: time, memory, and how near its results come to the truth.

    neuroigc demo --out demo
    python tests/benchmarks/bench_demo.py demo

Reads the folder of a demo that was run through; prints tables and writes demo/benchmark.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

AREAS = ["V1", "V2", "V3", "hV4"]
STAGES = ["simulate", "prepare", "train", "attribute", "roi", "prf", "report"]


def read(folder, name):
    return pd.read_csv(folder / name, sep="\t", dtype={"subject": str})


def area_shares(folder):
    """Return the IGC of luminance contrast by subject and area, both hemispheres summed."""
    rois = read(folder, "roi.tsv")
    rois = rois[(rois["output"] == "luminance_contrast") & rois["roi"].isin(AREAS)]
    return rois.pivot_table(index="subject", columns="roi", values="igc", aggfunc="sum")[AREAS]


def prf_errors(folder):
    """Return errors by area, of the vertices whose encoder reaches half its noise ceiling."""
    prfs = read(folder, "prf.tsv")
    prfs = prfs[prfs["roi"].isin(AREAS)]
    good = prfs["encoder_r"] >= 0.5 * prfs["noise_ceiling_r"]
    kept = prfs[good & (prfs["status"] == "ok")]
    ratio = kept["size_deg"] / kept["true_size_deg"]
    error = np.hypot(kept["x_deg"] - kept["true_x_deg"], kept["y_deg"] - kept["true_y_deg"])
    table = pd.DataFrame(
        {
            "vertices": prfs.groupby("roi").size(),
            "kept": kept.groupby("roi").size(),
            "median centre error (deg)": error.groupby(kept["roi"]).median(),
            "90th percentile (deg)": error.groupby(kept["roi"]).quantile(0.9),
            "size ratio": ratio.groupby(kept["roi"]).median(),
            "size error": (ratio - 1).abs().groupby(kept["roi"]).median(),
        }
    )
    return table.loc[AREAS]


def main():
    folder = Path(sys.argv[1])
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    records = {
        stage: json.loads((folder / "stages" / f"{stage}.json").read_text(encoding="utf-8"))
        for stage in STAGES
    }
    for stage, record in records.items():
        print(f"{stage:10s} {record['seconds']:7.1f} s   {record['peak_rss_mb']:6.0f} MB")
    print(f"{'all':10s} {summary['seconds']:7.1f} s   {summary['peak_rss_mb']:6.0f} MB\n")
    print(read(folder, "decoding.tsv").to_string(index=False), "\n")
    shares, errors = area_shares(folder), prf_errors(folder)
    print("IGC of luminance contrast\n", shares.round(3).to_string(), "\n", sep="")
    print(errors.round(3).to_string(), "\n")
    for name in ("encoding", "prf"):
        print(name, json.dumps(summary[name], indent=2))
    results = {
        "summary": summary,
        "stages": records,
        "luminance_contrast": shares.to_dict("index"),
        "prf_by_area": errors.to_dict("index"),
    }
    (folder / "benchmark.json").write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
