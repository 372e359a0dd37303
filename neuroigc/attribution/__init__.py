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
from neuroigc.attribution.blur import BlurIGResult, blur_integrated_gradients
from neuroigc.attribution.blur_correlation import BlurIGCResult, blur_correlation
from neuroigc.attribution.conductance import LayerIGResult, layer_integrated_gradients
from neuroigc.attribution.contrasts import (
    GroupContrasts,
    contrast_groups,
    group_difference,
    output_difference,
)
from neuroigc.attribution.expected_gradients import expected_gradients
from neuroigc.attribution.factorisation import Factors, factorise
from neuroigc.attribution.faithfulness import (
    PerturbationCurve,
    compare_maps,
    perturbation_curve,
)
from neuroigc.attribution.gradient_times_input import gradient_times_input
from neuroigc.attribution.igc import attribute_shard, integrated_gradient_correlation
from neuroigc.attribution.integrated_gradients import integrated_gradients
from neuroigc.attribution.layers import LayerIGCResult, layer_correlation
from neuroigc.attribution.localisation import localisation, map_agreement, region_correlation
from neuroigc.attribution.naive import (
    AttributionSummary,
    ComponentTest,
    component_correlation,
    component_t_test,
    summarise_attributions,
)
from neuroigc.attribution.results import IGCResult, IGResult
from neuroigc.attribution.retraining import remove_and_retrain
from neuroigc.attribution.scale_space import band_frequencies
from neuroigc.attribution.sensitivity import sensitivity_n
from neuroigc.attribution.shapley import shapley_correlation
from neuroigc.attribution.totals import merge_shards
from neuroigc.attribution.windowed import window_correlation

__all__ = [
    "AttributionSummary",
    "BlurIGCResult",
    "BlurIGResult",
    "ComponentTest",
    "Factors",
    "GivenBaseline",
    "GroupContrasts",
    "IGCResult",
    "IGResult",
    "LayerIGCResult",
    "LayerIGResult",
    "MeanBaseline",
    "PairedBaseline",
    "PerturbationCurve",
    "SampledBaseline",
    "ZeroBaseline",
    "attribute_shard",
    "band_frequencies",
    "blur_correlation",
    "blur_integrated_gradients",
    "compare_maps",
    "component_correlation",
    "component_t_test",
    "contrast_groups",
    "expected_gradients",
    "factorise",
    "gradient_times_input",
    "group_difference",
    "integrated_gradient_correlation",
    "integrated_gradients",
    "layer_correlation",
    "layer_integrated_gradients",
    "localisation",
    "map_agreement",
    "merge_shards",
    "output_difference",
    "perturbation_curve",
    "region_correlation",
    "remove_and_retrain",
    "sensitivity_n",
    "shapley_correlation",
    "summarise_attributions",
    "window_correlation",
]
