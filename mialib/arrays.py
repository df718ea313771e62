"""What people bring (lists, Series, DataFrames, any labels, any sparse matrix), made into the arrays used here.

Every public function that takes records, labels or membership passes them through here first. A Series or DataFrame is
read by position, never by its index. What cannot be meant is refused in one line that says what to do.
"""

from typing import Any

import numpy as np
import scipy.sparse


def records(X: Any, name: str = "X") -> np.ndarray | scipy.sparse.csr_array:
    """Records as numbers, one a row: a contiguous array (n, …) or, from any sparse matrix, a CSR array (n, d).

    Numbers keep their type; booleans become uint8, numbers in object arrays float64. An array that fits already comes
    back as it is, without a copy. ValueError for no rows and columns, what is no number, and nan or infinity.
    """
    if scipy.sparse.issparse(X):
        if X.ndim != 2:
            raise ValueError(f"{name} must have a row a record: got a sparse array of shape {X.shape}")
        X = X if isinstance(X, scipy.sparse.csr_array) else scipy.sparse.csr_array(X)
        _refuse_broken(X.data, name, "values")
        if not X.has_canonical_format:  # an entry met twice is their sum
            X = X.copy()
            X.sum_duplicates()
        return X
    X = _array(X, name)
    if X.dtype == bool:
        X = X.view(np.uint8)
    if X.dtype == object:
        X = _converted(X, np.float64, name)
    if X.dtype.kind not in "iuf" or X.ndim < 2:
        raise ValueError(f"{name} must hold numbers, a row a record: got {X.dtype} of shape {X.shape}")
    _refuse_broken(X, name, "records")
    if X.itemsize > 8:
        X = X.astype(np.float64)
    elif not X.dtype.isnative:
        X = X.astype(X.dtype.newbyteorder("="))
    return np.ascontiguousarray(X)


def dense(X: np.ndarray | scipy.sparse.csr_array) -> np.ndarray:
    """Float32 records as an array, of any that `records` gives."""
    return (X.toarray() if scipy.sparse.issparse(X) else X).astype(np.float32)


def labels(y: Any, n: int | None = None, classes: int | None = None, name: str = "y") -> np.ndarray:
    """Labels as int64 (n,): whole numbers of any type, booleans, and a column (n, 1).

    `n`: how many there must be; `classes`: they must lie in 0..classes-1. ValueError otherwise, and for names
    (strings), nan and fractions.
    """
    y = _column(y, n, name)
    if y.dtype.kind in "USO" and any(isinstance(value, str | bytes) for value in y[:1].tolist()):
        raise ValueError(f"{name} holds names: number the classes from 0, as np.unique({name}, return_inverse=True)[1]")
    if y.dtype == object:
        y = _converted(y, np.float64, name)
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold whole numbers, not {y.dtype}")
    with np.errstate(invalid="ignore"):
        whole = np.ascontiguousarray(y, np.int64)
    if not (whole == y).all():
        raise ValueError(f"{name} must hold whole numbers: it has nan, fractions, or numbers beyond int64")
    y = whole
    if classes is not None and y.size and (y.min() < 0 or y.max() >= classes):
        raise ValueError(f"{name}: labels run from {y.min()} to {y.max()}, the classes from 0 to {classes - 1}")
    return y


def flags(member: Any, n: int | None = None, name: str = "member") -> np.ndarray:
    """Yes or no of each record, bool (n,), from booleans or the numbers 0 and 1. ValueError for anything else."""
    member = _column(member, n, name)
    if member.dtype == bool:
        return np.ascontiguousarray(member)
    try:
        numbers = labels(member, name=name)
    except ValueError:
        numbers = np.array([-1])
    if not np.isin(numbers, (0, 1)).all():
        raise ValueError(f"{name} must hold True and False, or 1 and 0, one a record")
    return numbers.astype(bool)


def _array(values: Any, name: str) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values: fill them in or leave those records out")
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different lengths; a tensor that has a gradient
        raise ValueError(f"{name} is no array: {error}") from error


def _column(values: Any, n: int | None, name: str) -> np.ndarray:
    if scipy.sparse.issparse(values):
        raise ValueError(f"{name} must be dense, not a sparse matrix")
    values = _array(values, name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"{name} must be flat, one value a record: got shape {values.shape}")
    if n is not None and len(values) != n:
        raise ValueError(f"{name} has {len(values)} values for {n} records")
    return values


def _converted(values: np.ndarray, kind: type, name: str) -> np.ndarray:
    try:
        return values.astype(kind)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from error


def _refuse_broken(values: np.ndarray, name: str, what: str) -> None:
    if values.dtype.kind in "iub":
        return
    if values.dtype.kind != "f":
        raise ValueError(f"{name} must hold real numbers, not {values.dtype}")
    if not (finite := np.isfinite(values)).all():
        broken = len(values) - int(finite.reshape(len(values), -1).all(1).sum())
        raise ValueError(f"{name} has nan or infinity in {broken} {what}; fill them in or leave those records out")
