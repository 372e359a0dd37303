"""A map of both hemispheres: from columns to the surface, to files and back."""

from dataclasses import dataclass, field

import numpy as np

from neuroigc._files import make_output_folder, read_json
from neuroigc._validation import InputError
from neuroigc.surface.bids import bids_name, write_json
from neuroigc.surface.files import write_map_gifti
from neuroigc.surface.readers import choose_map, files_of, read_surface_data
from neuroigc.surface.spaces import (
    HEMISPHERES,
    check_vertices,
    get_space,
    load_mesh,
    nest,
    space_of,
)

__all__ = ["SurfaceMap"]


@dataclass(frozen=True, eq=False)
class SurfaceMap:
    """One value per vertex of both hemispheres; NaN where nothing was measured.

    Parameters
    ----------
    data : dict of str to array (n_vertices,)
        "left" and "right", the whole surface of each.
    space : str, optional
        The surface; found by its number of vertices, and checked if given.
    name : str
        What the values are, for people.
    units : str
        Their units; "" for numbers without.
    metadata : dict
        Further entries of the JSON sidecar: text, numbers, lists.

    Raises
    ------
    InputError
        If the vertex counts are no known surface's or not those of ``space``, or the hemispheres'
        surfaces differ.
    """

    data: dict
    space: str | None = None
    name: str = ""
    units: str = ""
    metadata: dict = field(default_factory=dict)

    def __post_init__(self):
        if set(self.data) != set(HEMISPHERES):
            raise InputError(
                "data", expected="the keys 'left' and 'right'", got=str(list(self.data))
            )
        data = {hemisphere: np.asarray(self.data[hemisphere]) for hemisphere in HEMISPHERES}
        for hemisphere, values in data.items():
            if values.ndim != 1:
                raise InputError(
                    f"data[{hemisphere!r}]", expected="one value per vertex", got=str(values.shape)
                )
        found = space_of({hemisphere: len(values) for hemisphere, values in data.items()})
        if self.space not in (None, found.name):
            raise InputError(
                "data", expected=f"the vertices of {self.space}", got=f"those of {found.name}"
            )
        object.__setattr__(self, "space", found.name)
        object.__setattr__(self, "data", {key: v.astype(np.float32) for key, v in data.items()})

    @classmethod
    def from_columns(cls, values, vertices, *, space, **options):
        """Put the columns of a model's input or output back onto the surface.

        Parameters
        ----------
        values : array (n_columns,)
            The left hemisphere's vertices, then the right's.
        vertices : dict of str to int array
            Their indices into the surface, for "left" and "right".
        space : str
            The surface.
        **options
            ``name``, ``units``, ``metadata``.

        Raises
        ------
        InputError
            If values and vertices differ in number, or the vertices lie outside the surface.
        """
        n_vertices = get_space(space).n_vertices
        vertices = check_vertices(vertices, n_vertices)
        values = np.asarray(values)
        n_left = len(vertices["left"])
        n_columns = n_left + len(vertices["right"])
        if values.shape != (n_columns,):
            raise InputError(
                "values",
                expected=f"one value for each of the {n_columns} vertices",
                got=f"shape {values.shape}",
            )
        data = {}
        for hemisphere, part in zip(HEMISPHERES, np.split(values, [n_left]), strict=True):
            data[hemisphere] = np.full(n_vertices, np.nan, np.float32)
            data[hemisphere][vertices[hemisphere]] = part
        return cls(data, space, **options)

    @classmethod
    def load(cls, path, *, name=None, units=None, map=None):
        """Load a map from GIFTI, MGH or CIFTI-2 files, with its sidecars where they are.

        Parameters
        ----------
        path : path-like or dict
            A path with ``{hemi}``, or a dict of both hemispheres' paths such as
            :meth:`to_gifti` returns; or a CIFTI-2 file of both.
        name, units : str, optional
            In place of what the left hemisphere's sidecar says.
        map : int or str, optional
            Which one, by number or name, where the files hold several.
        """
        data, names = read_surface_data(path)
        k = choose_map(names, map, path)
        data = {hemisphere: maps[k] for hemisphere, maps in data.items()}
        sidecar = _read_sidecar(files_of(path)["left"])
        told = {"name": sidecar.pop("Description", ""), "units": sidecar.pop("Units", "")}
        told |= {k: v for k, v in (("name", name), ("units", units)) if v is not None}
        for key in ("Density", "MissingValues"):  # written anew from the data
            sidecar.pop(key, None)
        space_of({hemisphere: len(values) for hemisphere, values in data.items()}, str(path))
        return cls(data, metadata=sidecar, **told)

    def to_gifti(self, folder, *, subject, desc, stat):
        """Write one GIFTI file and one JSON sidecar per hemisphere, named as BIDS derivatives.

        Parameters
        ----------
        folder : path-like
            Where to; made if need be.
        subject : str
            Label of the subject, with or without "sub-".
        desc : str
            What the map is about: the image feature, for example.
        stat : str
            Which statistic: "igc", "angle", "eccen", "size", "r2".

        Returns
        -------
        dict of str to Path
            The GIFTI file of each hemisphere.

        Raises
        ------
        InputError
            If a label has anything but letters, digits and word separators in it, or the folder
            cannot be written to.
        """
        entities = {"space": self.space, "subject": subject, "desc": desc, "stat": stat}
        stems = {
            hemisphere: bids_name(hemisphere=hemisphere, suffix="statmap", **entities)
            for hemisphere in HEMISPHERES
        }
        folder = make_output_folder(folder, "folder")
        sidecar = {
            "Description": self.name,
            "Units": self.units,
            "Density": get_space(self.space).density_text,
            "MissingValues": "NaN where nothing was measured",
            **self.metadata,
        }
        paths = {}
        for hemisphere, values in self.data.items():
            paths[hemisphere] = folder / f"{stems[hemisphere]}.shape.gii"
            write_json(folder / f"{stems[hemisphere]}.json", sidecar)
            write_map_gifti(paths[hemisphere], values, hemisphere, name=self.name or str(desc))
        return paths

    def to_surface_image(self, mesh="inflated"):
        """Return a :class:`nilearn.surface.SurfaceImage` on the mesh of that name."""
        from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

        parts = {
            hemisphere: InMemoryMesh(*load_mesh(self.space, mesh, hemisphere))
            for hemisphere in HEMISPHERES
        }
        return SurfaceImage(mesh=PolyMesh(**parts), data=dict(self.data))

    @classmethod
    def from_surface_image(cls, image, **options):
        """Take over a map from nilearn, whatever mesh it is drawn on.

        Parameters
        ----------
        image : nilearn.surface.SurfaceImage
            Of one map, on both hemispheres of a surface in :data:`neuroigc.surface.SPACES`.
        **options
            ``name``, ``units``, ``metadata``.

        Raises
        ------
        InputError
            If it holds several maps, or lies on another surface.
        """
        data = {}
        for hemisphere in HEMISPHERES:
            values = np.asarray(image.data.parts.get(hemisphere, np.empty((0, 0))))
            if values.ndim == 2 and values.shape[1] == 1:
                values = values[:, 0]
            if values.ndim != 1:
                raise InputError(
                    "image",
                    expected="one map of both hemispheres",
                    got=f"{values.shape} values in the {hemisphere} one",
                )
            data[hemisphere] = values
        return cls(data, **options)

    def nested(self, space):
        """Return the map on a coarser surface, at the vertices that it shares with this one."""
        data = {hemisphere: nest(v, self.space, space) for hemisphere, v in self.data.items()}
        return SurfaceMap(data, space, self.name, self.units, self.metadata)


def _read_sidecar(path):
    path = path.with_name(path.name.split(".")[0] + ".json")
    if not path.is_file():
        return {}
    return read_json(path, "a JSON sidecar")
