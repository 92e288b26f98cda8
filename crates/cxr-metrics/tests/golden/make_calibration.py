#!/usr/bin/env python3
"""Writes calibration.json: calibration maps, slopes and thresholds, by scikit-learn and plain numpy.

usage: python make_calibration.py [PREDICTIONS LABELS]        (numpy, scipy, scikit-learn; pandas not needed)

Isotonic regression is scikit-learn's; the calibration slope, intercept and their errors are written out with matrices;
thresholds are read off scikit-learn's roc_curve by going through all of its points; the prevalence correction is Bayes'
rule on odds. With PREDICTIONS (a table of prob_LABEL columns) and LABELS (ChestX-ray14's table, gzip) it prints what
crates/cxr-run/tests/golden/calibration.json holds: numbers fitted on 22,433 real images and counts, nothing of an image.
"""
import csv
import gzip
import json
import pathlib
import sys
import warnings

import numpy as np
from scipy import optimize
from scipy.special import expit, logit
from sklearn import metrics as sk
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression

warnings.filterwarnings("ignore")
rng = np.random.default_rng(20261130)
PROBES = [0.0, 1e-4, 0.001, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99, 1.0]


def maximum(x, y, offset=None):
    """Unpenalised logistic regression by Newton's method with matrices; with an offset the slope is held."""
    design = np.column_stack([x, np.ones_like(x)]) if offset is None else np.ones((len(x), 1))
    base = 0 if offset is None else offset
    beta = np.zeros(design.shape[1])
    for _ in range(100):
        p = expit(base + design @ beta)
        step = np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]), design.T @ (y - p))
        beta = beta + step
        if np.abs(step).max() < 1e-14:
            break
    p = expit(base + design @ beta)
    return beta, design, p


def sandwich(design, p, y, groups):
    ids, of_row = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(ids), design.shape[1]))
    np.add.at(sums, of_row, design * (y - p)[:, None])
    bread = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    g = len(ids)
    return np.sqrt(np.diag(bread @ (sums.T @ sums) @ bread) * g / (g - 1))


def cox(x, y, groups):
    (slope, intercept), design, p = maximum(x, y)
    errors = sandwich(design, p, y, groups)
    (level,), ones, p = maximum(x, y, offset=x)
    return {
        "slope": slope, "intercept": intercept, "in_the_large": level,
        "slope_se": errors[0], "intercept_se": errors[1], "in_the_large_se": sandwich(ones, p, y, groups)[0],
    }


def temperature(x, y):
    gain = lambda a: np.sum(x * (expit(a * x) - y))
    return 1 / optimize.brentq(gain, 1e-6, 1e3, xtol=1e-15, rtol=1e-14)


def platt(x, y):
    m, n = y.sum(), (1 - y).sum()
    target = np.where(y == 1, (m + 1) / (m + 2), 1 / (n + 2))
    (slope, intercept), _, _ = maximum(x, target)
    a, b = _sigmoid_calibration(x, y)
    reached = expit(-(a * x + b))
    ours = expit(slope * x + intercept)
    assert np.abs(reached - ours).max() < 1e-6, np.abs(reached - ours).max()
    return [slope, intercept]


def thresholds(x, y):
    """Every candidate of roc_curve (highest first, the first calls nothing); ties go to the higher threshold."""
    false, true, cuts = sk.roc_curve(y, x, drop_intermediate=False)
    m, n = y.sum(), len(y) - y.sum()
    tp, fp = true * m, false * n
    with np.errstate(invalid="ignore", divide="ignore"):
        ppv = tp / (tp + fp)
        f1 = 2 * tp / (2 * tp + fp + (m - tp))

    def best(*merits, allowed=None):
        allowed = np.ones(len(cuts), bool) if allowed is None else allowed
        merits = [np.round(merit, 12) for merit in merits]
        order = sorted(np.flatnonzero(allowed), key=lambda i: (*[-merit[i] for merit in merits], -cuts[i]))
        return None if not order else (None if np.isinf(cuts[order[0]]) else float(cuts[order[0]]))

    at_least = lambda values, rate: np.round(values, 12) >= rate
    return {
        "youden": best(true - false), "best_f1": best(f1),
        "specificity_at_sensitivity_0.9": best(1 - false, true, allowed=at_least(true, 0.9)),
        "sensitivity_at_specificity_0.95": best(true, 1 - false, allowed=at_least(1 - false, 0.95)),
        "ppv_at_least_0.25": best(true, allowed=at_least(np.nan_to_num(ppv, nan=-1), 0.25)),
    }


def isotonic(x, y):
    return IsotonicRegression(out_of_bounds="clip").fit(x, y)


def shifted(p, start, to):
    odds = p / (1 - p) * (to / (1 - to)) / (start / (1 - start))
    return odds / (1 + odds)


def fitted(p, y, groups):
    x, y = logit(p), y.astype(float)
    curve = isotonic(p, y)
    return {
        "temperature": temperature(x, y), "platt": platt(x, y), "cox": cox(x, y, groups), "cox_by_image": cox(x, y, np.arange(len(y))),
        "isotonic_at_probes": curve.predict(PROBES).tolist(), "thresholds": thresholds(p, y),
    }


def case(name, p, y, groups):
    x = logit(p)
    curve = isotonic(p, y.astype(float))
    return {
        "name": name, "probabilities": p.tolist(), "labels": [int(v) for v in y], "clusters": [int(g) for g in groups],
        "isotonic": {"scores": curve.X_thresholds_.tolist(), "probabilities": curve.y_thresholds_.tolist()},
        "prevalence_0.3_to_0.05": shifted(p, 0.3, 0.05).tolist()[:20], "probes": PROBES,
    } | fitted(p, y, groups)


def made(name, n, slope, intercept, digits=None):
    groups = np.repeat(np.arange(n // 3), 3)[:n]
    effect = rng.normal(size=n)[groups]
    x = 0.8 * effect + rng.normal(size=n) - 1
    y = rng.random(n) < expit(x)
    p = expit((x - intercept) / slope)
    if digits:
        p = np.clip(np.round(p, digits), 10.0**-digits, 1 - 10.0**-digits)
    return case(name, p, y, groups)


def real(predictions, table):
    with gzip.open(table, "rt") as file:
        rows = {row["Image Index"]: row for row in csv.DictReader(file)}
    with open(predictions) as file:
        predicted = list(csv.DictReader(file))
    found = [rows[row["Image Index"]] for row in predicted]
    groups = np.array([int(row["Patient ID"]) for row in found])
    out = {}
    for column in [name for name in predicted[0] if name.startswith("prob_")]:
        label = column.removeprefix("prob_")
        p = np.array([float(row[column]) for row in predicted])
        y = np.array([label in row["Finding Labels"].split("|") for row in found])
        out[label] = fitted(p, y, groups)
        cuts = out[label].pop("thresholds")
        out[label]["called"] = {rule: None if cut is None else [int(y[p >= cut].sum()), int((~y[p >= cut]).sum())] for rule, cut in cuts.items()}
    return {"probes": PROBES, "labels": out}


if len(sys.argv) == 3:
    print(json.dumps(real(*sys.argv[1:]), separators=(",", ":"), default=float))
    raise SystemExit
cases = [
    made("overconfident", 300, 0.4, 0.3),
    made("timid, two decimals", 300, 2.0, -0.5, 2),
    made("right", 240, 1.0, 0.0),
]
pathlib.Path(__file__).with_name("calibration.json").write_text(json.dumps(cases, separators=(",", ":"), default=float) + "\n")
for c in cases:
    print(c["name"], round(c["temperature"], 4), c["cox"], c["thresholds"], len(c["isotonic"]["scores"]))
