"""Arrays to networks: the paper's networks, their training, and estimators around them."""

from neuroigc.models.estimators import NeuralClassifier, NeuralDecoder, NeuralEncoder
from neuroigc.models.field_encoder import FieldEncoder
from neuroigc.models.fields import FieldEncoderNetwork
from neuroigc.models.networks import CategoricalNetwork, DecoderNetwork, EncoderNetwork
from neuroigc.models.randomisation import list_layers, randomise_layers

__all__ = [
    "CategoricalNetwork",
    "DecoderNetwork",
    "EncoderNetwork",
    "FieldEncoder",
    "FieldEncoderNetwork",
    "NeuralClassifier",
    "NeuralDecoder",
    "NeuralEncoder",
    "list_layers",
    "randomise_layers",
]
