"""Sums over areas, and their summary over subjects."""

import numpy as np
import pandas as pd
import pytest

from neuroigc._validation import InputError
from neuroigc.surface import Atlas, aggregate_rois, combine, summarise_rois

N = 10242
TABLE = {1: "V1", 2: "V2", 3: "V3", 9: "empty"}
COLUMNS = [
    "subject", "hemisphere", "atlas", "roi", "output", "igc", "standard_error", "n_vertices",
]  # fmt: skip


@pytest.fixture
def atlas(rng):
    return Atlas("areas", {side: rng.integers(0, 4, N) for side in ("left", "right")}, TABLE)


@pytest.fixture
def vertices(rng):
    return {
        "left": rng.choice(N, 700, replace=False),
        "right": np.sort(rng.choice(N, 500, replace=False)),
    }


@pytest.fixture
def values(rng):
    return rng.normal(size=(2, 1200)).astype(np.float32)


def test_against_loops(atlas, vertices, values):
    table = aggregate_rois(values, atlas, vertices, subject="01", outputs=["a", "b"])
    assert list(table.columns) == COLUMNS
    assert len(table) == 2 * 2 * 5
    parts = {"left": values[:, :700], "right": values[:, 700:]}
    for row in table.itertuples():
        labels = atlas.labels[row.hemisphere][vertices[row.hemisphere]]
        key = {name: key for key, name in TABLE.items()}.get(row.roi, 0)
        member = labels == key
        assert row.n_vertices == member.sum()
        if member.any():
            expected = sum(map(float, parts[row.hemisphere]["ab".index(row.output), member]))
            assert row.igc == pytest.approx(expected, abs=1e-10)


def test_a_partition_sums_to_the_total(atlas, vertices, values):
    table = aggregate_rois(values, atlas, vertices, subject="01", outputs=["a", "b"])
    totals = table.groupby("output")["igc"].sum()
    np.testing.assert_allclose(totals, values.sum(axis=1, dtype=np.float64), atol=1e-5)
    assert table[table["output"] == "a"]["n_vertices"].sum() == 1200


def test_areas_without_vertices_are_not_zero(atlas, vertices, values):
    table = aggregate_rois(values, atlas, vertices, subject="01", outputs=["a", "b"])
    empty = table[table["roi"] == "empty"]
    assert len(empty) == 4
    assert (empty["n_vertices"] == 0).all()
    assert empty["igc"].isna().all()


def test_overlapping_areas(atlas, vertices, values):
    half = {side: (np.arange(N) % 2) for side in atlas.labels}
    both = combine([atlas, Atlas("odd", half, {1: "odd vertices"})], name="both")
    table = aggregate_rois(values, both, vertices, subject="01", outputs=["a", "b"])
    left = table[(table["hemisphere"] == "left") & (table["output"] == "a")].set_index("roi")
    assert left.loc["odd vertices", "atlas"] == "odd"
    assert left.loc["V1", "atlas"] == "areas"
    assert left.loc["elsewhere", "atlas"] == "both"
    odd = vertices["left"] % 2 == 1
    nowhere = ~odd & (atlas.labels["left"][vertices["left"]] == 0)
    assert left.loc["odd vertices", "n_vertices"] == odd.sum()
    assert left.loc["elsewhere", "n_vertices"] == nowhere.sum()
    assert left.loc["elsewhere", "igc"] == pytest.approx(values[0, :700][nowhere].sum(), abs=1e-4)


def test_without_elsewhere(atlas, vertices, values):
    table = aggregate_rois(
        values, atlas, vertices, subject="01", outputs=["a", "b"], elsewhere=False
    )
    assert "elsewhere" not in set(table["roi"])


def test_standard_errors_are_those_of_the_groups(atlas, vertices, values, rng):
    groups = atlas.groups(vertices, by_hemisphere=True, elsewhere=True)
    errors = {name: rng.random(2) for name in groups}
    table = aggregate_rois(
        values, atlas, vertices, subject="01", outputs=["a", "b"], standard_errors=errors
    )
    for row in table.itertuples():
        if row.roi == "empty":
            assert np.isnan(row.standard_error)
        else:
            expected = errors[f"{row.hemisphere} {row.roi}"]["ab".index(row.output)]
            assert row.standard_error == expected


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ({"V1": [0.1, 0.2]}, "names such as 'left V1'; got 'V1'"),
        ({"left V1": [0.1]}, r"standard_errors\['left V1'\]: .* each of the 2 outputs"),
    ],
)
def test_standard_errors_that_do_not_fit(atlas, vertices, values, errors, message):
    with pytest.raises(InputError, match=message):
        aggregate_rois(
            values, atlas, vertices, subject="01", outputs=["a", "b"], standard_errors=errors
        )


def test_shapes_that_do_not_fit(atlas, vertices, values):
    with pytest.raises(InputError, match=r"values: expected 1 outputs x 1200 vertices; got shape"):
        aggregate_rois(values, atlas, vertices, subject="01", outputs=["a"])
    with pytest.raises(InputError, match="2 outputs x 1200 vertices"):
        aggregate_rois(values[:, 1:], atlas, vertices, subject="01", outputs=["a", "b"])


def test_nan_is_not_summed_over(atlas, vertices, values):
    values[1, [3, 5]] = np.nan, np.inf
    with pytest.raises(InputError, match="NaN or infinity at 2 vertices"):
        aggregate_rois(values, atlas, vertices, subject="01", outputs=["a", "b"])


def test_order_of_vertices_does_not_matter(atlas, vertices, values, rng):
    order = rng.permutation(700)
    shuffled = {"left": vertices["left"][order], "right": vertices["right"]}
    mixed = np.concatenate([values[:, order], values[:, 700:]], axis=1)
    options = {"subject": "01", "outputs": ["a", "b"]}
    first = aggregate_rois(values, atlas, vertices, **options)
    second = aggregate_rois(mixed, atlas, shuffled, **options)
    pd.testing.assert_frame_equal(first, second, rtol=1e-12, atol=1e-12)


def study(atlas, vertices, rng, n_subjects=4):
    return pd.concat(
        [
            aggregate_rois(
                rng.normal(size=(2, 1200)), atlas, vertices, subject=f"0{k}", outputs=["a", "b"]
            )
            for k in range(n_subjects)
        ],
        ignore_index=True,
    )


def test_summary_over_subjects(atlas, vertices, rng):
    table = study(atlas, vertices, rng)
    summary = summarise_rois(table)
    assert list(summary.columns) == ["atlas", "roi", "output", "mean", "sd", "n_subjects"]
    per_subject = [
        table[(table.subject == f"0{k}") & (table.roi == "V2") & (table.output == "b")].igc.sum()
        for k in range(4)
    ]
    row = summary[(summary.roi == "V2") & (summary.output == "b")].iloc[0]
    assert row["mean"] == pytest.approx(np.mean(per_subject))
    assert row["sd"] == pytest.approx(np.std(per_subject, ddof=1))
    assert row["n_subjects"] == 4
    assert summary["roi"].drop_duplicates().tolist() == ["V1", "V2", "V3", "empty", "elsewhere"]


def test_summary_by_hemisphere(atlas, vertices, rng):
    table = study(atlas, vertices, rng)
    summary = summarise_rois(table, pool_hemispheres=False)
    left = table[(table.hemisphere == "left") & (table.roi == "V1") & (table.output == "a")].igc
    row = summary[
        (summary.hemisphere == "left") & (summary.roi == "V1") & (summary.output == "a")
    ].iloc[0]
    assert row["mean"] == pytest.approx(left.mean())
    assert row["sd"] == pytest.approx(left.std())


def test_subjects_without_the_area_do_not_count(atlas, vertices, rng):
    table = study(atlas, vertices, rng)
    table.loc[(table.subject == "00") & (table.roi == "V1"), "igc"] = np.nan
    summary = summarise_rois(table).set_index(["roi", "output"])
    assert summary.loc[("V1", "a"), "n_subjects"] == 3
    assert summary.loc[("empty", "a"), "n_subjects"] == 0
    assert np.isnan(summary.loc[("empty", "a"), "mean"])


def test_single_subject_has_no_spread(atlas, vertices, rng):
    summary = summarise_rois(study(atlas, vertices, rng, n_subjects=1))
    assert summary["sd"].isna().all()
    assert summary["mean"].notna().any()


def test_repeated_rows_are_refused(atlas, vertices, rng):
    table = study(atlas, vertices, rng, n_subjects=1)
    with pytest.raises(InputError, match="20 repeated rows, the first for 00, left, areas, V1, a"):
        summarise_rois(pd.concat([table, table]))


def test_table_of_something_else():
    with pytest.raises(InputError, match="columns of aggregate_rois; got no"):
        summarise_rois(pd.DataFrame({"roi": ["V1"]}))
