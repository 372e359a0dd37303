"""Atlases: which vertex belongs to which area."""

from dataclasses import dataclass

import numpy as np

from neuroigc._files import atomic_path, make_output_folder
from neuroigc._validation import InputError, check_choice
from neuroigc.surface.bids import bids_name, write_json
from neuroigc.surface.files import as_labels, write_label_gifti
from neuroigc.surface.spaces import HEMISPHERES, check_vertices, get_space, nest, space_of

__all__ = ["ELSEWHERE", "Atlas", "CombinedAtlas", "check_named", "combine"]

ELSEWHERE = "elsewhere"


def check_named(argument, labels, table):
    """Raise, listing them, if there are labels that the table does not name."""
    unnamed = np.setdiff1d(labels, [0, *table])
    if unnamed.size:
        raise InputError(
            argument,
            expected="a name in the table for every label",
            got=f"{', '.join(map(str, unnamed))} without one",
            fix="Is the table that of another atlas? Label 0 and -1 need no name.",
        )


class _Areas:
    """What one atlas and several combined have in common: named, perhaps overlapping areas."""

    @property
    def space(self):
        """Name of the surface."""
        labels = self.layers[0].labels
        return space_of({hemisphere: len(v) for hemisphere, v in labels.items()}).name

    @property
    def n_vertices(self):
        """Vertices of one hemisphere's surface."""
        return get_space(self.space).n_vertices

    @property
    def names(self):
        """Names of all areas, in the order of their tables."""
        return [name for layer in self.layers for name in layer.table.values()]

    def atlas_of(self, roi):
        """Return the name of the atlas that an area stems from."""
        return self._layer(roi).name

    def mask(self, roi, hemisphere=None):
        """Return where an area lies.

        Parameters
        ----------
        roi : str
            One of :attr:`names`.
        hemisphere : {"left", "right"}, optional
            Both by default.

        Returns
        -------
        bool array (n_vertices,), or a dict of both
        """
        if hemisphere is None:
            return {side: self.mask(roi, side) for side in HEMISPHERES}
        check_choice("hemisphere", hemisphere, HEMISPHERES)
        layer = self._layer(roi)
        keys = [key for key, name in layer.table.items() if name == roi]
        return np.isin(layer.labels[hemisphere], keys)

    def groups(self, vertices, *, by_hemisphere=False, elsewhere=False):
        """Return the columns of each area in a matrix of vertices.

        Parameters
        ----------
        vertices : dict of str to int array
            The vertices of the columns: those of "left", then those of "right".
        by_hemisphere : bool
            Keep the hemispheres apart; the keys are then "left V1", "right V1", ….
        elsewhere : bool
            Add the columns that lie in no area.

        Returns
        -------
        dict of str to int array
            Column indices. Areas without a column are left out, which is common: not every
            subject has every area. With ``elsewhere`` no column is lost.
        """
        vertices = check_vertices(vertices, self.n_vertices)
        sides = np.repeat([0, 1], [len(vertices[hemisphere]) for hemisphere in HEMISPHERES])
        members = {
            roi: np.concatenate(
                [self.mask(roi, hemisphere)[vertices[hemisphere]] for hemisphere in HEMISPHERES]
            )
            for roi in self.names
        }
        if elsewhere:
            nowhere = np.ones(len(sides), bool)
            for member in members.values():
                nowhere &= ~member
            members[ELSEWHERE] = nowhere
        if by_hemisphere:
            members = {
                f"{hemisphere} {roi}": member & (sides == side)
                for side, hemisphere in enumerate(HEMISPHERES)
                for roi, member in members.items()
            }
        return {name: np.flatnonzero(member) for name, member in members.items() if member.any()}

    def _layer(self, roi):
        for layer in self.layers:
            if roi in layer.table.values():
                return layer
        raise InputError("roi", expected=f"one of {', '.join(self.names)}", got=repr(roi))


@dataclass(frozen=True, eq=False)
class Atlas(_Areas):
    """At most one area per vertex.

    Parameters
    ----------
    name : str
        Of the atlas.
    labels : dict of str to int array (n_vertices,)
        "left" and "right"; 0 where there is no area, -1 is taken as 0.
    table : dict of int to str
        Names of the labels above 0. Areas without a vertex are kept.

    Raises
    ------
    InputError
        If a label has no name, a name comes twice, or the vertex counts are no known surface's
        or two surfaces'.
    """

    name: str
    labels: dict
    table: dict

    def __post_init__(self):
        if set(self.labels) != set(HEMISPHERES):
            raise InputError(
                "labels", expected="the keys 'left' and 'right'", got=str(list(self.labels))
            )
        owner = f"atlas {self.name!r}"
        labels = {side: as_labels(self.labels[side], owner) for side in HEMISPHERES}
        table = {int(key): str(name) for key, name in self.table.items() if int(key) > 0}
        space_of({side: len(values) for side, values in labels.items()}, owner)
        for values in labels.values():
            check_named(owner, values, table)
        if len(set(table.values())) != len(table):
            raise InputError(owner, expected="every name once", got=", ".join(table.values()))
        if ELSEWHERE in table.values():
            raise InputError(
                owner,
                expected=f"no area called {ELSEWHERE!r}, which stands for all other vertices",
                got="one",
            )
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "table", table)

    @property
    def layers(self):
        """The atlas itself: one layer of areas that do not overlap."""
        return (self,)

    def merge(self, areas):
        """Return an atlas in which some areas are one, or have another name.

        Parameters
        ----------
        areas : dict of str to sequence of str
            ``{"V1": ("V1v", "V1d"), "V2": ("V2v", "V2d")}``. Other areas stay.
        """
        key_of = {name: key for key, name in self.table.items()}
        new_key, table = {key: key for key in self.table}, dict(self.table)
        for name, parts in areas.items():
            parts = [parts] if isinstance(parts, str) else list(parts)
            missing = [part for part in parts if part not in key_of]
            if missing or not parts:
                raise InputError(
                    f"areas[{name!r}]",
                    expected=f"some of {', '.join(key_of)}",
                    got=", ".join(missing) or "none",
                )
            keys = [key_of.pop(part) for part in parts]  # so that no area goes into two
            for key in keys:
                del table[key]
                new_key[key] = min(keys)
            table[min(keys)] = name
        labels = {}
        for hemisphere, values in self.labels.items():
            keys, where = np.unique(values, return_inverse=True)
            labels[hemisphere] = np.array([new_key.get(key, 0) for key in keys.tolist()])[where]
        return Atlas(self.name, labels, dict(sorted(table.items())))

    def nested(self, space):
        """Return the atlas on a coarser surface, at the vertices that it shares with this one."""
        labels = {side: nest(values, self.space, space) for side, values in self.labels.items()}
        return Atlas(self.name, labels, self.table)

    def to_gifti(self, folder, *, subject=None):
        """Write one ``dseg.label.gii`` and JSON sidecar per hemisphere; return the paths.

        The names of the labels are inside, and in the ``dseg.tsv`` that BIDS asks for.
        """
        space = get_space(self.space)
        folder = make_output_folder(folder, "folder")
        paths = {}
        for hemisphere, labels in self.labels.items():
            stem = bids_name(
                hemisphere=hemisphere,
                space=space.name,
                suffix="dseg",
                subject=subject,
                desc=self.name,
            )
            paths[hemisphere] = folder / f"{stem}.label.gii"
            sidecar = {"Description": self.name, "Density": space.density_text}
            write_json(folder / f"{stem}.json", sidecar)
            write_label_gifti(paths[hemisphere], labels, self.table, hemisphere, name=self.name)
        table = bids_name(space=space.name, suffix="dseg.tsv", subject=subject, desc=self.name)
        with atomic_path(folder / table) as temporary:
            rows = [f"{key}\t{name}" for key, name in sorted(self.table.items())]
            temporary.write_text("\n".join(["index\tname", *rows]) + "\n", "utf-8")
        return paths


@dataclass(frozen=True, eq=False)
class CombinedAtlas(_Areas):
    """Several atlases of one surface, whose areas may overlap; made by `combine`."""

    name: str
    layers: tuple

    def nested(self, space):
        """Return the atlases on a coarser surface."""
        return CombinedAtlas(self.name, tuple(layer.nested(space) for layer in self.layers))


def combine(atlases, *, name="combined"):
    """Combine atlases of one surface, such as NSD's ``prf-visualrois`` and ``floc-*``.

    Parameters
    ----------
    atlases : sequence of Atlas
        Areas of different atlases may overlap; their names must differ.
    name : str
        Of the combination; areas keep the name of their own atlas in tables.

    Raises
    ------
    InputError
        If surfaces differ or two areas have one name.
    """
    layers = tuple(layer for atlas in atlases for layer in atlas.layers)
    spaces = {layer.name: layer.space for layer in layers}
    if len(set(spaces.values())) != 1:
        raise InputError("atlases", expected="atlases of one surface", got=str(spaces))
    combined = CombinedAtlas(name, layers)
    doubles = dict.fromkeys(roi for roi in combined.names if combined.names.count(roi) > 1)
    if doubles:
        raise InputError(
            "atlases",
            expected="areas with names of their own",
            got=f"{', '.join(doubles)} in two atlases",
            fix='Rename them first: atlas.merge({"V1 (Wang)": ["V1v", "V1d"]}).',
        )
    return combined
