"""Constants of the formats."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

NORMAL_QUANTILES = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
"""The values of NF4 (Dettmers et al. 2023, arXiv:2305.14314, appendix E)."""

FLOATS = {"e4m3": jnp.float8_e4m3fn, "e5m2": jnp.float8_e5m2}
"""Fp8's formats; e4m3 has no infinity."""
LARGEST = {kind: float(jnp.finfo(dtype).max) for kind, dtype in FLOATS.items()}
"""448 and 57344."""
