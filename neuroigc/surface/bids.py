"""Names and companions of BIDS derivatives: file names, sidecars, the dataset description."""

import json
import re

import neuroigc
from neuroigc._files import atomic_path, make_output_folder
from neuroigc._validation import InputError
from neuroigc.surface.spaces import get_space

__all__ = ["bids_label", "bids_name", "write_dataset_description", "write_json"]

_HEMISPHERE = {"left": "L", "right": "R"}


def bids_label(text, argument):
    """Return ``text`` as a BIDS label, which has letters and digits only.

    Words that ``_``, ``-`` or a space separates are joined, ``luminance_contrast`` becoming
    ``luminanceContrast``.

    Raises
    ------
    InputError
        If anything else is in it, so that no name can point out of its folder.
    """
    words = [word for word in re.split(r"[-_ ]+", str(text)) if word]
    label = "".join(words[:1] + [word[0].upper() + word[1:] for word in words[1:]])
    if not re.fullmatch(r"[A-Za-z0-9]+", label):
        raise InputError(
            argument,
            expected="letters and digits (words separated by _, - or a space)",
            got=repr(text),
        )
    return label


def bids_name(*, space, suffix, hemisphere=None, subject=None, desc=None, stat=None):
    """Return the name of a file.

    ``sub-01_hemi-L_space-fsaverage_den-10k_desc-contrast_stat-igc_statmap.shape.gii``, for
    example.

    Parameters
    ----------
    space : str
        See :data:`neuroigc.surface.spaces.SPACES`; gives the entities ``space`` and ``den``.
    suffix : str
        What follows the last underscore, extension included.
    hemisphere : {"left", "right"}, optional
        Of one hemisphere's file.
    subject, desc, stat : str, optional
        Labels; "sub-01" and "01" mean the same subject.
    """
    entities = {
        "sub": None
        if subject is None
        else bids_label(str(subject).removeprefix("sub-"), "subject"),
        "hemi": None if hemisphere is None else _HEMISPHERE[hemisphere],
        "space": "fsaverage",
        "den": get_space(space).density,
        "desc": None if desc is None else bids_label(desc, "desc"),
        "stat": None if stat is None else bids_label(stat, "stat"),
    }
    pairs = [f"{key}-{label}" for key, label in entities.items() if label is not None]
    return "_".join([*pairs, suffix])


# What lies in a study beside the files that BIDS has names for.
_IGNORED = (
    *("attributions/", "data/", "figures/", "models/", "prepared/", "sanity/"),
    *("shards/", "stages/", "sums/"),
    *("/report.html", "/study.toml", "/summary.json"),
    *("/roi.*", "/group.*", "/decoding.*", "/prf.*", "/phantoms.*", "/sanity.*"),
)


def write_json(path, content):
    """Write ``content`` as a JSON sidecar, whole or not at all."""
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            "metadata", expected="text, finite numbers, lists and dicts", got=str(error)
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def write_dataset_description(folder, *, name, sources=()):
    """Write ``dataset_description.json``, which makes a folder a BIDS derivative.

    And ``.bidsignore``, which tells validators what else lies in it.

    Parameters
    ----------
    folder : path-like
        The root of the derivative.
    name : str
        What to call it.
    sources : sequence of str
        Where the data came from: addresses or names of data sets.

    Returns
    -------
    Path
    """
    path = make_output_folder(folder, "folder") / "dataset_description.json"
    content = {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "neuroigc", "Version": neuroigc.__version__}],
    }
    if sources:
        content["SourceDatasets"] = [{"URL": source} for source in sources]
    write_json(path, content)
    with atomic_path(path.with_name(".bidsignore")) as temporary:
        temporary.write_text("\n".join(_IGNORED) + "\n", "utf-8")
    return path
