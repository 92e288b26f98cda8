#!/usr/bin/env python3
"""Writes precision.json: scores that need f64, and what scikit-learn says of them.

usage: python make_precision.py        (numpy, scikit-learn)

Saturated probabilities differ in the last digits only; in f32 they would be ties at 1, and 1e39 would be infinite.
"""
import json
import pathlib

import numpy as np
from sklearn import metrics as sk

rng = np.random.default_rng(20261129)
assert np.isinf(np.float32(1e39)) and np.float32(0.9999999999) == 1


def case(name, labels, scores):
    labels, scores = np.asarray(labels, bool), np.asarray(scores, np.float64)
    false, true, thresholds = sk.roc_curve(labels, scores, drop_intermediate=False)
    best = np.argmax(true - false)  # the first is the highest threshold
    return {
        "name": name, "labels": [int(x) for x in labels], "scores": scores.tolist(),
        "auc": sk.roc_auc_score(labels, scores), "average_precision": sk.average_precision_score(labels, scores),
        "auc_in_f32": sk.roc_auc_score(labels, np.clip(scores, -3e38, 3e38).astype(np.float32)),
        "thresholds": thresholds[1:].tolist(), "false_positive_rates": false.tolist(), "true_positive_rates": true.tolist(),
        "youden": float(thresholds[best]),
        "brier": sk.brier_score_loss(labels, scores) if scores.min() >= 0 and scores.max() <= 1 else None,
    }


# 16 pairs, of which one is the wrong way round: 15/16, and 1/2 where all are 1.
steps = 1 - np.array([1, 2, 3, 5, 4, 6, 7, 8]) * 1e-11
few = case("fifteen of sixteen", [1, 1, 1, 1, 0, 0, 0, 0], np.array(steps))
assert few["auc"] == 15 / 16 and few["auc_in_f32"] == 0.5
y = rng.random(300) < 0.3
logits = 32 + 2 * y + 1.5 * rng.normal(size=300)
saturated = 1 / (1 + np.exp(-logits))
assert len(np.unique(saturated)) < len(saturated)  # some ties are left in f64, too
cases = [
    few,
    case("saturated probabilities", y, saturated),
    case("near zero", ~y, np.exp(-logits * 3)),
    case("beyond f32", y, np.where(y, 1, -1) * 1e39 + rng.normal(size=300) * 3e39),
    case("one that f32 cannot name", y, np.where(np.arange(300) == 17, 0.1, np.round(logits))),
]
pathlib.Path(__file__).with_name("precision.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
print([(c["name"], round(c["auc"], 4), round(c["auc_in_f32"], 4)) for c in cases])
