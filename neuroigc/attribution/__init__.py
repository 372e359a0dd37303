"""Networks to numbers: which components of the input carry what the model has learnt.

Works with any torch model; see `integrated_gradient_correlation`.
"""

from neuroigc.attribution.baselines import (
    GivenBaseline,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    ZeroBaseline,
)
from neuroigc.attribution.contrasts import (
    GroupContrasts,
    contrast_groups,
    group_difference,
    output_difference,
)
from neuroigc.attribution.expected_gradients import expected_gradients
from neuroigc.attribution.factorisation import Factors, factorise
from neuroigc.attribution.gradient_times_input import gradient_times_input
from neuroigc.attribution.igc import attribute_shard, integrated_gradient_correlation
from neuroigc.attribution.integrated_gradients import integrated_gradients
from neuroigc.attribution.naive import (
    AttributionSummary,
    ComponentTest,
    component_correlation,
    component_t_test,
    summarise_attributions,
)
from neuroigc.attribution.results import IGCResult, IGResult
from neuroigc.attribution.shapley import shapley_correlation
from neuroigc.attribution.totals import merge_shards
from neuroigc.attribution.windowed import window_correlation

__all__ = [
    "AttributionSummary",
    "ComponentTest",
    "Factors",
    "GivenBaseline",
    "GroupContrasts",
    "IGCResult",
    "IGResult",
    "MeanBaseline",
    "PairedBaseline",
    "SampledBaseline",
    "ZeroBaseline",
    "attribute_shard",
    "component_correlation",
    "component_t_test",
    "contrast_groups",
    "expected_gradients",
    "factorise",
    "gradient_times_input",
    "group_difference",
    "integrated_gradient_correlation",
    "integrated_gradients",
    "merge_shards",
    "output_difference",
    "shapley_correlation",
    "summarise_attributions",
    "window_correlation",
]
