"""The report: what it says, what it tolerates, and that nothing in the data can harm it."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from report_study import FEATURES, coarse_maps, make_report_study, quick_maps

from neuroigc._validation import InputError
from neuroigc.reporting import write_report
from neuroigc.reporting.methods import cite, methods_paragraphs
from neuroigc.reporting.numbers import (
    feature_name,
    format_duration,
    format_number,
    format_p,
    format_size,
    format_small,
    join_words,
    roi_table,
)
from neuroigc.reporting.references import REFERENCES
from neuroigc.reporting.study import read_study
from neuroigc.reporting.tables import sanity_table
from neuroigc.reporting.words import summary_sentences

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, text; and whether it nests."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.words, self.open, self.data = [], [], [], ""
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "template" in self.open:
            self.data += data
        elif not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A whole study, with its report."""
    folder = make_report_study(tmp_path_factory.mktemp("report") / "study")
    with coarse_maps():
        write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(study):
    return Page(study / "report.html")


@pytest.fixture
def bare(tmp_path):
    """A study of which only the numbers are left, quick to render."""
    folder = tmp_path / "bare"
    make_report_study(folder, encoded=())
    for name in ("sub-01", "sub-02", "labels", "attributions", "models"):
        shutil.rmtree(folder / name)
    return folder


@pytest.fixture
def copy(study, tmp_path):
    """A copy of the study to be spoilt, and maps that are drawn at once."""
    shutil.copytree(study, tmp_path / "study")
    with quick_maps():
        yield tmp_path / "study"


def test_same_files_give_the_same_page(bare):
    path = write_report(str(bare))
    assert path == bare / "report.html"
    before = path.read_bytes()
    assert write_report(bare).read_bytes() == before


def test_summary_says_the_numbers(study, page):
    summary = json.loads((study / "summary.json").read_text())
    for feature in FEATURES:
        part = summary["decoding"][feature]
        r, ridge = (format_number(part[name]) for name in ("r", "ridge_r"))
        assert f"{feature_name(feature)} with r = {r} (ridge regression {ridge})" in page.text
    assert "Sanity checks of the attributions: 4 green, 4 amber and 4 red." in page.text
    assert "V1 carries the largest share of luminance contrast" in page.text
    assert "the largest region in 2 of 2 subjects" in page.text
    assert "median distance of the centres is 0.14°" in page.text
    assert "known truth of the simulation" in page.text


def test_key_figures_are_explained(page):
    assert "1.3 × 10⁻⁵" in page.text
    for words in ("0 is exact", "correlation with the true size", "relative error of the map"):
        assert words in page.text


def test_sections_and_headings_are_in_order(page):
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert max(np.diff(headings)) <= 1
    landmarks = [tag for tag, _ in page.tags if tag in ("header", "nav", "main", "footer")]
    assert landmarks == ["header", "nav", "main", "footer"]
    named = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] for attributes in page.all("a")]
    assert links
    assert all(link.startswith("#") and link[1:] in named for link in links)


def test_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_figure_has_number_caption_and_alt(study, page):
    images, n_figures = page.all("img"), len(page.all("figure"))
    assert len(images) == n_figures == len(page.all("figcaption")) == 19
    assert all(len(image["alt"]) > 20 for image in images)
    assert all(int(image["width"]) > 100 and int(image["height"]) > 100 for image in images)
    labels = re.findall(r"Figure (S?\d+)\.", page.text)
    assert labels == ["1", "2", "3", "S1", *map(str, range(4, 19))]
    assert len({path.stem for path in (study / "figures").iterdir()}) == n_figures


def test_figures_are_saved_for_print(study):
    from PIL import Image

    paths = sorted((study / "figures").iterdir())
    stems = {path.stem for path in paths}
    for suffix in (".png", ".pdf"):
        assert {path.stem for path in paths if path.suffix == suffix} == stems
    assert {path.suffix for path in paths} == {".png", ".pdf", ".svg"}
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
                # No wider than two columns of a journal, give or take the margin.
                assert image.width / 200 < 7.7
        if path.suffix == ".pdf":
            content = path.read_bytes()
            assert content.startswith(b"%PDF")
            # Letters are letters, and no date changes the bytes.
            assert b"/Type3" not in content
            assert b"CreationDate" not in content


def test_tables_have_captions_and_scopes(page):
    assert len(page.all("caption")) == len(page.all("table")) >= 6
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))


def test_roi_table_shows_subjects_mean_and_spread(study, page):
    table = pd.read_csv(study / "roi.tsv", sep="\t", dtype={"subject": str})
    chosen = table[(table["roi"] == "V2") & (table["output"] == FEATURES[0])]
    by_subject = chosen.groupby("subject")["igc"].sum()
    for value in (*by_subject, by_subject.mean(), by_subject.std()):
        assert format_number(value, 3) in page.text
    assert page.source.count(">Sum<") == len(FEATURES)
    assert "so the sum is not r" not in page.text


def table_of(page, caption):
    """Return the rows of the table whose caption begins so, as lists of texts."""
    source = next(
        part for part in page.source.split("<table")[1:] if f"<caption>{caption}" in part
    ).split("</table>")[0]
    rows = re.findall("<tr>(.*?)</tr>", source.split("<tbody>")[1], re.DOTALL)
    cells = "<t[hd][^>]*>(.*?)</t[hd]>"
    return [re.findall(cells, row, re.DOTALL) for row in rows]


def test_intervals_and_tests_of_every_area(study, page):
    rois = pd.read_csv(study / "roi.tsv", sep="\t", dtype={"subject": str})
    rows = table_of(page, "Luminance contrast: areas of every subject")
    own = rois[(rois["output"] == FEATURES[0]) & (rois["n_vertices"] > 0)]
    assert len(rows) == len(own)
    first = own.iloc[0]
    numbers = [format_number(first[name], 3) for name in ("igc", "low", "high")]
    tests = [format_p(first[name]) for name in ("p", "p_fwe", "p_fdr")]
    assert rows[0] == [first["roi"], first["subject"], "left", *numbers, *tests]


def test_group_is_shown_with_both_hemispheres_first(study, page):
    group = pd.read_csv(study / "group.tsv", sep="\t")
    rows = table_of(page, "Luminance contrast: the group")
    own = group[(group["output"] == FEATURES[0]) & (group["hemisphere"] == "both")]
    assert [row[1] for row in rows[: len(own)]] == ["both"] * len(own)
    v1 = group[(group["output"] == FEATURES[0]) & (group["roi"] == "V1")].set_index("hemisphere")
    left = next(row for row in rows if row[:2] == ["V1", "left"])
    expected = [format_number(v1.loc["left", name], 3) for name in ("mean", "sd")]
    assert left[2:4] == expected
    assert left[8] == "2 of 2"


def test_ridge_stands_beside_the_network(study, page):
    scores = pd.read_csv(study / "decoding.tsv", sep="\t", dtype={"subject": str})
    rows = table_of(page, "Correlation of decoded and true features")
    assert len(rows) == len(scores)
    for row, told in zip(rows, scores.to_dict("records"), strict=True):
        names = ("r", "r_low", "r_high", "ridge_r", "ridge_r_low", "ridge_r_high")
        assert row[3:9] == [format_number(told[name], 3) for name in names]
        assert row[9] == "0.040"
    assert "The network against ridge regression" in page.text


def test_sanity_checks_have_words_not_only_colours(page):
    rows = table_of(page, "Sanity checks")
    assert {row[1] for row in rows} == {"green", "amber", "red"}
    for look in ("good", "fair", "bad"):
        assert page.source.count(f'<td class="{look}"') == 4
    assert "what was planted is found, not all of it" in page.text


def test_ends_of_chance_are_not_said_to_be_of_an_interval_of_the_value(study):
    (low,) = (meaning for name, meaning in sanity_table(read_study(study)).columns if name == "Low")
    assert "by chance" in low


def test_without_tests_there_are_none(tmp_path):
    folder = make_report_study(tmp_path / "study", encoded=(), tested=False)
    with quick_maps():
        page = Page(write_report(folder))
    for words in ("p FWE", "Sanity checks", "The group", "permuted", "jackknife", "Ridge r"):
        assert words not in page.text


def test_statistics_are_told_and_cited(page):
    for words in (
        "those of the jackknife",
        "permuted over images 199 times",
        "Benjamini and Hochberg",
        "ridge regression",
        "signs of whole subjects were flipped",
        "Valid population inference",
    ):
        assert words in page.text


def test_files_are_named_with_their_checksums(study, page):
    import hashlib

    for name in ("roi.tsv", "group.tsv", "summary.json", "study.toml"):
        assert hashlib.sha256((study / name).read_bytes()).hexdigest() in page.text
    assert "no manifest applies" in page.text


def brain_data(page):
    return json.loads(page.data)


def test_brain_holds_the_maps(study, page):
    from neuroigc.surface import SurfaceMap

    data = brain_data(page)
    names = [one["name"] for one in data["maps"]]
    assert names[0] == "IGC of luminance contrast, subject 01"
    assert names[-1] == "pRF size, subject 01"
    assert len(names) == 2 * 2 + 3
    own = read_study(study).maps["01", "luminancecontrast", "igc"]
    for side, values in SurfaceMap.load(own).data.items():
        packed = np.frombuffer(base64.b64decode(data["maps"][0]["values"][side]), "<i2")
        np.testing.assert_array_equal(packed < 0, np.isnan(values))
        limit = float(data["maps"][0]["ticks"][2])
        known = packed >= 0
        back = (packed[known] / data["full"] * 2 - 1) * limit
        inside = np.abs(values[known]) < 0.9 * limit
        np.testing.assert_allclose(back[inside], values[known][inside], atol=0.06 * limit)


def test_brain_holds_the_meshes(page):
    from neuroigc.surface import load_mesh

    data, edges = brain_data(page), {}
    for side in ("left", "right"):
        points = np.frombuffer(base64.b64decode(data["points"][side]), "<i2").reshape(-1, 3)
        faces = np.frombuffer(base64.b64decode(data["faces"][side]), "<u2").reshape(-1, 3)
        expected, expected_faces = load_mesh("fsaverage5", "inflated", side)
        np.testing.assert_array_equal(faces, expected_faces)
        moved = points * data["unit"] - expected
        np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=0.011)
        edges[side] = points[:, 0].max() if side == "left" else points[:, 0].min()
    # A gap between the hemispheres, and zero in its middle.
    assert edges["left"] < 0 < edges["right"]
    assert edges["left"] == pytest.approx(-edges["right"], abs=1)


def test_size_lines_stand_beside_the_literature(study, page):
    from neuroigc.prf import size_eccentricity

    read = read_study(study)
    prf = read.tables["prf.tsv"]
    good = prf[(prf["status"] == "ok") & prf["roi"].isin(read.areas)]
    line = size_eccentricity(good, good["roi"]).set_index("area").loc["V1"]
    low, high = format_number(line["slope_low"]), format_number(line["slope_high"])
    assert f"<td>{format_number(line['slope'])} ({low} to {high})</td>" in page.source
    # The compressive model's, whose sizes are those that phantoms calibrate.
    assert f"<td>{format_number(0.16)}</td><td>{format_number(0.5)}</td>" in page.source
    assert "Known: Kay and others" in page.text


def test_phantoms_tell_what_errors_to_expect(study, page):
    table = pd.read_csv(study / "phantoms.tsv", sep="\t")
    order = np.argsort(table["ncsnr"])
    best = table.iloc[order[-30:]]
    # The lines are close to the identity: what is left are the errors put in.
    error = np.hypot(best["x_deg"] - best["true_x_deg"], best["y_deg"] - best["true_y_deg"])
    ratio = best["ncsnr"].min()
    ceiling = format_number(ratio / np.sqrt(1 + ratio**2))
    row = re.search(
        rf"<th scope=\"row\">noise ceiling r {ceiling} to [\d.]+</th>(.*?)</tr>", page.source
    )[1]
    subject, n, centre, _, _ = re.findall("<td>(.*?)</td>", row)
    assert (subject, n) == ("01", "30")
    assert float(centre) == pytest.approx(error.median(), abs=0.02)
    assert f"where it is above r = {ceiling} (medians)" in page.text
    assert "Calibration with phantoms, subject 01" in page.text
    assert "120 phantoms per subject" in page.text
    # Half the interval of x and of size.
    assert page.source.count(">0.20</td>") >= 2 * 4


def test_without_phantoms_sizes_are_said_to_be_those_of_the_maps(tmp_path):
    folder = make_report_study(tmp_path / "study", features=(), calibrated=False)
    with quick_maps():
        page = Page(write_report(folder))
    for words in (
        "sizes are those of the maps, not calibrated",
        "no phantoms calibrated them",
        "Known: Wandell and Winawer",
        "Sizes are biased unless calibrated",
        "summed over 2 × 2 pixels",
        "contributes to the correlation r of predicted and measured response",
    ):
        assert words in page.text
    assert "Errors to expect" not in page.text


def test_references_are_named_and_cut_where_they_end(tmp_path):
    folder = make_report_study(tmp_path / "study", features=(), known="reference")
    text = (folder / "study.toml").read_text().replace("pool = 2", "within_deg = 2.0")
    (folder / "study.toml").write_text(text)
    with quick_maps():
        page = Page(write_report(folder))
    table = pd.read_csv(folder / "prf.tsv", sep="\t")
    near = np.hypot(table["reference_x_deg"], table["reference_y_deg"]) <= 2
    n = (near & (table["status"] == "ok")).sum()
    assert f"{n} vertices, whose reference centre is within 2° of the centre of gaze" in page.text
    assert "Estimated against reference receptive fields" in page.text


def test_coverage_needs_the_size_of_the_images(copy):
    path = copy / "study.toml"
    text = re.sub("extent_deg = .*", "", path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    page = Page(write_report(copy))
    assert "coverage of the visual field is left out: the size of the images" in page.text


def test_maps_show_only_what_is_well_fitted(copy, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []

    def note(fields, *, vertices, where, quantity, view, **options):
        drawn.append((quantity, view))
        good = (fields["status"] == "ok") & (fields["r2"] >= 0.3)
        good &= fields["encoder_r"] >= fields["noise_ceiling_r"] / 2
        np.testing.assert_array_equal(where, good)
        assert 0 < good.sum() < len(good)
        np.testing.assert_array_equal(
            np.concatenate([vertices["left"], vertices["right"]]), fields["vertex"]
        )
        assert options["outline_names"] == ["V1", "V2", "V3", "hV4"]
        return Figure()

    monkeypatch.setattr("neuroigc.reporting.retinotopy.plot_retinotopy", note)
    write_report(copy)
    views = ("flat", "inflated")
    pairs = [(quantity, view) for quantity in ("angle", "eccentricity") for view in views]
    assert drawn == [*pairs, ("size", "flat")]


def test_nothing_is_fetched_from_anywhere(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name, "")
            assert value.startswith(("data:", "#")) or not value, (tag, name)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert [tag for tag, _ in page.tags if tag in ("iframe", "object", "embed", "base")] == []
    assert "default-src 'none'" in page.all("meta")[1]["content"]


def test_only_its_own_script_may_run(page):
    import hashlib

    policy = page.all("meta")[1]["content"]
    for tag in ("script", "style"):
        body = re.search(f"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_page_is_small(study):
    assert (study / "report.html").stat().st_size < 6e6


def test_supplement_beyond_the_budget_stays_in_its_folder(copy, monkeypatch):
    monkeypatch.setattr("neuroigc.reporting.shelf._BUDGET_BYTES", 10)
    page = Page(write_report(copy))
    assert "Not embedded, to keep this page small: see figures/sub-02_igc.png" in page.text
    assert len(page.all("img")) == 18


def test_methods_state_the_parameters_of_the_run(page):
    for words in (
        "5 hidden layers of 128 units; dropout 0.3",
        "Mish activations",
        "23 epochs, seed 7",
        "48 × 48 pixels, 8.4° × 8.4°",
        "13 to 17 gradients per sample at 242 to 244 held-out images per subject were taken",
        "the estimated numerical error of a map is at most 3.4%",
        "other samples of the same data set and the same subject",
        "over 4 000 images; the estimated numerical error of the map is 20.0% for the median",
        "a Gaussian window of its own",
        "2 convolutions with 16 and 12 maps",
        "Of 9 600 images, 1 240 were held out",
    ):
        assert words in page.text


def test_only_works_that_were_used_are_cited(study, page):
    assert "Integrated Gradient Correlation: a Dataset-wise Attribution Method" in page.text
    assert "Allen, E. J." in page.text
    assert "Algonauts" not in page.text
    cited = re.findall(r"\[(\d+)\]", page.text)
    n_listed = sum(attributes.get("id", "").startswith("reference-") for _, attributes in page.tags)
    assert {int(number) for number in cited} == set(range(1, n_listed + 1))
    # The paper's first author is the first work of a study without fMRI specifics.
    pieces, references = cite(["a [@igc], b [@ig] and a again [@igc]."])
    assert pieces == [[("a", 1), (", b", 2), (" and a again", 1), (".", None)]]
    assert references == [REFERENCES["igc"], REFERENCES["ig"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layout": "algonauts"}, "Algonauts 2023 release [@algonauts]"),
        ({"layout": "nsd"}, "We used 7T fMRI responses of 2 subjects"),
    ],
)
def test_methods_name_the_data(bare, change, words):
    summary = json.loads((bare / "summary.json").read_text())
    summary["study"]["simulated"] = False
    (bare / "summary.json").write_text(json.dumps(summary))
    toml = (
        (bare / "study.toml")
        .read_text()
        .replace('layout = "nsd"', f'layout = "{change["layout"]}"')
    )
    (bare / "study.toml").write_text(toml)
    assert words in methods_paragraphs(read_study(bare))[0]


def test_provenance_names_no_machine(study, page):
    assert "somebody" not in page.source
    assert str(study) not in page.source
    assert "nsdgeneral" in page.text
    for name in ("decoder", "encoder_sub-01"):
        description = json.loads((study / "models" / f"{name}.json").read_text())
        assert description["weights"]["sha256"] in page.text
    assert "5 min 12 s" in page.text
    assert '<th scope="row">torch</th><td class="words">2.13.0</td>' in page.source
    assert "2.3 GB" in page.text


def test_changed_weights_are_noticed(bare):
    (bare / "models").mkdir()
    (bare / "models" / "decoder.safetensors").write_bytes(b"other weights")
    (bare / "models" / "decoder.json").write_text('{"weights": {"sha256": "0123"}}')
    assert "the file was changed after training" in Page(write_report(bare)).text


def test_limitations_are_stated(page):
    for words in (
        "not causation",
        "share credit",
        "Negative values",
        "as good as their phantoms",
        "frozen",
    ):
        assert words in page.text


EVIL = "<script>alert('x')</script>"


def test_whatever_came_from_outside_is_escaped(bare):
    for name in ("roi.tsv", "decoding.tsv", "group.tsv", "sanity.tsv"):
        table = pd.read_csv(bare / name, sep="\t", dtype=str, keep_default_na=False)
        if "subject" in table:
            table["subject"] = table["subject"].replace("01", EVIL).replace("02", "../../x")
        if "light" in table:
            table["light"] = table["meaning"] = table["check"] + EVIL
        table["output"] = table["output"].replace("luminance_contrast", "a$_$ & <b>\"'")
        if "roi" in table:
            table["roi"] = table["roi"].replace("V1", '"><img src=x onerror=alert(1)>')
            table["roi"] = table["roi"].replace("V2", "{{ 7 * 7 }}")
        table.to_csv(bare / name, sep="\t", index=False)
    summary = json.loads((bare / "summary.json").read_text())
    summary["study"] |= {"title": EVIL, "subjects": [EVIL, "../../x"]}
    summary["decoding"] = {"a$_$ & <b>\"'": summary["decoding"]["luminance_contrast"]}
    summary["version"] = "</title><script>"
    (bare / "summary.json").write_text(json.dumps(summary))
    (bare / "study.toml").write_text('"<i>" = "</code><script>"\n[decoding]\n"&" = 1\n')
    page = Page(write_report(bare))
    assert len(page.all("script")) == 1
    assert "<i>" not in page.source
    assert EVIL not in page.source
    assert "onerror=alert" not in "".join(f"{a}" for _, a in page.tags)
    assert EVIL in page.text
    assert '"><img src=x onerror=alert(1)>' in page.text
    assert "{{ 7 * 7 }}" in page.text
    inside = {path.name for path in (bare / "figures").iterdir()}
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.(png|pdf|svg)", name) for name in inside)
    assert sorted(path.name for path in bare.parent.iterdir()) == ["bare"]


def test_names_that_collide_keep_their_own_figures(tmp_path):
    from neuroigc.reporting.plots import FigureFolder

    folder = FigureFolder(tmp_path)
    paths = [folder.file("sub", name, suffix=".svg") for name in ("a/b", "a b", "A-B", "../a-b")]
    assert len({path.name.lower() for path in paths}) == 4
    assert all(path.parent == tmp_path / "figures" for path in paths)


def test_without_encoding(bare):
    page = Page(write_report(bare))
    assert "this study trained no encoding models" in page.text
    assert "Maps are left out" in page.text
    assert "Sizes are" not in page.text


def test_without_decoding(tmp_path):
    folder = make_report_study(tmp_path / "study", features=(), known=None)
    with quick_maps():
        page = Page(write_report(folder))
    assert "this study did not decode image features" in page.text
    assert "Neither truth nor reference maps are known" in page.text
    assert "Simulated data" not in page.text
    assert "the reference eccentricity" in page.text


def test_with_nothing_but_a_summary(tmp_path):
    (tmp_path / "summary.json").write_text('{"version": "0.1.0", "seed": 0, "seconds": null}')
    page = Page(write_report(tmp_path))
    assert "holds no finished result yet" in page.text
    assert "neuroigc study" in page.text


def test_without_optional_files(tmp_path):
    folder = make_report_study(tmp_path / "study", subjects=("01",))
    for name in ("study.toml", "decoding.tsv"):
        (folder / name).unlink()
    for name in ("labels", "attributions", "models"):
        shutil.rmtree(folder / name)
    table = pd.read_csv(folder / "prf.tsv", sep="\t", dtype=str)
    table.drop(columns="noise_ceiling_r").to_csv(folder / "prf.tsv", sep="\t", index=False)
    with quick_maps():
        page = Page(write_report(folder))
    assert "Example maps of subject 01 are left out" in page.text
    assert "No noise ceilings are known" in page.text
    assert "nothing can be said about the spread between subjects" in page.text
    assert "% of r" not in page.text
    assert "1 subject" in page.text


def test_overlapping_regions_are_not_said_to_sum_to_r(bare):
    table = pd.read_csv(bare / "roi.tsv", sep="\t", dtype=str)
    double = table[table["roi"] == "V1"].assign(atlas="other", roi="striate")
    pd.concat([table, double]).to_csv(bare / "roi.tsv", sep="\t", index=False)
    page = Page(write_report(bare))
    assert "Some vertices lie in several regions, so the sum is not r." in page.text


def test_intervals_of_an_output_without_values_and_of_areas_of_one_name(tmp_path):
    folder = make_report_study(tmp_path, encoded=())
    for name in ("roi.tsv", "group.tsv"):
        table = pd.read_csv(folder / name, sep="\t", dtype={"subject": str})
        lost = table["output"] == FEATURES[0]
        table.loc[lost, ["igc"] if "igc" in table else ["mean"]] = np.nan
        twice = table[table["roi"] == "V1"].assign(atlas="other")
        pd.concat([table, twice]).to_csv(folder / name, sep="\t", index=False, na_rep="n/a")
    write_report(folder)
    (first,) = folder.glob("figures/sub-01_intervals*.svg")
    (group,) = folder.glob("figures/group_intervals*.svg")
    for path in (first, group):
        text = path.read_text(encoding="utf-8")
        assert "<!-- V1 (other) -->" in text
        assert FEATURES[0].replace("_", "-") not in path.name


def test_regions_outside_the_mask_are_named_not_shown(bare):
    table = pd.read_csv(bare / "roi.tsv", sep="\t", dtype=str, keep_default_na=False)
    empty = table[table["roi"] == "V1"].assign(roi="aTL", igc="n/a", n_vertices="0")
    pd.concat([table, empty]).to_csv(bare / "roi.tsv", sep="\t", index=False)
    page = Page(write_report(bare))
    assert "Without a vertex in the mask: aTL." in page.text
    assert page.text.count("aTL") == len(FEATURES)


def test_a_region_that_a_subject_lacks_stays_unknown():
    rows = [
        ("01", "left", "a", "V1", "x", 0.3, 0.01, 10),
        ("01", "right", "a", "V1", "x", 0.1, 0.01, 10),
        ("02", "left", "a", "V1", "x", 0.2, 0.01, 10),
        ("01", "left", "a", "FFA", "x", np.nan, np.nan, 0),
        ("02", "left", "a", "FFA", "x", 0.25, 0.01, 5),
    ]
    columns = ["subject", "hemisphere", "atlas", "roi", "output"]
    columns += ["igc", "standard_error", "n_vertices"]
    table = roi_table(pd.DataFrame(rows, columns=columns), "x", {"01": 0.4, "02": 0.45})
    v1, ffa = table.rows
    assert v1["values"] == pytest.approx({"01": 0.4, "02": 0.2})
    assert v1["mean"] == pytest.approx(0.3)
    assert v1["sd"] == pytest.approx(np.std([0.4, 0.2], ddof=1))
    assert ffa["mean"] == pytest.approx(0.25)
    assert np.isnan(ffa["values"]["01"])
    assert v1["share"] == pytest.approx(0.3 / 0.425)
    assert table.adds_up
    assert table.top["name"] == "V1"
    assert table.top["wins"] == 1


def test_no_summary_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"study_folder: expected a folder with a summary\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", r"summary\.json: expected a JSON object"),
        ("summary.json", "[]", r"summary\.json: expected a JSON object; got no JSON object"),
        ("summary.json", '{"decoding": 3}', r"summary\.json decoding: expected an object; got 3"),
        (
            "summary.json",
            '{"decoding": {"a": 3}}',
            r"summary\.json decoding\.a: expected an object",
        ),
        (
            "summary.json",
            '{"versions": "1"}',
            r"versions: expected an object; got '1'",
        ),
        ("summary.json", '{"study": {"subjects": 5}}', r"study\.subjects: expected a list; got 5"),
        ("summary.json", '{"prf": {"r_size": "x"}}', r"prf\.r_size: expected a number or null"),
        ("study.toml", "= 3", r"study\.toml: expected valid TOML"),
        ("study.toml", "data = 3", r"study\.toml data: expected a table; got 3"),
        ("roi.tsv", "subject\troi\n01\tV1\n", r"roi\.tsv: expected columns .*; got no hemisphere"),
        ("roi.tsv", "", r"roi\.tsv: expected a table separated by tabs"),
        (
            "decoding.tsv",
            "subject\toutput\tr\tn_test\n01\ta\thigh\t3\n",
            r"decoding\.tsv r: expected numbers; got 'high'",
        ),
        (
            "decoding.tsv",
            "subject\toutput\tr\tn_test\tridge_r\n01\ta\t0.1\t3\thigh\n",
            r"decoding\.tsv ridge_r: expected numbers; got 'high'",
        ),
        (
            "decoding.tsv",
            "subject\toutput\tr\tn_test\n01\ta\t0.1\t3\n01\ta\t0.2\t3\n",
            r"decoding\.tsv: expected one row for each subject, output; got 1 repeated rows",
        ),
    ],
)
def test_what_cannot_be_understood_is_an_error(bare, name, content, message):
    (bare / name).write_text(content)
    with pytest.raises(InputError, match=message):
        write_report(bare)
    assert not (bare / "report.html").exists()


def test_maps_that_do_not_belong_to_the_table_are_an_error(copy):
    path = copy / "attributions" / "sub-01_encoding.npz"
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, "attributions": arrays["attributions"][1:]})
    with pytest.raises(InputError, match=r"encoding\.npz: expected one map for each .* rows"):
        write_report(copy)


def test_pickled_attributions_are_refused(copy):
    path = copy / "attributions" / "sub-01_encoding.npz"
    np.savez(path, attributions=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"encoding\.npz: expected a saved attribution"):
        write_report(copy)


@pytest.mark.parametrize(
    "name",
    [
        "summary.json",
        "models/decoder.json",
        "attributions/sub-01_decoding.npz",
        "attributions/sub-01_encoding.npz",
        "sub-01/sub-01_hemi-L_space-fsaverage_den-10k_desc-luminanceContrast_stat-igc_statmap"
        ".shape.gii",
        "labels/sub-02_hemi-R_space-fsaverage_den-10k_desc-visual_dseg.label.gii",
    ],
)
def test_a_truncated_file_is_one_clear_error(copy, name):
    path = copy / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=re.escape(path.name)):
        write_report(copy)


def test_a_folder_that_cannot_be_written_to_is_an_error(bare):
    (bare / "figures").write_text("in the way")
    with pytest.raises(InputError, match="study_folder: expected a folder that can be written to"):
        write_report(bare)


def test_numbers_in_words():
    assert format_number(-0.001) == "0.00"
    assert format_number(-1234.5, 1) == "−1\N{NARROW NO-BREAK SPACE}234.5"
    assert format_number(None) == format_number(float("nan")) == "–"
    assert format_small(-0.000012) == "−1.2 × 10⁻⁵"
    assert format_small(0.05) == "0.050"
    assert format_duration(59.6) == "1 min 0 s"
    assert format_duration(7380) == "2 h 3 min"
    assert format_size(812.4) == "812 MB"
    assert join_words(["a", "b", "c"]) == "a, b and c"
    assert join_words([]) == ""
    assert feature_name("one_over_f_slope") == "1/f slope"


def test_summary_of_a_study_without_truth_names_the_reference(tmp_path):
    make_report_study(tmp_path / "s", features=(), known="reference")
    sentences = summary_sentences(read_study(tmp_path / "s"), [])
    assert "against the reference maps" in sentences[-2]


def test_ridge_network_and_ceiling_stand_side_by_side(page):
    header = 'Ridge, r</th><th scope="col">Encoder, r</th>'
    assert f'{header}<th scope="col">Ceiling, r</th>' in page.source
    assert "(ridge regression 0." in page.text
    assert "predicted the same vertices from local contrast" in page.text
    table = re.search(r"<caption>Correlation of decoded and true.*?</table>", page.source, re.S)[0]
    for name in ("r, network", "r, ridge", "Noise ceiling"):
        assert name in table


def test_captions_count_the_subjects_of_the_group(page):
    assert re.search(r"What each region contributes in \d+ subjects", page.text)
