"""Names for numpy's arrays, by their dtype; docstrings give the shapes."""

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Stored = npt.NDArray[Any]
"""Vectors as an index keeps them: float16 or float32."""
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.bytes_]
