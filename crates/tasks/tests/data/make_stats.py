"""Answers of SciPy for tests/statistics.rs: python make_stats.py > stats.json (scipy, numpy)."""

import json

import numpy
import scipy
from scipy import stats

rng = numpy.random.default_rng(20240218)


def paired(seeds):
    a = numpy.round(0.7 + 0.05 * rng.standard_normal(seeds), 4)
    b = numpy.round(a + 0.012 + 0.02 * rng.standard_normal(seeds), 4)
    test = stats.ttest_rel(b, a)
    interval = test.confidence_interval(0.95)
    difference = b - a
    return {
        "a": a.tolist(),
        "b": b.tolist(),
        "t": test.statistic,
        "p": test.pvalue,
        "low": interval.low,
        "high": interval.high,
        "effect": difference.mean() / difference.std(ddof=1),
    }


def rows(n, accuracy_a, accuracy_b):
    a = rng.random(n) < accuracy_a
    b = numpy.where(rng.random(n) < 0.7, a, rng.random(n) < accuracy_b)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    interval = stats.bootstrap(
        (b.astype(float) - a.astype(float),), numpy.mean, n_resamples=20000, method="percentile", rng=rng
    ).confidence_interval
    return {
        "a": a.astype(int).tolist(),
        "b": b.astype(int).tolist(),
        "only_a": only_a,
        "only_b": only_b,
        "p": stats.binomtest(min(only_a, only_b), only_a + only_b, 0.5).pvalue,
        "difference": float(b.mean() - a.mean()),
        "low": interval.low,
        "high": interval.high,
    }


def detectable(n, accuracy, seeds):
    """What the rows tell apart, or the seeds where that is more."""
    variance = 2 * accuracy * (1 - accuracy) / n
    least = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * numpy.sqrt(variance)
    if seeds > 1:
        t = stats.t(seeds - 1)
        least = max(least, (t.ppf(0.975) + t.ppf(0.8)) * numpy.sqrt(variance / seeds))
    return {"rows": n, "accuracy": accuracy, "seeds": seeds, "least": least}


x = rng.standard_normal(15).round(2)
y = (0.5 * x + rng.standard_normal(15)).round(1)
answers = {
    "scipy": scipy.__version__,
    "paired": [paired(n) for n in (2, 3, 5, 10)],
    "rows": [rows(120, 0.8, 0.9), rows(277, 0.55, 0.56)],
    "detectable": [detectable(277, 0.8, 1), detectable(1000, 0.65, 2), detectable(277, 0.8, 3), detectable(408, 0.7, 5)],
    "spearman": {"x": x.tolist(), "y": y.tolist(), "r": stats.spearmanr(x, y).statistic},
}
print(json.dumps(answers))
