"""Tables that lie in the repository: what is in them, and what is refused."""

import numpy as np
import pytest

from mialib import config
from mialib.data import tables

SIZES = {"pima": (768, 8, 500), "german-credit": (1000, 61, 700), "hepatitis": (155, 19, 32)}  # the last: class 0


def test_every_table_is_known():
    assert set(SIZES) == set(tables.TABLES)
    assert {each.file for each in tables.TABLES.values()} == {
        path.name for path in (config.ROOT / "data" / "embedded").iterdir()
    }


@pytest.mark.parametrize("name", SIZES)
def test_a_table_is_what_its_card_says(name):
    data, (n, d, first) = tables.load(name), SIZES[name]
    assert data.X.shape == (n, d) and data.X.dtype == np.float32 and data.tier == "R"
    assert np.bincount(data.y).tolist() == [first, n - first] and data.classes == 2
    assert data.X.mean(0) == pytest.approx(np.zeros(d), abs=1e-5) and data.X.std(0) == pytest.approx(
        np.ones(d), abs=1e-5
    )
    assert len(np.unique(data.X, axis=0)) == n


def test_cells_are_where_they_belong():
    """A record of each, read by hand: its standardised features are the cells, less the mean, by the deviation."""
    pima, german, hepatitis = (tables.TABLES[name].parse(text(name)) for name in SIZES)
    assert pima[0][0].tolist() == [6, 148, 72, 35, 0, 33.6, 0.627, 50] and pima[2][0] == 1
    assert german[0][0].tolist() == [6, 1169, 4, 4, 67, 2, 1] and german[2][:2].tolist() == [0, 1]
    assert " ".join(german[1][0]) == "A11 A34 A43 A65 A75 A93 A101 A121 A143 A152 A173 A192 A201"
    assert hepatitis[0][0, :3].tolist() == [30, 2, 0] and hepatitis[0].shape == (155, 19) and hepatitis[2][0] == 1
    X, numbers = tables.load("german-credit").X, german[0]
    assert X[:, 1] == pytest.approx((numbers[:, 1] - numbers[:, 1].mean()) / numbers[:, 1].std(), abs=1e-5)
    assert (np.unique(X[:, 7]).size, (X[:, 7] > 0).sum()) == (2, (german[1][:, 0] == "A11").sum())


def text(name):
    return (config.ROOT / "data" / "embedded" / tables.TABLES[name].file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SIZES)
def test_a_changed_file_is_refused_in_one_line(name, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError):
        tables.load(name)
    path = tmp_path / "data" / "embedded" / tables.TABLES[name].file
    path.parent.mkdir(parents=True)
    path.write_text("1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path.name} has sha256 \w+, not \w+: restore it with git") as error:
        tables.load(name)
    assert "\n" not in str(error.value)


BAD = [
    (tables.parse_pima, "title\n1,2,3\n", "line 1 has 1 cells, expected 9"),
    (tables.parse_pima, f"{'a,' * 8}b\n{'1,' * 8}2\n", "a class must be 0 or 1, not '2'"),
    (tables.parse_german, f"{'1 ' * 20}3\n", "a class must be 1 or 2, not '3'"),
    (tables.parse_german, f"A {'1 ' * 19}\n", "a class must be 1 or 2, not ''"),
    (tables.parse_hepatitis, f"{'a,' * 20}b\n0,2,?,{'1,' * 17}1\n", r"a cell is no number: .*\?"),
    (lambda name: tables.load(name), "diabetes", "unknown table 'diabetes'; valid: pima, german-credit, hepatitis"),
]


@pytest.mark.parametrize(("parse", "text", "message"), BAD)
def test_what_is_no_such_table_is_refused(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
