"""Whole models: `build(config, key, precision)` makes one."""

from jaxlm.models.build import build
