"""Read structs of MATLAB's .mat files (version 5)."""

from __future__ import annotations

import io
import warnings

import numpy as np

from tubelet.core.errors import FormatError

LARGEST_MATLAB = 1 << 18  # bytes: they are packed, up to 1000 times


def read_struct(data: bytes, name: str, where: str) -> dict[str, np.ndarray]:
    """Read a struct of one element: field -> array.

    Raises FormatError, with `where`, if the file is broken or has no such struct.

    Example:
        >>> import io
        >>> from scipy.io import savemat
        >>> from tubelet.core.untrusted.matlab import read_struct
        >>> file = io.BytesIO()
        >>> savemat(file, {"GTinst": {"Categories": [7, 15]}})
        >>> read_struct(file.getvalue(), "GTinst", "a file")["Categories"]
        array([[ 7, 15]])
    """
    from scipy.io import loadmat  # takes a tenth of a second

    if len(data) > LARGEST_MATLAB:
        raise FormatError(f"{where}: expected a MATLAB file of at most {LARGEST_MATLAB} bytes, found {len(data)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            struct = loadmat(io.BytesIO(data), variable_names=[name])[name]
        return {field: np.asarray(struct[field].item()) for field in struct.dtype.names}
    except Exception as error:  # broken files make the parser raise many types of errors
        raise FormatError(f"{where}: expected a MATLAB file with a struct {name} ({type(error).__name__})") from None
