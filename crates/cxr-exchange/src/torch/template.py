"""@TITLE@: images N×3×@SIZE@×@SIZE@, normalised, to logits N×@LABELS@.

Written by cxr. Needs @NEEDS@, and model.safetensors and model.json beside this file.

    import model

    network = model.load()
    @CALL@
    probabilities = model.probabilities(logits)  # in the order of model.LABELS

An image is resized to @IMAGE@×@IMAGE@ pixels with an antialiased bicubic filter, and its central @SIZE@×@SIZE@ pixels are taken:
with Pillow, `image.convert("L").resize((@IMAGE@, @IMAGE@), Image.BICUBIC)`. Not a medical device, not for clinical use.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
@IMPORTS@
HERE = Path(__file__).resolve().parent
CARD = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
LABELS = CARD["labels"]
# A label is called where its logit is above this.
LOGIT_THRESHOLDS = torch.tensor(CARD["logit_thresholds"])
@CLASSES@

def build():
    """The network with random weights."""
@BUILD@
    return network


def load(file=HERE / "model.safetensors"):
    """The trained network, in evaluation."""
    network = build()
    network.load_state_dict(load_file(file))
    return network.eval()


def normalise(grey):
    """Grey values in [0, 1], N×1×S×S, as the network takes them, N×3×S×S."""
    column = lambda key: torch.tensor(CARD[key], dtype=grey.dtype, device=grey.device).reshape(1, 3, 1, 1)
    return (grey - column("normalization_mean")) / column("normalization_std")
@ENCODE@

def probabilities(logits):
    """Probabilities of logits N×L, calibrated where the model is."""
    calibration = CARD.get("calibration")
    if calibration is None:
        return torch.sigmoid(logits)
    columns = [_probability(of_label, logits[:, at]) for at, of_label in enumerate(calibration["labels"])]
    return torch.stack(columns, 1)


def _probability(calibration, logits):
    method = calibration["method"]
    if method == "none":
        return torch.sigmoid(logits)
    if method == "temperature":
        return torch.sigmoid(logits / calibration["temperature"])
    if method == "platt":
        return torch.sigmoid(calibration["slope"] * logits + calibration["intercept"])
    if method == "operating-point":
        p, point = torch.sigmoid(logits), calibration["probability"]
        return torch.where(p < point, p / (2 * point), 1 - (1 - p) / (2 * (1 - point)))
    if method == "isotonic":
        xs, ys = (torch.tensor(calibration[key], dtype=torch.float64) for key in ("logits", "probabilities"))
        x = logits.double().cpu().clamp(xs[0], xs[-1])
        right = torch.searchsorted(xs, x).clamp(1, max(len(xs) - 1, 1)).clamp(max=len(xs) - 1)
        left = (right - 1).clamp(min=0)
        width = torch.where(xs[right] > xs[left], xs[right] - xs[left], torch.ones_like(x))
        return (ys[left] + (ys[right] - ys[left]) * (x - xs[left]) / width).to(logits)
    raise ValueError(f"unknown method of calibration: {method}")
