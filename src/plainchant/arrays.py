"""All array types; shapes are in the docstrings of the functions that take and return arrays."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
"""Either precision, where both are accepted."""
IntArray: TypeAlias = npt.NDArray[np.int64]
"""Counts, and indices into anything."""
BoolArray: TypeAlias = npt.NDArray[np.bool_]
