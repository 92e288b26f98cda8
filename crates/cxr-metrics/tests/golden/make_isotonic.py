"""Isotonic regression by scikit-learn, at points inside and outside of what it was fitted on.

usage: make_isotonic.py > isotonic.json      (scikit-learn 1.x, numpy)
"""

import json

import numpy as np
from sklearn.isotonic import IsotonicRegression

random = np.random.default_rng(5)
cases = []
for n, digits in [(2, 3), (5, 1), (40, 3), (40, 1), (300, 2), (300, 0)]:
    labels = random.random(n) < 0.3
    labels[0], labels[-1] = True, False
    scores = np.round(random.normal(size=n) + labels, digits).astype(np.float32).astype(float) + 0.0
    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, labels.astype(float))
    at = np.concatenate([np.linspace(scores.min() - 1, scores.max() + 1, 23), scores[:20]])
    cases.append({
        "scores": scores.tolist(), "labels": labels.tolist(), "at": at.tolist(), "expected": fitted.predict(at).tolist(),
    })
print(json.dumps(cases))
