"""RWKV, versions 4 to 7."""

from jaxlm.models.rwkv.model import Rwkv, initial_rwkv
