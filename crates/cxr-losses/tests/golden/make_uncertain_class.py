"""Writes uncertain_class.json: U-MultiClass of CheXpert's paper by PyTorch's own functions in double precision.

    python make_uncertain_class.py

Labels with three logits (absent, present, uncertain) have torch.nn.functional.cross_entropy, those with one
binary_cross_entropy_with_logits; what is not known is left out by indexing, and the rest is averaged. The score of a label
is its probability of presence against absence, of softmax over these two logits.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
N, LABELS = 7, 4


def columns(three):
    """Of each label its columns: absent, present, uncertain, or the one it has."""
    at, found = 0, []
    for label in range(LABELS):
        width = 3 if label in three else 1
        found.append(list(range(at, at + width)))
        at += width
    return found, at


def case(seed, three, scale, unknown):
    generator = torch.Generator().manual_seed(seed)
    of_label, n_logits = columns(three)
    x = (torch.randn(N, n_logits, generator=generator) * scale).requires_grad_()
    targets = torch.zeros(N, LABELS)
    for label in range(LABELS):
        classes = 3 if label in three else 2
        targets[:, label] = torch.randint(classes, (N,), generator=generator)
    known = torch.rand(N, LABELS, generator=generator) >= unknown
    if unknown:
        known[:, 1] = False
    costs, scores = [], torch.zeros(N, LABELS)
    for label, own in enumerate(of_label):
        rows = known[:, label]
        y = targets[rows, label]
        if len(own) == 3:
            costs.append(F.cross_entropy(x[rows][:, own], y.long(), reduction="none"))
            scores[:, label] = torch.softmax(x[:, own[:2]], 1)[:, 1]
        else:
            costs.append(F.binary_cross_entropy_with_logits(x[rows][:, own[0]], y, reduction="none"))
            scores[:, label] = torch.sigmoid(x[:, own[0]])
    loss = torch.cat(costs).mean()
    loss.backward()
    return {
        "three": sorted(three),
        "n_logits": n_logits,
        "logits": x.detach().flatten().tolist(),
        "targets": targets.flatten().tolist(),
        "mask": known.double().flatten().tolist() if unknown else None,
        "loss": loss.item(),
        "gradient": x.grad.flatten().tolist(),
        "scores": scores.detach().flatten().tolist(),
    }


cases = {
    "all labels": case(0, {0, 1, 2, 3}, 1.0, 0.0),
    "some labels": case(1, {1, 3}, 2.0, 0.0),
    "some labels, some known": case(2, {0, 1}, 1.0, 0.4),
    "no label": case(3, set(), 3.0, 0.3),
    "far apart": case(4, {0, 2, 3}, 400.0, 0.2),
}
place = pathlib.Path(__file__).with_name("uncertain_class.json")
place.write_text(json.dumps({"torch": torch.__version__, "cases": cases}, indent=1) + "\n")
