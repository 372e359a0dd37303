"""Numbers to the brain: surfaces, atlases, sums over areas, maps, files and pictures."""

from neuroigc.surface.atlas import Atlas, CombinedAtlas, combine
from neuroigc.surface.atlas_files import load_atlas
from neuroigc.surface.bids import bids_label, bids_name, write_dataset_description, write_json
from neuroigc.surface.files import load_mask, read_map
from neuroigc.surface.interval_plots import plot_roi_intervals
from neuroigc.surface.maps import SurfaceMap
from neuroigc.surface.plotting import plot_surface_map, plot_surface_overview
from neuroigc.surface.readers import read_surface_data, read_surface_labels
from neuroigc.surface.roi_plots import plot_roi_bars
from neuroigc.surface.rois import aggregate_rois, summarise_rois
from neuroigc.surface.spaces import SPACES, fetch_meshes, get_space, load_mesh, nest, space_of
from neuroigc.surface.volumes import vol_to_surface

__all__ = [
    "SPACES",
    "Atlas",
    "CombinedAtlas",
    "SurfaceMap",
    "aggregate_rois",
    "bids_label",
    "bids_name",
    "combine",
    "fetch_meshes",
    "get_space",
    "load_atlas",
    "load_mask",
    "load_mesh",
    "nest",
    "plot_roi_bars",
    "plot_roi_intervals",
    "plot_surface_map",
    "plot_surface_overview",
    "read_map",
    "read_surface_data",
    "read_surface_labels",
    "space_of",
    "summarise_rois",
    "vol_to_surface",
    "write_dataset_description",
    "write_json",
]
