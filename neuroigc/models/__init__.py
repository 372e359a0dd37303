"""Arrays to networks: the paper's networks, their training, and estimators around them."""

from neuroigc.models.estimators import NeuralClassifier, NeuralDecoder, NeuralEncoder
from neuroigc.models.networks import CategoricalNetwork, DecoderNetwork, EncoderNetwork

__all__ = [
    "CategoricalNetwork",
    "DecoderNetwork",
    "EncoderNetwork",
    "NeuralClassifier",
    "NeuralDecoder",
    "NeuralEncoder",
]
