"""`python -m mialib score`: what people bring in files, good and bad."""

import io
import pickle
import re
import struct
import zipfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from companion import __main__ as command_line
from mialib import config, metrics
from mialib.attacks import references
from mialib.results import brought

N = 400


def example(leak=1.0, seed=0):
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(N) < N // 2)
    return member, rng.normal(size=N) + leak * member


def logits(models=9, records=120, classes=4):
    rng = np.random.default_rng(1)
    member = np.stack([rng.permutation(np.arange(models) % 2 == 0) for _ in range(records)], axis=1)
    y = rng.integers(classes, size=records)
    found = rng.normal(0, 1, (records, 1, classes)) + rng.normal(0, 1, (models, records, 2, classes))
    found[:, np.arange(records), :, y] += 2 * member.T[..., None]
    return {"logits": found.astype(np.float32), "member": member, "y": y}


def saved(path, **found):
    np.savez(path, **found)
    return path


def test_csv_and_npz_of_the_same_scores_are_the_same(tmp_path):
    member, score = example()
    pd.DataFrame({"mine": score, "member": member.astype(int), "other": -score}).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"member": member, "mine": score, "other": -score}).to_csv(tmp_path / "b.csv", index=False)
    saved(tmp_path / "c.npz", member=member, mine=score, other=-score)
    for name in ("a.csv", "b.csv", "c.npz"):
        found = brought.read(tmp_path / name)
        assert (found.member == member).all() and list(found.scores) == ["mine", "other"] and not found.left_out
        np.testing.assert_allclose(found.scores["mine"], score, rtol=1e-15)


def numbers(member, **scores):
    return brought.measured(brought.Scores(member, scores)).set_index(["attack", "metric"])


def test_numbers_are_scikit_learns():
    member, score = example()
    table = numbers(member, mine=score, turned=-score)
    fpr, tpr, _ = sk.roc_curve(member, score)
    assert table.value["mine", "auc"] == pytest.approx(sk.roc_auc_score(member, score))
    assert table.value["turned", "auc"] == pytest.approx(1 - table.value["mine", "auc"])
    assert table.value["mine", "tpr_at_1"] == pytest.approx(tpr[fpr <= 0.01].max())
    assert (table.low <= table.value).all() and (table.value <= table.high).all()
    best = ((tpr + 1 - fpr) / 2).max()
    assert best - 0.05 < table.value["mine", "balanced_accuracy"] <= best
    assert table.low["mine", "auc"] > 0.5


def test_noise_is_not_found_out():
    """A threshold that is set where it is counted would find .54 here; ours finds .5 over many draws."""
    found = [example(0.0, seed) for seed in range(40)]
    half = [brought._halved(member, score, np.random.default_rng(0)) for member, score in found]
    ours = [sk.balanced_accuracy_score(member, called) for (member, _), called in zip(found, half, strict=True)]
    assert abs(np.mean(ours) - 0.5) < 3.3 * 0.025 / np.sqrt(40)
    table = numbers(found[0][0], noise=found[0][1])
    assert table.low["noise", "auc"] < 0.5 < table.high["noise", "auc"]
    constant = numbers(found[0][0], constant=np.ones(N))
    assert constant.value["constant", "auc"] == constant.value["constant", "balanced_accuracy"] == 0.5


@pytest.mark.parametrize("queries", [True, False])
def test_logits_are_attacked_with_the_references(queries, tmp_path):
    found = logits()
    given = found if queries else found | {"logits": found["logits"][:, :, 0]}
    read = brought.read(saved(tmp_path / "l.npz", **given))
    signal = references.phi(found["logits"] if queries else found["logits"][:, :, :1], found["y"])
    member = found["member"]
    assert (read.member == member[0]).all() and len(read.scores) == brought.MOST and not read.left_out
    np.testing.assert_allclose(read.scores["LiRA online"], references.lira(signal[0], signal[1:], member[1:], True))
    auc = brought.measured(read).set_index(["attack", "metric"]).value["RMIA online", "auc"]
    assert auc > 0.6


def run(capsys, *arguments):
    assert command_line.main(["score", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_command_prints_a_table_and_draws_the_curve(tmp_path, capsys):
    member, score = example()
    path = saved(tmp_path / "mine.npz", member=member, mine=score, **{"a long\nname": -score})
    printed = run(capsys, path, "--out", tmp_path / "out")
    lines = printed.splitlines()
    assert lines[0] == "200 members, 200 non-members"
    assert re.split(r"\s{2,}", lines[2].strip()) == list(brought._HEADINGS.values())
    first = re.match(r"mine\s+(0\.\d{3}) \(0\.\d{3} to 0\.\d{3}\)  ", lines[3])
    assert float(first[1]) == pytest.approx(sk.roc_auc_score(member, score), abs=0.00051)
    assert "\na long name " in printed and max(map(len, lines)) < 160
    assert "for an FPR of 0.1 % or 0.01 %:" in printed
    assert printed.endswith("mine_roc.png\n")
    assert (tmp_path / "out" / "mine_roc.png").read_bytes()[:4] == b"\x89PNG"
    curve = brought.curves(brought.read(path), "p")
    assert curve.groupby("label").fpr.max().tolist() == [1, 1] and set(curve.non_members) == {200}


def test_command_says_what_it_left_out(tmp_path, capsys, monkeypatch):
    found = logits()
    found["member"][1:] = False
    monkeypatch.setattr(config, "ROOT", tmp_path)
    printed = run(capsys, saved(tmp_path / "offline.npz", **found))
    assert (tmp_path / "build" / "score" / "offline_roc.png").exists()
    assert "left out: RMIA online: 120 of 120 records have no IN model among the references\n" in printed


class Loaded:
    def __reduce__(self):
        return (open, (str(Loaded.trace), "w"))


def bad_files(folder):
    """File name -> what is wrong with it."""
    member, score = example()
    good, found = {"member": member, "mine": score}, logits()

    def npz(name, **arrays):
        return saved(folder / f"{name}.npz", **arrays).name

    def csv(name, text):
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
        return f"{name}.csv"

    broken = found["logits"].copy()
    broken[2, 3] = np.nan
    Loaded.trace = folder / "trace"
    np.savez(folder / "objects.npz", member=member, mine=np.array([Loaded()] * N, object))
    (folder / "pickle.npz").write_bytes(pickle.dumps(Loaded()))
    (folder / "text.txt").write_text("score", encoding="utf-8")
    (folder / "folder.npz").mkdir()
    with zipfile.ZipFile(folder / "other.npz", "w") as archive:
        archive.writestr("member", "1, 0")
    long = "\n".join(f"{value},{int(side)}" for value, side in zip(score, member, strict=True))
    return {
        "nowhere.npz": "is no file",
        "folder.npz": "is no file",
        "text.txt": "must be an .npz or a .csv file",
        "objects.npz": "is pickled, and nothing pickled is loaded",
        "pickle.npz": "cannot be read: File is not a zip file",
        "other.npz": "must be flat",
        npz("lone", mine=score): "has no `member`; it has mine",
        npz("alone", member=member): "there must be 1 to 8 scores, or `logits`: got 0",
        npz("many", member=member, **{f"s{i}": score for i in range(9)}): "1 to 8 scores, or `logits`: got 9",
        npz("short", **good | {"mine": score[:-1]}): "one for each of the 400 records: it is float64 of shape (399,)",
        npz("square", **good | {"mine": score.reshape(20, 20)}): "it is float64 of shape (20, 20)",
        npz("words", **good | {"mine": np.array(["a"] * N)}): "mine must be numbers",
        npz("complex", **good | {"mine": score * 1j}): "mine must be numbers",
        npz("twos", **good | {"member": member * 2}): "member must hold True and False, or 1 and 0",
        npz("members", **good | {"member": np.ones(N, bool)}): "members are needed: got 400 and 0",
        npz(
            "one", **good | {"member": np.arange(N) == 0}
        ): "at least 2 members and 2 non-members are needed: got 1 and 399",
        npz("none", **good | {"member": member & False}): "non-members are needed: got 0 and 400",
        npz("nan", **good | {"mine": np.where(member, np.nan, 1)}): "mine is nan or empty for 200 of 400 records",
        npz("names", member=member, **{"a" * 50: score, "a" * 45: score}): "two scores have the same name",
        npz("classless", **{key: found[key] for key in ("logits", "member")}): "need the true classes, `y`",
        npz("target", **{k: v[:1] if k != "y" else v for k, v in found.items()}): "at least two models",
        npz("sides", **found | {"member": found["member"][0]}): "must fit",
        npz("labels", **found | {"y": found["y"] + 1}): "the classes from 0 to 3",
        npz("infinite", **found | {"logits": broken}): "logits have nan or infinity",
        npz("flat", **found | {"logits": found["logits"][0, 0]}): "must fit",
        csv("void", ""): "cannot be read: No columns to parse from file",
        csv("heading", "mine,member\n"): "one for each of the 0 records",
        csv("headless", long): "has no `member`",
        csv("gap", f"mine,member\n,1\n{long}"): "mine is nan or empty for 1 of 401 records",
        csv("letters", f"mine,member\nx,1\n{long}"): "mine must be numbers",
        csv("yes", "mine,member\n1,yes\n0,no\n"): "member must hold True and False, or 1 and 0",
        csv("lines", f"mine,member\n1,1,7\n{long}"): "cannot be read",
        csv("binary", "\0\xff" * 100): "",
    }


def test_bad_files_are_refused_in_one_line(tmp_path, capsys):
    for name, told in bad_files(tmp_path).items():
        with pytest.raises(SystemExit, match="2"):
            command_line.main(["score", str(tmp_path / name), "--out", str(tmp_path / "out")])
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1 and len(printed.err) < 400, name
        assert told in printed.err, (name, printed.err)
    assert not Loaded.trace.exists() and not (tmp_path / "out").exists()


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "packed.npz", member=example()[0], mine=np.zeros(10**6))
    (tmp_path / "large.csv").write_text("mine,member\n" + "1,1\n" * 5000, encoding="utf-8")
    monkeypatch.setattr(brought, "LIMIT", 10_000)
    assert (tmp_path / "packed.npz").stat().st_size < 10_000
    monkeypatch.setattr(np, "load", None)
    for name in ("packed.npz", "large.csv"):
        with pytest.raises(ValueError, match="is too large"):
            brought.read(tmp_path / name)


def test_a_file_that_declares_more_than_it_holds_is_refused(tmp_path):
    header = repr({"descr": "<f8", "fortran_order": False, "shape": (2**55,)}).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("member.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8)
    with pytest.raises(ValueError, match=r"liar\.npz cannot be read"):
        brought.read(tmp_path / "liar.npz")


def tried(path):
    """Either scores that are measured, or one line."""
    try:
        found = brought.read(path)
    except ValueError as error:
        assert "\n" not in str(error) and str(error)
        return
    assert found.member.dtype == bool and 1 <= len(found.scores) <= brought.MOST
    assert all(score.shape == found.member.shape and not np.isnan(score).any() for score in found.scores.values())
    assert np.isfinite(brought.measured(found).value).all()


FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELLS = st.sampled_from(["0", "1", "True", "False", "", "nan", "-inf", "0.5", "1e400", "x", '"', " 1", "é", "\0"])
ROWS = st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=12).map("\n".join)


@given(st.sampled_from(["mine,member\n", "member,a,b\n", "member\n", "logits,member,y\n", ""]), ROWS)
@FUZZ
def test_any_csv_is_read_or_refused(tmp_path, heading, rows):
    (tmp_path / "any.csv").write_text(heading + rows, encoding="utf-8")
    tried(tmp_path / "any.csv")


@given(st.binary(max_size=300), st.sampled_from([".csv", ".npz"]))
@FUZZ
def test_any_bytes_are_read_or_refused(tmp_path, content, suffix):
    (tmp_path / f"any{suffix}").write_bytes(content)
    tried(tmp_path / f"any{suffix}")


@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
@FUZZ
def test_any_damaged_npz_is_read_or_refused(tmp_path, at, byte, cut):
    buffer, (member, score) = io.BytesIO(), example()
    np.savez(buffer, member=member[:30], mine=score[:30])
    whole = bytearray(buffer.getvalue())
    at %= len(whole)
    whole[at] = byte
    (tmp_path / "any.npz").write_bytes(whole[:at] if cut else whole)
    tried(tmp_path / "any.npz")


SIDES = np.arange(6) % 2
ARRAYS = st.sampled_from(
    [np.zeros(0), np.ones(6), SIDES, SIDES == 0, np.full(6, np.nan), np.array("x"), np.float64(2), np.array(["0"] * 6),
     np.zeros((2, 6, 3)), np.stack([SIDES, 1 - SIDES]), np.zeros((2, 6, 1, 3), np.float16)]
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["member", "mine", "logits", "y", "a b"]), ARRAYS))
@FUZZ
def test_any_arrays_are_read_or_refused(tmp_path, arrays):
    tried(saved(tmp_path / "any.npz", **arrays))


def test_infinite_scores_are_scores(tmp_path):
    member, score = example()
    score = np.where(score > 1, np.inf, score)
    given = brought.read(saved(tmp_path / "inf.npz", member=member, mine=score))
    assert brought.measured(given).value[0] == metrics.evaluate(member, score, member)["auc"]
    assert brought.drawn(given, "inf")[:4] == b"\x89PNG"


def test_a_figure_grows_with_its_legend():
    member, score = example()
    names = ("a", "LiRA offline, fixed variance", *"bcdefg")
    few, many = ({name: score for name in names[:count]} for count in (1, brought.MOST))
    heights = [plt.imread(io.BytesIO(brought.drawn(brought.Scores(member, of), "t"))).shape[0] for of in (few, many)]
    assert heights[1] - heights[0] > 200
