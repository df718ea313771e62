"""Three small tables of medicine and credit that lie in data/embedded, so that no profile needs a network for them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import OneHotEncoder, scale

from mialib import config, runs
from mialib.data.datasets import Dataset

Parsed = tuple[np.ndarray, np.ndarray, np.ndarray]  # numbers (n, d) float64, categories (n, k) str, classes (n,) int64


@dataclass(frozen=True)
class Table:
    """One file of data/embedded, and what is in it."""

    file: str
    digest: str  # sha256
    parse: Callable[[str], Parsed]
    about: str  # for `Dataset.source`


def load(name: str) -> Dataset:
    """The table `name`, a key of TABLES, the same in every profile: float32 (n, d), each feature standardised.

    One 0/1 column for each category; then mean 0 and variance 1 over all records, members or not (our choice).
    ValueError for an unknown name, and for a file that is not what was committed, FileNotFoundError without it.
    """
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}; valid: {', '.join(TABLES)}")
    table = TABLES[name]
    path = config.ROOT / "data" / "embedded" / table.file
    written = path.read_bytes()
    if (digest := hashlib.sha256(written).hexdigest()) != table.digest:
        raise ValueError(f"{path} has sha256 {digest}, not {table.digest}: restore it with git checkout")
    numbers, kinds, y = table.parse(written.decode())
    if kinds.shape[1]:
        numbers = np.hstack([numbers, OneHotEncoder(sparse_output=False).fit_transform(kinds)])
    X = scale(numbers).astype(np.float32)
    source = f"{table.about}, {len(y):,} records of {X.shape[1]} standardised features"
    return Dataset(name, X, y, 2, "R", source, runs.digest(X, y))


def parse_pima(text: str) -> Parsed:
    """Comma-separated: eight numbers, then 1 for diabetes, 0 else. ValueError naming the first row that is not so."""
    cells = _rows(text, ",", 9)[1:]
    return _numbers(cells[:, :8]), cells[:, :0], _classes(cells[:, 8], ("0", "1"))


_GERMAN_NUMBERS = [1, 4, 7, 10, 12, 15, 17]  # months, amount, rate, years of residence, age, credits here, dependants
_GERMAN_KINDS = [k for k in range(20) if k not in _GERMAN_NUMBERS]


def parse_german(text: str) -> Parsed:
    """Separated by blanks: twenty attributes, 1 for good credit (class 0) or 2 for bad. ValueError as `parse_pima`."""
    cells = _rows(text, " ", 21)
    return _numbers(cells[:, _GERMAN_NUMBERS]), cells[:, _GERMAN_KINDS], _classes(cells[:, 20], ("1", "2"))


def parse_hepatitis(text: str) -> Parsed:
    """Comma-separated: a row number, 1 for who died (class 0) or 2, nineteen numbers. ValueError as `parse_pima`.

    UCI's own file has "?" for what is missing; here it is filled in, so a "?" is refused.
    """
    cells = _rows(text, ",", 21)[1:]
    return _numbers(cells[:, 2:]), cells[:, :0], _classes(cells[:, 1], ("1", "2"))


def _rows(text: str, separator: str, columns: int) -> np.ndarray:
    """Cells (n, columns) str, a title included where there is one."""
    rows = [line.split(separator) for line in text.splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) != columns:
            raise ValueError(f"line {number} has {len(row)} cells, expected {columns}")
    return np.array(rows).reshape(-1, columns)


def _numbers(cells: np.ndarray) -> np.ndarray:
    try:
        return cells.astype(float)
    except ValueError as error:
        raise ValueError(f"a cell is no number: {error}") from error


def _classes(cells: np.ndarray, written: tuple[str, str]) -> np.ndarray:
    if wrong := sorted(set(cells.tolist()) - set(written)):
        raise ValueError(f"a class must be {' or '.join(written)}, not {wrong[0]!r}")
    return (cells == written[1]).astype(np.int64)


TABLES = {
    "pima": Table(
        "diabetes.csv",
        "698c203a14aa31941d2251175330c9199f3ccdb31597abbba2a3e35416257a72",
        parse_pima,
        "Pima: real, Pima Indians Diabetes (NIDDK)",
    ),
    "german-credit": Table(
        "german.data",
        "b21f3d81db8071257d5ff1deaeba1fd4303b62712e6fcc9715c7a86202cb5871",
        parse_german,
        "German Credit: real, Statlog (UCI)",
    ),
    "hepatitis": Table(
        "hepatitis_clean.csv",
        "31eb0eaed1a6759984024e97b533841ff7018a031faf2398f6e973ca89f638d1",
        parse_hepatitis,
        "Hepatitis: real (UCI), missing values filled in by others",
    ),
}
