"""What a study is: the tables of STUDY.toml, read strictly."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from neuroigc._files import reading
from neuroigc._validation import InputError, check_choice

RESPONSE_DTYPES = ("float32", "float16")
MAP_TESTS = ("largest", "tfce", "area", "mass")

__all__ = ["StudyConfig", "dump_config", "load_config", "parse_config"]


@dataclass(frozen=True)
class DataConfig:
    """Where the data are and which part of them is used.

    ``layout`` is "nsd", "algonauts" or "arrays", a folder with a dataset.toml. ``mask`` is the
    name of a label, a path with {hemi}, or "all"; by default nsdgeneral. ``sessions`` are the
    first so many, or those of a list; by default all there are. ``test_images`` are "shared",
    "special" (shown three times to all subjects) or a list of 0-based numbers; ``dtype`` is that
    of the responses on disk. With ``truth`` the data are invented and the truth lies beside them.
    """

    root: str
    subjects: tuple[str, ...]
    layout: str = "nsd"
    space: str = "fsaverage"
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    sessions: int | tuple[int, ...] | None = None
    mask: str | None = None
    test_images: str | tuple[int, ...] = "shared"
    dtype: str = "float32"
    extent_deg: float = 8.4
    test_fraction: float = 0.1
    truth: bool = False


@dataclass(frozen=True)
class RoiConfig:
    """Which atlases name the regions, and which of their labels become one region."""

    atlases: tuple[str, ...] = ("prf-visualrois",)
    merge: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class DecodingConfig:
    """Vertices → image features.

    ``n_permutations`` of the true features test the areas within each subject (0 leaves that
    out). With ``ridge`` a linear model of each subject is scored beside the network.
    ``map_tests`` are those of single vertices against the same permutations, as maps of family-wise
    p-values: by the "largest" value anywhere, or with their neighbours by threshold-free
    enhancement ("tfce") or the "area" or "mass" of clusters. With ``sanity`` the attributions are
    checked against models that know nothing, which takes eight more trainings.
    """

    features: tuple[str, ...] = ("luminance_contrast", "one_over_f_slope")
    features_file: str | None = None
    tolerance: float = 0.05
    max_gradients: int | None = None
    n_permutations: int = 199
    ridge: bool = True
    map_tests: tuple[str, ...] = ()
    sanity: bool = False
    network: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodingConfig:
    """Images → vertices, for the pRFs.

    With ``model = "fields"`` every vertex has a Gaussian window, and phantoms calibrate what is
    read off its map. "latents" is the encoder of the IGC paper: all vertices share a few latents,
    so that maps are wide and sizes are not calibrated; ``pool``, ``tolerance`` and
    ``max_gradients`` are its alone. Vertices outside of ``rois`` are encoded with ``elsewhere``.
    ``references`` is a folder of maps of ``reference_kind`` ("nsd" or "benson") to compare with
    within ``within_deg``; {subject} in it stands for subj01. With ``ridge`` a linear model of local
    contrast is scored beside the network.
    """

    subjects: tuple[str, ...] = ()
    model: str = "fields"
    image_size: int = 48
    n_phantoms: int = 500
    rois: tuple[str, ...] = ("V1", "V2", "V3", "hV4")
    elsewhere: bool = False
    references: str | None = None
    reference_kind: str = "nsd"
    within_deg: float | None = None
    ridge: bool = True
    pool: int = 2
    tolerance: float = 0.05
    max_gradients: int | None = 8
    network: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyConfig:
    """A whole study."""

    data: DataConfig
    title: str = "neuroigc study"
    seed: int = 0
    device: str = "auto"
    rois: RoiConfig = field(default_factory=RoiConfig)
    decoding: DecodingConfig | None = None
    encoding: EncodingConfig | None = None


def load_config(path: str | Path) -> StudyConfig:
    """Read STUDY.toml; relative paths in it count from the file's own folder."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(
            "STUDY.toml", expected="a readable TOML file", got=f"{path} ({reason})"
        ) from error
    return parse_config(text, where=path.name, base=path.parent)


def parse_config(text: str, *, where: str = "STUDY.toml", base: Path = Path()) -> StudyConfig:
    """Turn the text of a study file into a `StudyConfig`, naming whatever is wrong with it."""
    with reading(where, "valid TOML", fix=""):
        table = tomllib.loads(text)
    config = _build(StudyConfig, table, where)
    if config.decoding is None and config.encoding is None:
        raise InputError(
            where,
            expected="a table [decoding] or [encoding], or both",
            got="neither",
            fix="Add `[decoding]` to decode image features from the vertices.",
        )
    check_choice(f"{where} [data] layout", config.data.layout, ("nsd", "algonauts", "arrays"))
    check_choice(f"{where} [data] dtype", config.data.dtype, RESPONSE_DTYPES)
    _check_values(config, where)
    for subject in config.encoding.subjects if config.encoding else ():
        check_choice(f"{where} [encoding] subjects", subject, config.data.subjects)
    return _map_paths(config, lambda path: str((base / path).resolve()))


def _check_values(config, where):
    """Refuse values that no stage could use, before any work is done."""
    data, decoding, encoding = config.data, config.decoding, config.encoding
    named = all(len(s) == 2 and s.isascii() and s.isdigit() for s in data.subjects)
    checks = [
        ("seed", config.seed, config.seed >= 0, "0 or more"),
        ("[data] subjects", data.subjects, len(data.subjects) > 0, "at least one subject"),
        ("[data] subjects", data.subjects, named, "two digits for each, such as '01'"),
        ("[data] subjects", data.subjects, _differ(data.subjects), "every subject once"),
        *_numbers("[data] sessions", data.sessions, 1),
        *_numbers("[data] test_images", data.test_images, 0),
        ("[data] extent_deg", data.extent_deg, data.extent_deg > 0, "more than 0 degrees"),
        ("[data] test_fraction", data.test_fraction, 0 <= data.test_fraction < 1, "0 to below 1"),
    ]
    for name in ("space", "beta_version"):
        value = getattr(data, name)
        named = re.fullmatch(r"\w[\w.-]*", value) is not None
        checks.append((f"[data] {name}", value, named, "the name of a folder"))
    if data.layout != "nsd":
        for name in ("mask", "sessions"):
            value = getattr(data, name)
            checks.append((f"[data] {name}", value, value is None, "nothing: only NSD has any"))
        own = data.test_images
        expected = "nothing: only NSD has a choice"
        checks.append(("[data] test_images", own, own == "shared", expected))
    if decoding:
        n_drawn, tests = decoding.n_permutations, decoding.map_tests
        for test in tests:
            check_choice(f"{where} [decoding] map_tests", test, MAP_TESTS)
        checks += [
            ("[decoding] features", decoding.features, len(decoding.features) > 0, "at least one"),
            ("[decoding] features", decoding.features, _differ(decoding.features), "each once"),
            ("[decoding] n_permutations", n_drawn, n_drawn >= 0, "0 or more"),
            ("[decoding] n_permutations", n_drawn, n_drawn or not tests, "some, for map_tests"),
            ("[decoding] map_tests", tests, _differ(tests), "each once"),
        ]
    if encoding:
        size, pool, within = encoding.image_size, encoding.pool, encoding.within_deg
        # Windows lie on a grid that halves the image until it is small enough.
        halves = encoding.model != "fields" or size <= 24 or size % 8 == 0
        check_choice(f"{where} [encoding] model", encoding.model, ("fields", "latents"))
        check_choice(
            f"{where} [encoding] reference_kind", encoding.reference_kind, ("nsd", "benson")
        )
        checks += [
            ("[encoding] subjects", encoding.subjects, len(encoding.subjects) > 0, "at least one"),
            ("[encoding] rois", encoding.rois, len(encoding.rois) > 0, "at least one area"),
            ("[encoding] image_size", size, size >= 16, "16 pixels or more"),
            ("[encoding] image_size", size, halves, "a multiple of 8 above 24 pixels"),
            ("[encoding] n_phantoms", encoding.n_phantoms, encoding.n_phantoms >= 50, "50 or more"),
            ("[encoding] within_deg", within, within is None or within > 0, "more than 0 degrees"),
            ("[encoding] pool", pool, pool >= 1 and size >= 8 * pool, "1 to image_size / 8"),
        ]
    for name, part in (("decoding", decoding), ("encoding", encoding)):
        if part:
            most = part.max_gradients
            checks += [
                (f"[{name}] tolerance", part.tolerance, part.tolerance > 0, "more than 0"),
                (f"[{name}] max_gradients", most, most is None or most >= 5, "5 or more"),
            ]
    for argument, value, is_right, expected in checks:
        if not is_right:
            got = ", ".join(map(repr, value)) or "none" if isinstance(value, tuple) else repr(value)
            raise InputError(f"{where} {argument}", expected=expected, got=got)


def _numbers(name, value, least):
    """Return the checks of a setting that is a list of numbers, one number or a word."""
    if isinstance(value, tuple):
        right = len(value) > 0 and min(value) >= least and _differ(value)
        return [(name, value, right, f"different whole numbers from {least} up")]
    if isinstance(value, str):
        right = value in ("shared", "special")
        return [(name, value, right, "'shared', 'special' or a list of image numbers")]
    return [(name, value, value is None or value >= least, f"{least} or more, or a list")]


def _differ(names):
    return len(set(names)) == len(names)


def _map_paths(config, convert):
    """Return ``config`` with its paths converted."""
    data = dataclasses.replace(config.data, root=convert(config.data.root))
    decoding = config.decoding
    if decoding and decoding.features_file:
        decoding = dataclasses.replace(decoding, features_file=convert(decoding.features_file))
    encoding = config.encoding
    if encoding and encoding.references:
        encoding = dataclasses.replace(encoding, references=convert(encoding.references))
    return dataclasses.replace(config, data=data, decoding=decoding, encoding=encoding)


def dump_config(config: StudyConfig, folder: str | Path) -> str:
    """Write ``config`` as TOML, with every default spelled out, to be read from ``folder``.

    Paths become relative to ``folder``, so that a study can be moved with its data.
    """
    relative = _map_paths(config, lambda path: Path(os.path.relpath(path, folder)).as_posix())
    table = dataclasses.asdict(relative)
    return "\n".join(_toml_lines(table, ())) + "\n"


def _toml_lines(table, path):
    nested = {key: value for key, value in table.items() if isinstance(value, dict)}
    for key, value in table.items():
        if key not in nested and value is not None:
            # JSON's strings, numbers, booleans and lists are TOML's.
            yield f"{_toml_key(key)} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in nested.items():
        yield ""
        yield "[" + ".".join(map(_toml_key, (*path, key))) + "]"
        yield from _toml_lines(value, (*path, key))


def _toml_key(key):
    return (
        key
        if key.replace("_", "").replace("-", "").isalnum()
        else json.dumps(key, ensure_ascii=False)
    )


def _build(cls, table, where):
    """Fill dataclass ``cls`` from ``table``; unknown, missing and mistyped keys are errors."""
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise InputError(
                where, expected=f"keys among {', '.join(sorted(fields))}", got=repr(key)
            )
    values = {}
    for name, item in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], f"{where} {name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise InputError(where, expected=f"the key {name!r}", got="nothing")
    return cls(**values)


def _convert(hint, value, where):
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    options = [option for option in options if option is not type(None)]
    lists = [option for option in options if typing.get_origin(option) is tuple]
    hint = lists[0] if lists and isinstance(value, list) else options[0]
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(where, expected="a table", got=type(value).__name__)
        return _build(hint, value, where)
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        if not isinstance(value, list) or not all(type(entry) is kind for entry in value):
            names = {str: "strings", int: "whole numbers"}
            raise InputError(where, expected=f"a list of {names[kind]}", got=repr(value))
        return tuple(value)
    if hint == dict[str, list[str]] and isinstance(value, dict):
        return {
            key: list(_convert(tuple[str, ...], entry, f"{where} {key}"))
            for key, entry in value.items()
        }
    plain = typing.get_origin(hint) or hint
    if plain is float and isinstance(value, int | float) and not isinstance(value, bool):
        # TOML has inf and nan, and whole numbers that no float can hold.
        if not abs(value) <= 1e300:
            raise InputError(where, expected="a finite number", got=repr(value)[:40])
        return float(value)
    # bool is an int to Python, not to a reader of the file.
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise InputError(where, expected=f"a value of type {plain.__name__}", got=repr(value))
    return value
