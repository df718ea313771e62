"""How private DP-SGD is: epsilon by Opacus's Renyi accountant, the noise for an epsilon, and what it lets attacks do.

Two sets are neighbours if one has one record more. Each of `steps` takes every record with probability `rate`,
independently (Poisson), bounds what one record can add to the sum, and adds normal noise of `noise` times the bound.
"""

import warnings

import numpy as np
from scipy.optimize import brentq

# Of Renyi divergences. Any gives a bound; Opacus's own go up to 63, and a small epsilon wants larger ones.
ORDERS = [*range(2, 65), 80, 96, 128, 192, 256, 512]
NOISES = (0.2, 1000.0)  # between which `noise_for` looks


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """The epsilon at `delta` of all steps together, the least over ORDERS.

    Opacus: Mironov, Talwar & Zhang 2019, 3.3, for a step; Balle et al. 2020, Theorem 21, from divergence to epsilon.
    ValueError for a rate outside 0..1, noise that is not above 0, no step, or a delta outside 0..1.
    """
    if not (0 < rate <= 1 and noise > 0):
        raise ValueError(f"the sampling rate must lie in 0..1 and the noise above 0: got {rate} and {noise}")
    if not (steps >= 1 and 0 < delta < 1):
        raise ValueError(f"there must be a step, and delta must lie between 0 and 1: got {steps} and {delta}")
    from opacus.accountants import RDPAccountant  # seconds to import, and most of mialib does without

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")  # it is a bound all the same
        return max(accountant.get_epsilon(delta, alphas=ORDERS), 0.0)


def noise_for(wanted: float, rate: float, steps: int, delta: float) -> float:
    """The least noise (to 1e-4 of it) whose `epsilon` is at most `wanted`. ValueError where NOISES hold none."""

    def over(log_noise: float) -> float:
        return epsilon(rate, np.exp(log_noise), steps, delta) - wanted

    ends = np.log(NOISES)
    if over(ends[0]) < 0 or over(ends[1]) > 0:
        raise ValueError(f"no noise of {NOISES[0]:g} to {NOISES[1]:g} gives an epsilon of {wanted:g}")
    return float(np.exp(brentq(over, *ends, xtol=5e-5) + 5e-5))


def most_accurate(epsilon: float, delta: float = 0.0) -> float:
    """The largest balanced accuracy of any attack on one record: (e^epsilon + delta) / (1 + e^epsilon).

    Kairouz, Oh & Viswanath 2015: no test has TPR > e^epsilon FPR + delta, nor TNR > e^epsilon FNR + delta. It is below
    the e^epsilon / 2 of Leino & Fredrikson's slides, which says nothing from log 2 on.
    """
    return float(1 + (delta - 1) / (1 + np.exp(epsilon)))


def most_found(epsilon: float, fpr: float, delta: float = 0.0) -> float:
    """The largest TPR of any attack on one record at an FPR, by the same two inequalities."""
    return float(min(1.0, np.exp(epsilon) * fpr + delta, 1 - np.exp(-epsilon) * (1 - delta - fpr)))
