"""Scores of 50,000 records by 64 reference models and 18 queries: `references` against a loop over the records.

Claims: all eight attacks together take at most 10 s and 2 GiB, the signal itself (220 MiB) included, for the loop's
numbers. The loop does for one record what the formulae say, with NumPy and SciPy inside it, as most people write it; it
is timed on LOOP records. Both in processor time of one thread.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit

from benchmarks.measure import contender, show
from mialib import runs
from mialib.attacks import references

RECORDS, MODELS, QUERIES = 50_000, 64, 18
LOOP = 100
GAMMA, A = 2.0, 0.3
HERE = "benchmarks.references"


def setting() -> tuple[np.ndarray, ...]:
    """phi of target and references, who is in which reference (half of them each), and the population z."""
    rng = runs.stream(0, "bench", "references")
    signal = rng.standard_normal((MODELS + 1, RECORDS, QUERIES), np.float32)
    signal += 3 * rng.standard_normal((RECORDS, 1), np.float32)
    member = rng.permuted(np.arange(MODELS)[:, None].repeat(RECORDS, 1) % 2 == 0, axis=0)
    for i in range(MODELS):
        signal[i + 1, member[i]] += 1
    return signal[0], signal[1:], member, np.arange(RECORDS) % 2 == 0


def ours() -> dict[str, Any]:
    """Processor seconds of each attack on all records, and its scores of the first."""
    target, others, member, population = setting()
    given = target, others, member
    attacks: dict[str, Callable[[], np.ndarray]] = {
        "Attack-P": lambda: references.attack_p(target, population),
        "Attack-R": lambda: references.attack_r(*given),
        "LiRA online": lambda: references.lira(*given, online=True),
        "LiRA online, fixed": lambda: references.lira(*given, online=True, fixed=True),
        "LiRA offline": lambda: references.lira(*given, online=False),
        "LiRA offline, fixed": lambda: references.lira(*given, online=False, fixed=True),
        "RMIA online": lambda: references.rmia(*given, population, None, GAMMA),
        "RMIA offline": lambda: references.rmia(*given, population, A, GAMMA),
    }
    return _timed(attacks, RECORDS)


def loop() -> dict[str, Any]:
    """The same of the first records, one after another."""
    target, others, member, population = setting()
    deviations = [
        np.std(np.concatenate([o[s] for o, s in zip(others, side, strict=True)])) for side in (~member, member)
    ]
    ratio_z = (expit(target[:, 0].astype(float)) / expit(others[:, :, 0].astype(float)).mean(0))[population]
    z = target[population, 0]

    def losses(x: int) -> float:
        scale = np.sort([0, *np.logaddexp(0, -others[~member[:, x], x, 0].astype(float)), 1000])
        return -np.interp(np.logaddexp(0, -float(target[x, 0])), scale, np.linspace(0, 1, len(scale)))

    def ratio(x: int, online: bool, fixed: bool) -> float:
        sides = []
        for side, overall in zip((~member, member), deviations, strict=True):
            values = others[side[:, x], x].astype(float)
            sides.append((values.mean(0), overall if fixed else values.std(0)))
        if not online:
            return np.mean((target[x] - sides[0][0]) / sides[0][1])
        out, inside = (stats.norm.logpdf(target[x], *side) for side in sides)
        return np.mean(inside - out)

    def dominates(x: int, a: float | None) -> float:
        p = expit(others[:, x].astype(float))
        inside, out = (p[member[:, x] == side].mean(0) for side in (True, False))
        expected = (inside + out) / 2 if a is None else ((1 + a) * out + 1 - a) / 2
        votes = (expit(target[x].astype(float)) / expected)[:, None] / ratio_z >= GAMMA
        return np.mean(votes.sum(0) > QUERIES / 2)

    attacks: dict[str, Callable[[int], float]] = {
        "Attack-P": lambda x: np.mean(target[x, 0] >= z),
        "Attack-R": losses,
        "LiRA online": lambda x: ratio(x, True, False),
        "LiRA online, fixed": lambda x: ratio(x, True, True),
        "LiRA offline": lambda x: ratio(x, False, False),
        "LiRA offline, fixed": lambda x: ratio(x, False, True),
        "RMIA online": lambda x: dominates(x, None),
        "RMIA offline": lambda x: dominates(x, A),
    }
    return _timed({name: lambda one=one: [one(x) for x in range(LOOP)] for name, one in attacks.items()}, LOOP)


def _timed(attacks: dict[str, Callable], records: int) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": {}, "scores": {}}
    for name, attack in attacks.items():
        start = time.process_time()
        scores = attack()
        found["seconds"][name] = (time.process_time() - start) * RECORDS / records
        found["scores"][name] = [float(score) for score in scores[:LOOP]]
    return found


def main() -> dict[str, Any]:
    """Print both sides for each attack; returns everything that was measured."""
    single, mine = (contender(HERE, side, threads=1) for side in ("loop", "ours"))
    rows = [
        {
            "attack": name,
            "loop, s": single["seconds"][name],
            "ours, s": seconds,
            "ratio": single["seconds"][name] / seconds,
            "same scores": bool(np.allclose(mine["scores"][name], single["scores"][name], rtol=1e-3, atol=1e-3)),
        }
        for name, seconds in mine["seconds"].items()
    ]
    show(
        f"scores of {RECORDS:,} records, {MODELS} references, {QUERIES} queries, one thread; loop of {LOOP} scaled up",
        rows,
    )
    together = sum(mine["seconds"].values())
    print(f"  all of them: {together:.1f} s, {mine['peak_mib']} MiB; claims: 10 s, 2 GiB, the same scores")
    claims = {
        "10 s": together <= 10,
        "2 GiB": mine["peak_mib"] <= 2048,
        "same": all(row["same scores"] for row in rows),
    }
    return {"claims": claims, "seconds": together, "peak_mib": mine["peak_mib"], "rows": rows}
