"""Classical models: fitted in one go by scikit-learn, kept as tensors, used like a network. A file each."""

from sonde.classical._model import ClassicalModel, Offer, fit, offers, restore, size
from sonde.classical._sklearn import import_libraries

__all__ = ["ClassicalModel", "Offer", "fit", "import_libraries", "offers", "restore", "size"]
