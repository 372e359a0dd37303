"""Which part of the brain, or of the image, carries what.

The rooms, in the order data walks through them:

``datasets`` (files → arrays), ``models`` (arrays → network), ``attribution``
(network → numbers), ``surface`` (numbers → brain), ``prf`` (maps → receptive
fields), ``stats``, ``reporting`` (one study folder → one page) and ``cli``.

Importing this package alone loads none of them.
"""

import importlib

__version__ = "0.1.0"

_ROOMS = ("attribution", "datasets", "models", "prf", "reporting", "stats", "surface")

__all__ = ["__version__", *_ROOMS]


def __getattr__(name):
    if name in _ROOMS:
        return importlib.import_module(f"neuroigc.{name}")
    raise AttributeError(f"module 'neuroigc' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
