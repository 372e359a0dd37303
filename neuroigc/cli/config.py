"""What a study is: the tables of STUDY.toml, read strictly."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from neuroigc._validation import InputError, check_choice

__all__ = ["StudyConfig", "dump_config", "load_config", "parse_config"]


@dataclass(frozen=True)
class DataConfig:
    """Where the data are and which part of them is used."""

    root: str
    subjects: tuple[str, ...]
    layout: str = "nsd"
    space: str = "fsaverage"
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    sessions: int | None = None
    mask: str | None = "nsdgeneral"
    extent_deg: float = 8.4
    test_fraction: float = 0.1
    truth: str | None = None


@dataclass(frozen=True)
class RoiConfig:
    """Which atlases name the regions, and which of their labels become one region."""

    atlases: tuple[str, ...] = ("prf-visualrois",)
    merge: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class DecodingConfig:
    """Vertices → image features."""

    features: tuple[str, ...] = ("luminance_contrast", "one_over_f_slope")
    features_file: str | None = None
    tolerance: float = 0.05
    max_gradients: int | None = None
    network: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodingConfig:
    """Images → vertices, for the pRFs."""

    subjects: tuple[str, ...] = ()
    image_size: int = 64
    pool: int = 2
    tolerance: float = 0.05
    max_gradients: int | None = 8
    rois: tuple[str, ...] = ("V1", "V2", "V3", "hV4")
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
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(where, expected="valid TOML", got=str(error)) from error
    config = _build(StudyConfig, table, where)
    if config.decoding is None and config.encoding is None:
        raise InputError(
            where,
            expected="a table [decoding] or [encoding], or both",
            got="neither",
            fix="Add `[decoding]` to decode image features from the vertices.",
        )
    check_choice(f"{where} [data] layout", config.data.layout, ("nsd", "algonauts"))
    if not config.data.subjects:
        raise InputError(f"{where} [data] subjects", expected="at least one subject", got="none")
    for subject in config.data.subjects:
        # Subjects become parts of file names.
        if not (subject.isascii() and subject.isalnum()):
            raise InputError(
                f"{where} [data] subjects", expected="letters and digits only", got=repr(subject)
            )
    if not 0 <= config.data.test_fraction < 1:
        raise InputError(
            f"{where} [data] test_fraction",
            expected="a number from 0 up to, not including, 1",
            got=str(config.data.test_fraction),
        )
    for subject in config.encoding.subjects if config.encoding else ():
        check_choice(f"{where} [encoding] subjects", subject, config.data.subjects)
    return _map_paths(config, lambda path: str((base / path).resolve()))


def _map_paths(config, convert):
    """Return ``config`` with its paths converted."""
    data = dataclasses.replace(config.data, root=convert(config.data.root))
    decoding = config.decoding
    if decoding and decoding.features_file:
        decoding = dataclasses.replace(decoding, features_file=convert(decoding.features_file))
    return dataclasses.replace(config, data=data, decoding=decoding)


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
    hint = next(option for option in options if option is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(where, expected="a table", got=type(value).__name__)
        return _build(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise InputError(where, expected="a list of strings", got=repr(value))
        return tuple(value)
    plain = typing.get_origin(hint) or hint
    if plain is float and type(value) is int:
        return float(value)
    # bool is an int to Python, not to a reader of the file.
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise InputError(where, expected=f"a value of type {plain.__name__}", got=repr(value))
    return value
