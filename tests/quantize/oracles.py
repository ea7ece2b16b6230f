"""The grid in plain numpy, number by number: what tests compare `quantize.grid` with."""

import ml_dtypes
import numpy as np

from jaxlm.config import Fp8, Integers, Nf4

TINY = np.finfo(np.float32).tiny
NF4 = [
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
]


def scale_of(reach, most):
    scale = np.float32(reach) * np.float32(1 / most)
    return scale if scale >= TINY else np.float32(1.0)


def rounded_group(group, format):
    """(codes, values) of numbers that share a scale."""
    group = np.asarray(group, np.float32)
    match format:
        case Integers(bits=bits, symmetric=True):
            most = 2 ** (bits - 1) - 1
            scale = scale_of(np.abs(group).max(), most)
            codes = np.clip(np.rint(group / scale), -most - 1, most)
            return codes, codes.astype(np.float32) * scale
        case Integers(bits=bits):
            low, high = min(group.min(), np.float32(0)), max(group.max(), np.float32(0))
            scale = scale_of(high - low, 2**bits - 1)
            zero = np.rint(-low / scale)
            codes = np.clip(np.rint(group / scale + zero), 0, 2**bits - 1)
            return codes, (codes - zero).astype(np.float32) * scale
        case Nf4():
            scale = scale_of(np.abs(group).max(), 1)
            codes = np.argmin(np.abs((group / scale)[..., None] - np.array(NF4, np.float32)), axis=-1)
            return codes, np.array(NF4, np.float32)[codes] * scale
        case Fp8(kind=kind):
            dtype = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}[kind]
            scale = scale_of(np.abs(group).max(), float(ml_dtypes.finfo(dtype).max))
            bits = (group / scale).astype(dtype)
            return bits.view(np.uint8), bits.astype(np.float32) * scale


def rounded(matrix, format):
    """(codes, values) of a matrix [inputs, outputs]."""
    matrix = np.asarray(matrix, np.float32)
    if getattr(format, "group", 0) == -1:
        return rounded_group(matrix, format)
    size = getattr(format, "group", 0) or matrix.shape[0]
    codes, values = np.zeros(matrix.shape, int), np.zeros(matrix.shape, np.float32)
    for start in range(0, matrix.shape[0], size):
        for output in range(matrix.shape[1]):
            place = slice(start, start + size), output
            codes[place], values[place] = rounded_group(matrix[place], format)
    return codes, values
