#!/usr/bin/env python3
"""Writes golden.json: inputs and what scikit-learn, torchmetrics, scipy and plain code say about them.

usage: python make_golden.py        (numpy, scipy, scikit-learn, torch, torchmetrics)

Only the statistics that no Python package offers are written out here, straight from the papers and
in a form unlike the crate's: DeLong's and Obuchowski's covariance from the full matrix of pairs.
Degrees of freedom, intervals and p-values are in make_intervals.py.
"""
import json
import pathlib
import warnings

import numpy as np
import scipy
import sklearn
import torch
import torchmetrics
from scipy import optimize, stats
from scipy.stats._resampling import _bca_interval
from sklearn import metrics as sk
from sklearn.calibration import _sigmoid_calibration, calibration_curve
from torchmetrics import classification as tm

warnings.filterwarnings("ignore")
rng = np.random.default_rng(20250612)


def numbers(array):
    return [float(x) for x in np.asarray(array, dtype=np.float64).ravel()]


def scores(array):
    """In as few digits as name the f32."""
    return [float(str(np.float32(x))) for x in np.asarray(array).ravel()]


def flags(array):
    return [int(x) for x in np.asarray(array).ravel()]


def f32(array):
    return np.asarray(array, dtype=np.float32).astype(np.float64)


# ---- DeLong 1988 and Obuchowski 1997 from the matrix of all pairs


def placements(y, s):
    """psi[i, j]: does positive i outrank negative j; row and column means are the placements."""
    x, z = s[y], s[~y]
    psi = (x[:, None] > z[None, :]) + 0.5 * (x[:, None] == z[None, :])
    return psi.mean(1), psi.mean(0), psi.mean()


def covariance_delong(y, models):
    v10 = np.array([placements(y, s)[0] for s in models])
    v01 = np.array([placements(y, s)[1] for s in models])
    m, n = int(y.sum()), int((~y).sum())
    return np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n


def covariance_delong_midranks(y, models):
    """Sun & Xu 2014: placements from midranks among all and within the class."""
    m, n = int(y.sum()), int((~y).sum())
    v10, v01 = [], []
    for s in models:
        all_ranks = stats.rankdata(np.concatenate([s[y], s[~y]]))
        v10.append((all_ranks[:m] - stats.rankdata(s[y])) / n)
        v01.append(1 - (all_ranks[m:] - stats.rankdata(s[~y])) / m)
    return np.atleast_2d(np.cov(np.array(v10))) / m + np.atleast_2d(np.cov(np.array(v01))) / n


def covariance_obuchowski(y, models, clusters):
    m, n = int(y.sum()), int((~y).sum())
    ids = np.unique(clusters)
    positive_in = np.array([[np.sum(y & (clusters == c))] for c in ids])
    negative_in = np.array([[np.sum(~y & (clusters == c))] for c in ids])
    with_positive, with_negative = np.sum(positive_in > 0), np.sum(negative_in > 0)
    x, z = [], []
    for s in models:
        v10, v01, auc = placements(y, s)
        of_positive, of_negative = clusters[y], clusters[~y]
        x.append([v10[of_positive == c].sum() - np.sum(of_positive == c) * auc for c in ids])
        z.append([v01[of_negative == c].sum() - np.sum(of_negative == c) * auc for c in ids])
    x, z = np.array(x), np.array(z)
    s10 = with_positive / ((with_positive - 1) * m) * (x @ x.T)
    s01 = with_negative / ((with_negative - 1) * n) * (z @ z.T)
    s11 = len(ids) / (len(ids) - 1) * (x @ z.T)
    return s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def paired(covariance, auc_a, auc_b):
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return {"standard_error": error, "t": (auc_a - auc_b) / error}


# ---- one label


def one_label(name, y, s, clusters, other):
    s, other = f32(s), f32(other)
    case = {"name": name, "labels": flags(y), "scores": scores(s), "other": scores(other), "clusters": flags(clusters)}
    independent = covariance_delong(y, [s, other])
    assert np.allclose(independent, covariance_delong_midranks(y, [s, other]), rtol=1e-9, atol=1e-15)
    assert np.allclose(independent, covariance_obuchowski(y, [s, other], np.arange(len(y))), rtol=1e-9, atol=1e-15)
    clustered = covariance_obuchowski(y, [s, other], clusters)
    case["auc"] = sk.roc_auc_score(y, s)
    case["auc_other"] = sk.roc_auc_score(y, other)
    case["partial_auc"] = [[x, sk.roc_auc_score(y, s, max_fpr=x)] for x in (0.05, 0.2, 0.5, 0.999)]
    case["average_precision"] = sk.average_precision_score(y, s)
    auc = case["auc"]
    case["standard_error"] = np.sqrt(independent[0, 0])
    case["standard_error_clustered"] = np.sqrt(clustered[0, 0])
    z = stats.norm.ppf(0.975)
    case["wald_interval"] = numbers(np.clip([auc - z * case["standard_error"], auc + z * case["standard_error"]], 0, 1))
    case["paired"] = paired(independent, auc, case["auc_other"])
    case["paired_clustered"] = paired(clustered, auc, case["auc_other"])
    fpr, tpr, thresholds = sk.roc_curve(y, s, drop_intermediate=False)
    case["roc"] = [numbers(fpr), numbers(tpr), numbers(thresholds[1:])]
    precision, recall, _ = sk.precision_recall_curve(y, s)
    case["pr"] = [numbers(recall[::-1]), numbers(precision[::-1])]

    threshold = float(np.quantile(s, 0.6, method="lower"))
    called = s >= threshold
    tn, fp, fn, tp = sk.confusion_matrix(y, called).ravel()
    wilson = lambda hits, of: numbers(stats.binomtest(int(hits), int(of)).proportion_ci(0.95, method="wilson"))
    case["decision"] = {
        "threshold": threshold,
        "counts": flags([tp, fp, tn, fn]),
        "sensitivity": wilson(tp, tp + fn), "specificity": wilson(tn, tn + fp), "ppv": wilson(tp, tp + fp), "npv": wilson(tn, tn + fn),
        "f1": sk.f1_score(y, called), "mcc": sk.matthews_corrcoef(y, called), "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "accuracy": sk.accuracy_score(y, called),
    }
    tensors = torch.tensor(s), torch.tensor(y).int()
    youden = tpr - fpr
    precision, recall, pr_thresholds = sk.precision_recall_curve(y, s)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    case["operating"] = {
        "youden": [float(youden.max()), float(thresholds[np.argmax(youden)]) if youden.max() > 0 else None],
        "best_f1": float(f1.max()),
        "sensitivity_at_specificity_0.9": float(tm.BinarySensitivityAtSpecificity(0.9, validate_args=False)(*tensors)[0]),
        "specificity_at_sensitivity_0.9": float(tm.BinarySpecificityAtSensitivity(0.9, validate_args=False)(*tensors)[0]),
        "sensitivity_at_ppv_0.5": float(tm.BinaryRecallAtFixedPrecision(0.5, validate_args=False)(*tensors)[0]),
    }
    return case


def patients(n, n_patients):
    return rng.integers(0, n_patients, n) * 7 + 3


def scores_like(y, clusters, gain):
    """Scores that resemble each other within a patient."""
    own = {c: rng.normal() for c in np.unique(clusters)}
    return gain * y + np.array([own[c] for c in clusters]) + 0.5 * rng.normal(size=len(y))


labels = []
clusters = patients(150, 40)
sick = {c: rng.random() for c in np.unique(clusters)}
y = np.array([rng.random() < sick[c] * 0.6 for c in clusters])
labels.append(one_label("logits, films of a patient alike", y, scores_like(y, clusters, 1.0), clusters, scores_like(y, clusters, 0.4)))
labels.append(one_label("ten distinct scores", y, np.round(scores_like(y, clusters, 1.0)), clusters, np.round(scores_like(y, clusters, 0.4), 1)))
rare = np.zeros(180, bool)
rare[[3, 40, 41, 90, 178]] = True
clusters = patients(180, 60)
labels.append(one_label("five positives", rare, rng.random(180) + 0.3 * rare, clusters, rng.random(180)))
labels.append(one_label("worse than chance", rare, rng.random(180) - 0.4 * rare, clusters, 1e-30 * rng.random(180)))
labels.append(one_label("one cluster holds half", y, scores_like(y, patients(150, 4), 1.0), np.minimum(np.arange(150), 75), rng.random(150)))
big_y = rng.random(1400) < 0.1  # long enough for the counting sort
big = np.round(rng.random(1400) + 0.2 * big_y, 2)
large = one_label("long enough to sort by digits", big_y, big, patients(1400, 300), np.round(rng.random(1400), 2))
del large["roc"], large["pr"]
labels.append(large)

# ---- calibration


def calibration(name, y, logits):
    logits = f32(logits)
    p = f32(scipy.special.expit(logits))
    y01 = y.astype(float)
    nll = lambda a: np.sum(np.logaddexp(0, a * logits) - y01 * a * logits)
    slope = optimize.brentq(lambda a: np.sum(logits * (scipy.special.expit(a * logits) - y01)), 1e-6, 1e3, xtol=1e-15, rtol=1e-14)
    assert nll(slope) <= min(nll(slope * 1.01), nll(slope * 0.99))
    m, n = y.sum(), (~y).sum()
    target = np.where(y, (m + 1) / (m + 2), 1 / (n + 2))
    gradient = lambda ab: [np.sum(logits * (scipy.special.expit(ab[0] * logits + ab[1]) - target)), np.sum(scipy.special.expit(ab[0] * logits + ab[1]) - target)]
    platt = optimize.root(gradient, [1.0, 0.0], tol=1e-14).x
    library = _sigmoid_calibration(logits, y.astype(int))
    assert np.allclose(platt, [-library[0], -library[1]], atol=2e-3), (platt, library)
    width, mass = calibration_curve(y, p, n_bins=15, strategy="uniform"), calibration_curve(y, p, n_bins=10, strategy="quantile")
    return {
        "name": name, "labels": flags(y), "logits": scores(logits), "probabilities": scores(p),
        "brier": sk.brier_score_loss(y, p),
        "ece_15": float(tm.BinaryCalibrationError(n_bins=15, norm="l1")(torch.tensor(p), torch.tensor(y).int())),
        "equal_width_15": [numbers(width[1]), numbers(width[0])],
        "equal_mass_10": [numbers(mass[1]), numbers(mass[0])],
        "temperature": 1 / slope, "platt": numbers(platt),
    }


truth = rng.normal(size=200)
y = rng.random(200) < scipy.special.expit(truth - 1)
calibrations = [
    calibration("overconfident", y, 3 * truth),
    calibration("timid and shifted", y, 0.2 * truth - 0.1),
]

# ---- many labels


def ignoring_undefined(values, weights):
    kept = [(v, w) for v, w in zip(values, weights) if v is not None]
    return sum(v * w for v, w in kept) / sum(w for _, w in kept)


def many_labels(name, y, s, mask):
    s = f32(s)
    n_labels = y.shape[1]
    auc, average_precision = [], []
    for label in range(n_labels):
        known = mask[:, label]
        truth, score = y[known, label], s[known, label]
        auc.append(float(sk.roc_auc_score(truth, score)) if 0 < truth.sum() < len(truth) else None)
        average_precision.append(float(sk.average_precision_score(truth, score)) if truth.sum() else None)
    positives = (y & mask).sum(0)
    case = {
        "name": name, "n_labels": n_labels, "labels": flags(y), "scores": scores(s), "mask": flags(mask),
        "auc": auc, "average_precision": average_precision,
        "macro_auc": ignoring_undefined(auc, np.ones(n_labels)), "weighted_auc": ignoring_undefined(auc, positives),
        "macro_average_precision": ignoring_undefined(average_precision, np.ones(n_labels)),
        "weighted_average_precision": ignoring_undefined(average_precision, positives),
        "micro_auc": sk.roc_auc_score(y[mask], s[mask]), "micro_average_precision": sk.average_precision_score(y[mask], s[mask]),
    }
    if mask.all():
        if all(a is not None for a in auc):
            for average in ("macro", "weighted", "micro"):
                assert abs(sk.roc_auc_score(y, s, average=average) - case[f"{average}_auc"]) < 1e-12
                assert abs(sk.average_precision_score(y, s, average=average) - case[f"{average}_average_precision"]) < 1e-12
        case["label_ranking_average_precision"] = sk.label_ranking_average_precision_score(y, s)
        case["coverage_error"] = sk.coverage_error(y, s)
        case["ranking_loss"] = sk.label_ranking_loss(y, s)
        tensors = torch.tensor(s), torch.tensor(y).int()
        for metric, key in ((tm.MultilabelRankingAveragePrecision, "label_ranking_average_precision"),
                            (tm.MultilabelCoverageError, "coverage_error")):
            assert abs(float(metric(n_labels)(*tensors)) - case[key]) < 1e-4, (key, case[key], float(metric(n_labels)(*tensors)))
        case["hamming_loss"] = sk.hamming_loss(y, s >= 0.5)
        case["subset_accuracy"] = sk.accuracy_score(y, s >= 0.5)
    return case


shape = (60, 5)
y = rng.random(shape) < [0.5, 0.3, 0.1, 0.2, 0.4]
s = rng.random(shape) * 0.8 + 0.2 * y
everything = np.ones(shape, bool)
no_hernia = y.copy()
no_hernia[:, 2] = False
many = [
    many_labels("complete", y, s, everything),
    many_labels("tied scores", y, np.round(s, 1), everything),
    many_labels("one label never positive", no_hernia, s, everything),
    many_labels("a third unknown", y, s, rng.random(shape) < 0.67),
]

# ---- bootstrap: the same draws, made from RFC 8439's block function with 8 rounds and a 64-bit counter


def chacha8_words(seed, stream):
    quarter = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    word = lambda x: x & 0xFFFFFFFF
    rotate = lambda x, by: word(x << by) | word(x) >> (32 - by)
    counter = 0
    while True:
        start = [int.from_bytes(b"expand 32-byte k"[i:i + 4], "little") for i in (0, 4, 8, 12)]
        start += [word(seed), seed >> 32, 0, 0, 0, 0, 0, 0, word(counter), counter >> 32, word(stream), stream >> 32]
        x = list(start)
        for _ in range(4):
            for a, b, c, d in quarter:
                for first, second, third, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                    x[first] = word(x[first] + x[second])
                    x[third] = rotate(x[third] ^ x[first], by)
        yield from (word(p + q) for p, q in zip(x, start))
        counter += 1


def draw(seed, replicate, bound):
    words, drawn = chacha8_words(seed, replicate), []
    while len(drawn) < bound:
        product = next(words) * bound
        if product % 2**32 >= 2**32 % bound:
            drawn.append(product >> 32)
    return drawn


def bootstrap(name, y, s, clusters, metric, seed, replicates):
    s = f32(s)
    ids = np.unique(clusters)
    members = [np.flatnonzero(clusters == c) for c in ids]

    def statistic(drawn):
        rows = np.concatenate([members[c] for c in drawn])
        if (y[rows].sum(0) == 0).any() or (y[rows].sum(0) == len(rows)).any():
            return None
        return float(metric(y[rows], s[rows]))

    drawn = [statistic(draw(seed, replicate, len(ids))) for replicate in range(replicates)]
    kept = np.array([value for value in drawn if value is not None])
    everyone = np.arange(len(ids))
    over_last_axis = lambda c, axis=-1: np.apply_along_axis(lambda one: statistic(one.astype(int)), axis, c)
    low, high, _ = _bca_interval((everyone,), over_last_axis, axis=-1, alpha=0.025, theta_hat_b=kept, batch=None, xp=np)
    return {
        "name": name, "n_labels": y.shape[1], "labels": flags(y), "scores": scores(s), "clusters": flags(clusters), "seed": seed,
        "replicates": replicates, "skipped": replicates - len(kept), "estimate": statistic(everyone), "standard_error": float(kept.std(ddof=1)),
        "percentile": numbers(np.quantile(kept, [0.025, 0.975])), "bca": numbers(np.quantile(kept, np.array([low, high], dtype=float).ravel())),
    }


macro_auc = lambda y, s: sk.roc_auc_score(y, s, average="macro")
macro_ap = lambda y, s: sk.average_precision_score(y, s, average="macro")
y = rng.random((80, 3)) < [0.4, 0.2, 0.05]
y[[0, 30, 60]], y[1] = True, False  # no patient holds all positives of a label
s = np.round(rng.random((80, 3)) + 0.3 * y, 1)
bootstraps = [
    bootstrap("macro_auc", y, s, patients(80, 25), macro_auc, 5, 250),
    bootstrap("macro_auc", y, s, np.arange(80), macro_auc, 2**40 + 1, 250),
    bootstrap("macro_average_precision", y, s, patients(80, 25), macro_ap, 9, 250),
]

# ---- Holm, by its definition: the largest of the smaller p-values, each times the hypotheses left


def holm(p):
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    for rank, at in enumerate(order):
        adjusted[at] = min(1, max((len(p) - k) * p[order[k]] for k in range(rank + 1)))
    return {"p_values": numbers(p), "adjusted": numbers(adjusted)}


golden = {
    "made_with": {"numpy": np.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__,
                  "torch": torch.__version__, "torchmetrics": torchmetrics.__version__},
    "one_label": labels, "calibration": calibrations, "many_labels": many, "bootstrap": bootstraps,
    "holm": [holm(rng.random(14) ** 4), holm(np.array([0.01, 0.01, 0.9, 0.04]))],
}
path = pathlib.Path(__file__).with_name("golden.json")
path.write_text(json.dumps(golden, default=lambda x: x.item()) + "\n")
print(path, path.stat().st_size, "bytes")
