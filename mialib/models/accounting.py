"""How private DP-SGD is: Renyi differential privacy of the sampled Gaussian mechanism, turned into (epsilon, delta).

Two sets are neighbours if one has one record more. Each of `steps` takes every record with probability `rate`,
independently (Poisson), bounds what one record can add to the sum, and adds normal noise of `noise` times the bound.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp

ORDERS = np.array([*range(2, 65), 80, 96, 128, 192, 256, 512])  # of Renyi divergences; any of them gives a bound
NOISES = (0.2, 1000.0)  # between which `noise_for` looks


def renyi(rate: float, noise: float, orders: np.ndarray = ORDERS) -> np.ndarray:
    """Renyi divergence of one step at whole `orders` from 2, (orders,).

    Mironov, Talwar & Zhang 2019, 3.3: log of the sum over k of C(a, k) (1 - q)^(a - k) q^k exp((k^2 - k) / 2 s^2),
    divided by a - 1; the divergence the other way round is no larger. ValueError for a rate outside 0..1, or noise that
    is not above 0.
    """
    if not (0 < rate <= 1 and noise > 0):
        raise ValueError(f"the sampling rate must lie in 0..1 and the noise above 0: got {rate} and {noise}")
    if rate == 1:
        return orders / (2 * noise**2)
    found = []
    for order in orders:
        k = np.arange(order + 1)
        choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        terms = choose + (order - k) * np.log1p(-rate) + k * np.log(rate) + (k**2 - k) / (2 * noise**2)
        found.append(logsumexp(terms) / (order - 1))
    return np.array(found)


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """The epsilon at `delta` of all steps together: the least over ORDERS.

    Conversion: Canonne, Kamath & Steinke 2020, Proposition 12. ValueError as `renyi` raises it, and for no step or a
    delta outside 0..1.
    """
    if not (steps >= 1 and 0 < delta < 1):
        raise ValueError(f"there must be a step, and delta must lie between 0 and 1: got {steps} and {delta}")
    spent = steps * renyi(rate, noise)
    by_order = spent + np.log1p(-1 / ORDERS) - np.log(delta * ORDERS) / (ORDERS - 1)
    return float(max(by_order.min(), 0.0))


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
