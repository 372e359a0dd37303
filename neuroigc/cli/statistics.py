"""What is said of a study's numbers: intervals, tests, a linear baseline, and the group."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neuroigc.cli.study_data import HEMISPHERES, decoding_samples, write_table

__all__ = [
    "AREA_TESTS",
    "area_tests",
    "cortex_mesh",
    "group_table",
    "light_counts",
    "map_p_values",
    "needs_neighbours",
    "write_scores",
]

# Of roi.tsv, beside the values; the p-values only where targets were permuted.
AREA_TESTS = ("low", "high", "p", "p_fwe", "p_fdr")
_KEYS = ["atlas", "roi", "output"]


def write_scores(folder, subject: str, *, progress: bool) -> None:
    """Score the decoder, and ridge regression beside it, on a subject's held-out images.

    The decoder has learned from all subjects, ridge regression from this one alone: weights of
    vertices differ between subjects, and it has no other means to say so.
    """
    from neuroigc.models import NeuralDecoder
    from neuroigc.stats import correlation_scores, ridge_baseline

    config = folder.config
    held_out = decoding_samples(folder, held_out=True, subject=subject)
    decoder = NeuralDecoder.load(folder.model("decoder"))
    predicted = decoder.predict(held_out.responses, conditions=held_out.conditions)
    # Repeats of an image are no further evidence, nor may they lie in several folds.
    shown = held_out.shown
    table = _score_columns("", correlation_scores(predicted, held_out.features, clusters=shown))
    if config.decoding.ridge:
        trained = decoding_samples(folder, held_out=False, subject=subject)
        ridge = ridge_baseline(
            trained.responses[:],
            trained.features,
            held_out.responses[:],
            held_out.features,
            groups=trained.shown,
            test_clusters=shown,
            seed=config.seed,
            progress=progress,
        )
        table |= _score_columns("ridge_", ridge.scores)
    table = {"output": list(config.decoding.features), **table}
    write_table(folder.scores(subject), pd.DataFrame(table))


def _score_columns(prefix, scores):
    return {
        f"{prefix}r": scores.r,
        f"{prefix}r_low": scores.r_interval[:, 0],
        f"{prefix}r_high": scores.r_interval[:, 1],
        f"{prefix}r2": scores.r2,
        f"{prefix}r2_low": scores.r2_interval[:, 0],
        f"{prefix}r2_high": scores.r2_interval[:, 1],
    }


def area_tests(result, features) -> pd.DataFrame:
    """Return intervals and p-values of areas, by hemisphere, roi and output.

    Family-wise and of false discoveries, the family is all areas of both hemispheres, of one
    subject and output.
    """
    table = result.to_frame()
    table[["hemisphere", "roi"]] = table["group"].str.split(" ", n=1, expand=True)
    table["output"] = [features[k] for k in table["output"]]
    columns = [name for name in AREA_TESTS if name in table]
    return table[["hemisphere", "roi", "output", *columns]]


def light_counts(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return how many subjects and outputs have which light, check by check."""
    counts = pd.crosstab(table["check"], table["light"])
    counts = counts.reindex(index=table["check"].unique(), columns=("green", "amber", "red"))
    return counts.fillna(0).astype(int).to_dict("index")


def needs_neighbours(map_tests) -> bool:
    """Tell whether tests of maps need the mesh, and all maps of permuted targets."""
    return any(test != "largest" for test in map_tests)


def cortex_mesh(space: str) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates (mm) and triangles of both hemispheres, the right one's counted on."""
    from neuroigc.surface.spaces import load_mesh

    (left, triangles), (right, others) = (load_mesh(space, "white", side) for side in HEMISPHERES)
    return np.concatenate([left, right]), np.concatenate([triangles, others + len(left)])


def map_p_values(result, map_tests, vertices, space, *, progress) -> dict[str, np.ndarray]:
    """Return family-wise p-values of vertices by each test, (n_outputs, n_vertices).

    The family is all vertices of both hemispheres, of one subject and output.
    """
    from neuroigc.stats import cluster_test, mesh_edges, vertex_areas

    p_values = {}
    if needs_neighbours(map_tests):
        coordinates, triangles = cortex_mesh(space)
        columns = np.concatenate(
            [vertices["left"], vertices["right"] + len(coordinates) // len(HEMISPHERES)]
        )
        edges = mesh_edges(triangles, vertices=columns)
        areas = vertex_areas(coordinates, triangles)[columns]
    for test in map_tests:
        if test == "largest":
            p_values[test] = result.p_values
            continue
        found = [
            cluster_test(null, edges, statistic=test, areas=areas, progress=progress)
            for null in result.null_maps
        ]
        p_values[test] = np.stack([each.p_values for each in found])
    return p_values


def group_table(rois: pd.DataFrame) -> pd.DataFrame:
    """Return the group's statistics of each area and output; rows of both hemispheres come last.

    Parameters
    ----------
    rois : DataFrame
        Of roi.tsv, with two subjects or more.

    Returns
    -------
    DataFrame
        ``hemisphere`` (left, right, or both, summed), ``atlas, roi, output, mean, sd,
        n_subjects``; ``t, p, p_fwe, p_fdr`` of flipped signs of subjects, the families being all
        areas of an output, of single hemispheres or of both; and where areas were tested within
        subjects ``n_significant`` (p of 0.05 or less, in how many of ``n_subjects``), its
        binomial ``p_replication``, and ``prevalence_low``, the least share of the population
        with 95 % confidence.
    """
    order = rois[["hemisphere", *_KEYS]].drop_duplicates()
    both = order[_KEYS].drop_duplicates().assign(hemisphere="both")
    # min_count: an area that is empty in both hemispheres stays NaN instead of becoming 0.
    summed = rois.groupby(["subject", *_KEYS], sort=False)["igc"].sum(min_count=1).reset_index()
    parts = []
    for names, values, sides in (
        (order, rois, HEMISPHERES),
        (both, summed.assign(hemisphere="both"), ("both",)),
    ):
        for output in dict.fromkeys(rois["output"]):
            own = names[names["hemisphere"].isin(sides) & (names["output"] == output)]
            parts.append(_group_rows(own, values))
    return pd.concat(parts, ignore_index=True)


def _group_rows(names, values):
    from neuroigc.stats import adjust_p_values, replication, sign_flip_test

    keys = ["hemisphere", *_KEYS]
    at, subjects = pd.MultiIndex.from_frame(names[keys]), values["subject"].unique()

    def by_subject(column):
        wide = values.pivot_table(index=keys, columns="subject", values=column)
        # Rows and columns of nothing but NaN are dropped there.
        return wide.reindex(index=at, columns=subjects).to_numpy(float).T

    test = sign_flip_test(by_subject("igc"))
    table = (
        names[keys]
        .reset_index(drop=True)
        .assign(
            mean=test.mean,
            sd=test.sd,
            n_subjects=test.n_subjects,
            t=test.t,
            p=test.p_values,
            p_fwe=test.p_values_fwe,
            p_fdr=adjust_p_values(test.p_values),
        )
    )
    if "p" in values:
        found = replication(by_subject("p"))
        tested = np.where(found.n_subjects > 0, 1, np.nan)
        table["n_significant"] = found.n_significant * tested
        table["p_replication"] = found.p_values
        table["prevalence_low"] = found.prevalence_low
    return table
