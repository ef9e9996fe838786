"""Student's t distribution, and the error of a sum of independent estimates. Pure."""

import math
from collections.abc import Iterable
from functools import cache


def t_tail(t: float, df: float) -> float:
    """P(T > t) for Student's t with `df` degrees of freedom; `df` may be fractional.

    Uses the incomplete beta function, I_x(df/2, 1/2) / 2 with x = df / (df + t²): Abramowitz
    and Stegun, Handbook of Mathematical Functions, 26.7.1 with 26.5.27.
    """
    if t < 0:
        return 1 - t_tail(-t, df)
    x = df / (df + t * t)
    return _incomplete_beta(x, t * t / (df + t * t), df / 2, 0.5) / 2


@cache
def t_quantile(tail: float, df: float) -> float:
    """The t with P(T > t) = `tail`, for 0 < tail <= 0.5.

    Newton's method from 0: the tail is convex for t > 0, so the steps approach the root from
    one side. Raises `ValueError` for any other tail.
    """
    if not 0 < tail <= 0.5:
        raise ValueError(f"tail must be in (0, 0.5]: {tail}")
    log_peak = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    t, step = 0.0, math.inf
    while step > 1e-13 * t:
        density = math.exp(log_peak - (df + 1) / 2 * math.log1p(t * t / df))
        step = (t_tail(t, df) - tail) / density
        t += max(step, 0.0)
    return t


def welch_satterthwaite(errors: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Standard error of a sum of independent estimates, and its degrees of freedom.

    `errors` holds the standard error and the degrees of freedom of each estimate. Returns
    (0, 0) if all standard errors are 0. Satterthwaite, An approximate distribution of estimates
    of variance components, Biometrics Bulletin 2 (1946); Welch, Biometrika 34 (1947).
    """
    variances = [(error * error, df) for error, df in errors if error]
    total = math.fsum(variance for variance, _ in variances)
    if not total:
        return 0.0, 0.0
    return math.sqrt(total), total**2 / math.fsum(v * v / df for v, df in variances)


def _incomplete_beta(x: float, y: float, a: float, b: float) -> float:
    """Regularized incomplete beta function I_x(a, b), with y = 1 - x.

    Continued fraction DLMF 8.17.22 (https://dlmf.nist.gov/8.17.E22), evaluated by Lentz's
    method as modified by Thompson and Barnett. It converges fast for x < (a+1)/(a+b+2);
    I_x(a, b) = 1 - I_y(b, a) covers all other x.
    """
    if x <= 0 or y <= 0:
        return float(y <= 0)
    swapped = x > (a + 1) / (a + b + 2)
    if swapped:
        x, y, a, b = y, x, b, a
    fraction, c, d = 1.0, 1.0, 0.0
    for m in range(500):
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        even = (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2))
        for term in (odd, even):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    log_front = a * math.log(x) + b * math.log(y) - math.log(a)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    value = math.exp(log_front - log_beta) / fraction
    return 1 - value if swapped else value
