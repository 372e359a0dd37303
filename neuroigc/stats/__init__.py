"""Numbers into ceilings, error bars and tests: of samples, vertices, subjects and maps."""

from neuroigc.stats.ceilings import (
    correlation_ceiling,
    ncsnr_from_trials,
    noise_ceiling,
    reaches_ceiling,
)
from neuroigc.stats.clusters import (
    ClusterTest,
    cluster_test,
    enhance_clusters,
    find_clusters,
    mesh_edges,
    vertex_areas,
)
from neuroigc.stats.group import (
    GroupTest,
    Replication,
    replication,
    sign_flip_maps,
    sign_flip_test,
)
from neuroigc.stats.inference import (
    adjust_p_values,
    max_statistic_p_values,
    permutation_p_values,
)
from neuroigc.stats.reliability import (
    Reliability,
    map_reliability,
    spearman_brown,
    split_half_reliability,
)
from neuroigc.stats.removal import RemovalTest, removal_test, replace_groups
from neuroigc.stats.ridge import RidgeBaseline, group_folds, ridge_baseline
from neuroigc.stats.sanity import SanityCheck, SanityChecks, check_sanity, map_similarity
from neuroigc.stats.scores import (
    Scores,
    correlation_interval,
    correlation_scores,
    normalised_correlation,
)
from neuroigc.stats.spin import (
    SpinTest,
    mirror_of_spheres,
    random_rotations,
    spin_test,
    spun_vertices,
)

__all__ = [
    "ClusterTest",
    "GroupTest",
    "Reliability",
    "RemovalTest",
    "Replication",
    "RidgeBaseline",
    "SanityCheck",
    "SanityChecks",
    "Scores",
    "SpinTest",
    "adjust_p_values",
    "check_sanity",
    "cluster_test",
    "correlation_ceiling",
    "correlation_interval",
    "correlation_scores",
    "enhance_clusters",
    "find_clusters",
    "group_folds",
    "map_reliability",
    "map_similarity",
    "max_statistic_p_values",
    "mesh_edges",
    "mirror_of_spheres",
    "ncsnr_from_trials",
    "noise_ceiling",
    "normalised_correlation",
    "permutation_p_values",
    "random_rotations",
    "reaches_ceiling",
    "removal_test",
    "replace_groups",
    "replication",
    "ridge_baseline",
    "sign_flip_maps",
    "sign_flip_test",
    "spearman_brown",
    "spin_test",
    "split_half_reliability",
    "spun_vertices",
    "vertex_areas",
]
