"""The artifact: the trained thing that leaves. Written whole, verified, loaded without running code."""

from sonde.artifact.folder import verify, write
from sonde.artifact.model import Model, load

__all__ = ["Model", "load", "verify", "write"]
