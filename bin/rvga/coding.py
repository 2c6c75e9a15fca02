"""The int16 coding of component z statistics; arrays in, arrays out."""

from __future__ import annotations

import numpy as np

LARGEST_CODE = 32767
MISSING_CODE = -32768


def encode_z(z: np.ndarray, coding: str = "int16") -> tuple[np.ndarray, np.ndarray]:
    """Return codes (m, r) and the z of one code unit (m,) by variant.

    The error of a decoded z is at most max|z| / 65,534 of its variant.

    Parameters
    ----------
    z : (m, r)
        t statistics; NaN is missing.
    coding : {"int16", "float32"}
        ``float32`` keeps z as it is, with unit scale.
    """
    if coding == "float32":
        return z.astype(np.float32), np.ones(len(z), dtype=np.float32)
    if coding != "int16":
        raise ValueError(f"coding '{coding}' is neither int16 nor float32")
    largest = np.max(np.abs(np.nan_to_num(z, nan=0.0)), axis=1, initial=0.0)
    # The scale is rounded upwards, so that no code exceeds the largest one.
    scale = (largest / LARGEST_CODE).astype(np.float32)
    scale = np.where(
        scale * float(LARGEST_CODE) < largest, np.nextafter(scale, np.float32(np.inf)), scale
    )
    scale[largest == 0.0] = 1.0
    codes = np.where(np.isfinite(z), np.rint(z / scale[:, None].astype(float)), float(MISSING_CODE))
    return codes.astype(np.int16), scale.astype(np.float32)


def decode_z(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return z (m, r) in double precision, NaN where missing, from either coding."""
    z = codes.astype(np.float64)
    if codes.dtype == np.int16:
        z[codes == MISSING_CODE] = np.nan
        z *= scale.astype(np.float64)[:, None]
    return z
