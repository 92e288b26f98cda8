#!/usr/bin/env python3
"""Writes intervals.json: errors, degrees of freedom, intervals and tests by patient, written out from the papers.

usage: python make_intervals.py        (numpy, scipy, scikit-learn)

No Python package offers these, so each is computed here in a form unlike the crate's: errors from the full matrix
of pairs, degrees of freedom from the traces of matrices, the jackknife by deleting rows and calling scikit-learn,
the binormal variance by integration, Wilson's interval as the roots of its equation. Besides its own cases the
script takes the inputs of golden.json.
"""
import json
import pathlib

import numpy as np
from scipy import integrate, optimize, stats
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

rng = np.random.default_rng(20261128)
here = pathlib.Path(__file__).parent


def scores(array):
    """In as few digits as name the f32."""
    return [float(str(np.float32(x))) for x in np.asarray(array).ravel()]


def f32(array):
    return np.asarray(array, dtype=np.float32).astype(np.float64)


# ---- degrees of freedom


def unbiased(sizes, correlation):
    """L0 / E(sum S^2): patients' totals have the variances lambda, S takes the pooled mean off."""
    sizes = np.asarray(sizes, dtype=float)
    a = np.eye(len(sizes)) - np.outer(sizes / sizes.sum(), np.ones(len(sizes)))
    spread = np.diag(sizes * (1 + (sizes - 1) * correlation))
    return np.trace(spread) / np.trace(a @ spread @ a.T)


def traces(sizes, correlation):
    """Bell & McCaffrey 2002: (tr BL)^2 / tr (BL)^2 with B = A'A, A the projection that takes the pooled mean off."""
    sizes = np.asarray(sizes, dtype=float)
    a = np.eye(len(sizes)) - np.outer(sizes / sizes.sum(), np.ones(len(sizes)))
    bl = a.T @ a @ np.diag(sizes * (1 + (sizes - 1) * correlation))
    return np.trace(bl) ** 2 / np.trace(bl @ bl)


def satterthwaite(parts):
    parts = [(v, df) for v, df in parts if v > 0]
    return sum(v for v, _ in parts) ** 2 / sum(v * v / df for v, df in parts) if parts else None


def intraclass(values, groups):
    """One-way analysis of variance, groups of unequal size."""
    ids = np.unique(groups)
    inside = [values[groups == g] for g in ids]
    sizes = np.array([len(x) for x in inside])
    if len(values) == len(ids):
        return 1.0
    mean = 0.0  # deviations are about the mean of the class already
    between = sum(n * (x.mean() - mean) ** 2 for n, x in zip(sizes, inside)) / (len(ids) - 1)
    within = sum(((x - x.mean()) ** 2).sum() for x in inside) / (len(values) - len(ids))
    n0 = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(ids) - 1)
    total = between + (n0 - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 1.0


class Class:
    """The deviations of one class's placements (or their differences), with their clusters."""

    def __init__(self, deviations, clusters):
        self.deviations, self.clusters = deviations, clusters
        self.ids, self.sizes = np.unique(clusters, return_counts=True)
        self.sums = {c: deviations[clusters == c].sum() for c in self.ids}
        i, m = len(self.ids), len(deviations)
        self.variance = i / (i - 1) * sum(s * s for s in self.sums.values()) / m**2 if i > 1 else None

    def part(self, correlation):
        return self.variance, traces(self.sizes, correlation)

    def correlation(self):
        return intraclass(self.deviations, self.clusters)

    def effective(self):
        m = len(self.deviations)
        return m / (1 + (m / self.kish() - 1) * self.correlation())

    def kish(self):
        return self.sizes.sum() ** 2 / (self.sizes**2).sum()


def placements(y, s):
    x, z = s[y], s[~y]
    psi = (x[:, None] > z[None, :]) + 0.5 * (x[:, None] == z[None, :])
    return psi.mean(1), psi.mean(0), psi.mean()


def classes(y, clusters, models):
    """Of one model, or of the difference of two."""
    of = [placements(y, s) for s in models]
    v10, v01, auc = (of[0][k] - of[1][k] if len(of) == 2 else of[0][k] for k in range(3))
    return auc, Class(v10 - auc, clusters[y]), Class(v01 - auc, clusters[~y])


def variance(positive, negative):
    if positive.variance is None or negative.variance is None:
        return None
    both = set(positive.ids) | set(negative.ids)
    products = sum(positive.sums.get(c, 0) * negative.sums.get(c, 0) for c in both)
    k, m, n = len(both), len(positive.deviations), len(negative.deviations)
    return positive.variance + negative.variance + 2 * k / (k - 1) * products / (m * n)


# ---- one AUC


def model_variance(auc, positive, negative):
    """Two normal classes of one variance with this AUC: of a placement, P(both of two lose) - (1 - AUC)^2."""
    wrong = min(auc, 1 - auc)
    h = stats.norm.isf(wrong)
    # both differences exceed h; they share the negative, so are correlated by 1/2
    both, _ = integrate.quad(lambda x: stats.norm.pdf(x) * stats.norm.sf((2 * h - x) / np.sqrt(3)), h, h + 15, epsabs=0, epsrel=1e-13, limit=500)
    placement = both - wrong**2
    return placement * (1 / positive.effective() + 1 / negative.effective()) / (auc * (1 - auc)) ** 2


def deleted(y, s, clusters):
    values = []
    for c in np.unique(clusters):
        kept = clusters != c
        pairs = int(y[kept].sum()) * int((~y[kept]).sum())
        half = 0.5 / pairs
        values.append(logit(np.clip(roc_auc_score(y[kept], s[kept]), half, 1 - half)))
    return np.array(values)


def jackknife(y, s, clusters):
    values = deleted(y, s, clusters)
    return (len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum()


def estimate(y, s, clusters):
    auc, positive, negative = classes(y, clusters, [s])
    assert abs(auc - roc_auc_score(y, s)) < 1e-12
    v = variance(positive, negative)
    case = {"auc": auc, "standard_error": None if v is None else np.sqrt(max(v, 0))}
    if v is None or v <= 0 or auc in (0, 1):
        return case | {"degrees_of_freedom": None, "logit_standard_error": None, "interval": None, "interval_99": None}
    df = satterthwaite([positive.part(1), negative.part(1)])
    prior = 4 * np.sqrt(1 + df / 10)
    weight = float(np.clip((abs(auc - 0.5) - 0.40) / 0.05, 0, 1))
    spread = v / (auc * (1 - auc)) ** 2
    if weight > 0:
        moderated = (df * min(jackknife(y, s, clusters), 2 * spread) + prior * model_variance(auc, positive, negative)) / (df + prior)
        spread = (1 - weight) * spread + weight * moderated
    ends = lambda level: list(expit(logit(auc) + np.array([-1, 1]) * stats.t.isf((1 - level) / 2, df + prior * weight) * np.sqrt(spread)))
    return case | {"degrees_of_freedom": df, "logit_standard_error": np.sqrt(spread), "interval": ends(0.95), "interval_99": ends(0.99)}


# ---- differences


def interval_of(p_value, difference):
    """The true differences with p >= 0.05 around the estimate, by bisection on the p-value itself; cut off at -1 and 1."""
    ends = []
    for sign in (-1, 1):
        # Steps outwards: the first rejected one brackets the end.
        outside = next((sign * step for step in np.geomspace(1e-6, 2, 4000) if p_value(sign * step) < 0.05), None)
        end = sign * np.inf
        if outside is not None:
            inside = outside / 1.01
            end = optimize.brentq(lambda e: p_value(e) - 0.05, inside, outside, xtol=1e-15, rtol=1e-14)
        ends.append(end)
    if p_value(difference) >= 0.05:
        ends = [min(ends[0], difference), max(ends[1], difference)]
    return [max(difference - ends[1], -1.0), min(difference - ends[0], 1.0)]


def test(a, b, v, df):
    """Student's t, for means."""
    error = np.sqrt(max(v, 0))
    t = (a - b) / error
    half = stats.t.isf(0.025, df) * error
    return {
        "auc_a": a, "auc_b": b, "standard_error": error, "degrees_of_freedom": df, "statistic": t,
        "p_value": 2 * stats.t.sf(abs(t), df), "interval": [max(a - b - half, -1), min(a - b + half, 1)],
    }


def paired(y, s, other, clusters):
    """The score test: patients' contributions under a hypothesis, their variance and fourth cumulant."""
    d, positive, negative = classes(y, clusters, [s, other])
    df = satterthwaite([positive.part(positive.correlation()), negative.part(negative.correlation())])
    v = variance(positive, negative)
    ids = np.unique(clusters)
    share = positive.variance / (positive.variance + negative.variance)
    first, second = placements(y, s), placements(y, other)
    of_positives, of_negatives = first[0] - second[0], first[1] - second[1]

    def contributions(e):
        """Of each patient if the true difference is d - e: placements of positives then have the mean d - share e."""
        x = np.zeros(len(ids))
        for k, c in enumerate(ids):
            x[k] += (of_positives[clusters[y] == c] - (d - share * e)).sum() / y.sum()
            x[k] += (of_negatives[clusters[~y] == c] - (d - (1 - share) * e)).sum() / (~y).sum()
        assert abs(x.sum() - e) < 1e-12
        return x

    x = contributions(d)
    kurtosis = (x**4).sum() / (x**2).sum() ** 2
    zero, one = contributions(0.0), contributions(1.0)  # x is linear in e
    assert np.allclose(contributions(0.3), zero + 0.3 * (one - zero), atol=1e-13)

    def z(e):
        t = e / np.sqrt(((zero + e * (one - zero)) ** 2).sum())
        # Cornish & Fisher: t - (fourth cumulant) (t^3 - 3t) / 24, and signs that may flip have -2 sum x^4
        return t - (-2 * kurtosis) * (t**3 - 3 * t) / 24

    p_value = lambda e: 2 * stats.norm.sf(abs(z(e)))
    return {
        "auc_a": roc_auc_score(y, s), "auc_b": roc_auc_score(y, other), "standard_error": np.sqrt(max(v, 0)), "degrees_of_freedom": df,
        "statistic": z(d), "p_value": p_value(d), "interval": interval_of(p_value, d),
    }


# ---- decisions


def wilson(p, n, z):
    """The p0 at which (p - p0)^2 = z^2 p0 (1 - p0) / n."""
    gap = lambda p0: (p - p0) ** 2 - z * z * p0 * (1 - p0) / n
    low = 0.0 if p == 0 else optimize.brentq(gap, 1e-300, p - 1e-13, xtol=1e-16, rtol=1e-15)
    high = 1.0 if p == 1 else optimize.brentq(gap, p + 1e-13, 1 - 1e-16, xtol=1e-16, rtol=1e-15)
    return [low, high]


def rate(hit, clusters):
    if len(hit) == 0:
        return None
    p = hit.mean()
    of = Class(hit - p, clusters)
    if of.variance is None:
        return {"share": p, "effective_n": None, "degrees_of_freedom": None, "interval": None}
    n = min(p * (1 - p) / of.variance, len(hit)) if of.variance > 1e-20 and 0 < p < 1 else of.kish()
    df, z = traces(of.sizes, 1), stats.norm.isf(0.025)
    sums = np.array(list(of.sums.values()))
    if of.variance > 1e-20:
        df = min(df, max(2 * (sums**2).sum() ** 2 / (sums**4).sum(), 1))
    return {"share": p, "effective_n": n, "degrees_of_freedom": df, "interval": wilson(p, n * (z / stats.t.isf(0.025, df)) ** 2, z)}


def rates(y, called, clusters):
    right = (called == y).astype(float)
    of = lambda rows: rate(right[rows], clusters[rows])
    return {"sensitivity": of(y), "specificity": of(~y), "ppv": of(called), "npv": of(~called), "accuracy": of(np.ones(len(y), bool))}


def one_label(name, y, s, clusters, other):
    s, other = f32(s), f32(other)
    threshold = float(np.quantile(s, 0.6, method="lower"))
    return {
        "name": name, "labels": [int(x) for x in y], "scores": scores(s), "other": scores(other), "clusters": [int(c) for c in clusters],
        "by_cluster": estimate(y, s, clusters), "by_image": estimate(y, s, np.arange(len(y))),
        "paired_by_cluster": paired(y, s, other, clusters), "paired_by_image": paired(y, s, other, np.arange(len(y))),
        "threshold": threshold, "rates": rates(y, s >= threshold, clusters),
    }


# ---- means over labels


def mean_parts(y, mask, clusters, models):
    """Influence of every patient on the mean, straight from the definition, and the parts of its variance."""
    ids = np.unique(clusters)
    labels = [l for l in range(y.shape[1]) if 0 < y[mask[:, l], l].sum() < mask[:, l].sum()]
    aucs = [[roc_auc_score(y[mask[:, l], l], s[mask[:, l], l]) for s in models] for l in labels]
    psi, own, parts = np.zeros(len(ids)), 0.0, []
    occupied = set()
    for l in labels:
        known = mask[:, l]
        auc, positive, negative = classes(y[known, l], clusters[known], [s[known, l] for s in models])
        for of in (positive, negative):
            share = np.array([of.sums.get(c, 0) for c in ids]) / len(of.deviations)
            psi += share / len(labels)
            own += (share**2).sum() / len(labels) ** 2
            occupied |= set(of.ids)
            if of.variance is None:
                return np.mean(aucs, 0), len(labels), None, None
            correlation = 1 if len(models) == 1 else of.correlation()
            squares = sum(x * x for x in of.sums.values()) / len(of.deviations) ** 2
            own_variance = squares * unbiased(of.sizes, correlation) if len(labels) > 1 else of.variance
            parts.append((own_variance / len(labels) ** 2, traces(of.sizes, correlation)))
    k = len(occupied)
    v = sum(v for v, _ in parts) + k / (k - 1) * ((psi**2).sum() - own)
    return np.mean(aucs, 0), len(labels), v, satterthwaite(parts)


def macro(y, mask, s, clusters):
    (mean,), n_labels, v, df = mean_parts(y, mask, clusters, [s])
    if v is None:
        return {"mean": mean, "n_labels": n_labels, "standard_error": None}
    half = stats.t.isf(0.025, df) * np.sqrt(v) / (mean * (1 - mean))
    return {
        "mean": mean, "n_labels": n_labels, "standard_error": np.sqrt(v), "degrees_of_freedom": df,
        "interval": list(expit([logit(mean) - half, logit(mean) + half])),
    }


def many_labels(name, y, s, other, mask, clusters):
    s, other = f32(s), f32(other)
    by_image = np.arange(len(y))

    def difference(clusters):
        if y.shape[1] == 1:  # of one label, that label's test
            return paired(y[:, 0], s[:, 0], other[:, 0], clusters) | {"n_labels": 1}
        (a, b), n_labels, v, df = mean_parts(y, mask, clusters, [s, other])
        return test(a, b, v, df) | {"n_labels": n_labels}

    case = {
        "name": name, "n_labels": y.shape[1], "labels": [int(x) for x in y.ravel()], "scores": scores(s), "other": scores(other),
        "mask": [int(x) for x in mask.ravel()], "clusters": [int(c) for c in clusters],
        "by_cluster": macro(y, mask, s, clusters), "by_image": macro(y, mask, s, by_image),
    }
    if case["by_cluster"]["standard_error"] is not None:
        case |= {"paired_by_cluster": difference(clusters), "paired_by_image": difference(by_image)}
    return case


# ---- cases


def patients_of(sizes):
    return np.repeat(1000 - 7 * np.arange(len(sizes)), sizes)


def alike(y, clusters, gain, within=0.7):
    """Scores that resemble each other within a patient."""
    own = {c: rng.normal() for c in np.unique(clusters)}
    return gain * y + np.array([own[c] for c in clusters]) + within * rng.normal(size=len(y))


def made(name, sizes, rate_of, gain, digits=None):
    clusters = patients_of(sizes)
    sick = {c: rng.random() for c in np.unique(clusters)}
    y = np.array([rng.random() < rate_of * 2 * sick[c] for c in clusters])
    s, other = alike(y, clusters, gain), alike(y, clusters, gain * 0.8)
    if digits is not None:
        s, other = np.round(s, digits), np.round(other, digits)
    rows = rng.permutation(len(y))
    return one_label(name, y[rows], s[rows], clusters[rows], other[rows])


golden = json.loads((here / "golden.json").read_text())
of_golden = [
    one_label(case["name"], np.array(case["labels"], bool), np.array(case["scores"]), np.array(case["clusters"]), np.array(case["other"]))
    for case in golden["one_label"]
]
skewed = [1] * 30 + [2] * 12 + [3, 3, 4, 5, 8, 13, 21, 34]
few = np.zeros(120, bool)
few[[0, 1, 2, 40, 80]] = True  # three positive patients, the first with three films
clusters = np.repeat(np.arange(30), 4)
easy = rng.normal(size=120) + 2.0 * few
one_miss = np.where(few, 5.0, rng.normal(size=120))
one_miss[80] = 1.2  # without its patient the AUC is 1
own_cases = [
    made("one image per patient", [1] * 80, 0.25, 0.8),
    made("one image per patient, AUC near 1", [1] * 80, 0.25, 4.0),
    made("five images each", [5] * 16, 0.3, 0.7),
    made("two to 184 images", [2, 2, 3, 3, 4, 5, 6, 9, 12, 20, 31, 47, 184], 0.2, 1.2),
    made("on the ramp", skewed, 0.15, 2.0),
    made("above 0.95", skewed, 0.15, 3.1),
    made("above 0.95, one decimal", skewed, 0.15, 2.9, 1),
    made("below 0.05", skewed, 0.15, -3.6),
    one_label("three positive patients", few, easy, clusters, rng.normal(size=120)),
    one_label("perfect without one patient", few, one_miss, clusters, rng.normal(size=120)),
]
aucs = {case["name"]: case["by_cluster"]["auc"] for case in own_cases}
assert 0.90 < aucs["on the ramp"] < 0.95 and aucs["above 0.95"] > 0.95 and aucs["below 0.05"] < 0.05, aucs
assert 0.95 < aucs["one image per patient, AUC near 1"] < 1 and 0.95 < aucs["above 0.95, one decimal"] < 1, aucs
assert 0.9 < aucs["perfect without one patient"] < 1 and np.max(deleted(few, f32(one_miss), clusters)) > 6, aucs

clusters = patients_of(skewed)
n = len(clusters)
own = {c: rng.normal(size=4) for c in np.unique(clusters)}
base = np.array([own[c] for c in clusters])
y = rng.random((n, 4)) < [0.4, 0.2, 0.06, 0.3]
s = base + 0.6 * rng.normal(size=(n, 4)) + 1.2 * y
other = 0.5 * base + 0.9 * rng.normal(size=(n, 4)) + 0.9 * y
known = rng.random((n, 4)) < 0.7
nobody, alone = y.copy(), y.copy()
nobody[:, 2] = False
alone[:, 2] = clusters == clusters[0]
means = [
    many_labels("complete", y, s, other, np.ones_like(known), clusters),
    many_labels("a third unknown", y, s, other, known, clusters),
    many_labels("a label nobody has", nobody, s, other, np.ones_like(known), clusters),
    many_labels("a label of one patient", alone, s, other, np.ones_like(known), clusters),
    many_labels("one label", y[:, :1], s[:, :1], other[:, :1], np.ones((n, 1), bool), clusters),
]

# The mean over one label is that label.
single, label = means[-1]["by_cluster"], estimate(y[:, 0], f32(s[:, 0]), clusters)
assert abs(single["standard_error"] - label["standard_error"]) < 1e-14 and abs(single["degrees_of_freedom"] - label["degrees_of_freedom"]) < 1e-9
for case in own_cases[:1]:
    m, k = sum(case["labels"]), len(case["labels"])
    parts = classes(np.array(case["labels"], bool), np.arange(k), [np.array(case["scores"])])
    assert abs(traces(parts[1].sizes, 1) - (m - 1)) < 1e-9  # one image per patient: I - 1

out = {"one_label": of_golden + own_cases, "means": means}
(here / "intervals.json").write_text(json.dumps(out, separators=(",", ":"), default=float) + "\n")
print({name: round(auc, 4) for name, auc in aucs.items()})
