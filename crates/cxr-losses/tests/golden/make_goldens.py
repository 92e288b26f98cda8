"""Writes losses.json: values and gradients of every loss by PyTorch autograd in double precision.

    python make_goldens.py

Each loss is written here from its paper's formula in the most direct form that PyTorch evaluates stably (explicit pairs for
LSEP, one logsumexp per set for ZLPR), not in the form of the crate. The gradient is that of the sum of upstream(k) times the
k-th value of the unreduced loss.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)


def upstream(count):
    return torch.tensor([0.5 + 0.25 * (k % 3) for k in range(count)])


def probability_terms(x):
    """log p, log(1 − p), p and 1 − p of the label's presence.

    The probabilities are exponentials of the logarithms because autograd's p (1 − p) for a sigmoid cancels near p = 1.
    """
    log_p, log_q = F.logsigmoid(x), F.logsigmoid(-x)
    return log_p, log_q, log_p.exp(), log_q.exp()


def bce(x, y, w):
    return weighted_bce(x, y, w, positive_weight=1.0)


def weighted_bce(x, y, w, positive_weight=None):
    log_p, log_q, _, _ = probability_terms(x)
    if positive_weight is None:
        present, absent = (w * y).sum(), (w * (1 - y)).sum()
        a_pos = (present + absent) / present if present > 0 else 0.0
        a_neg = (present + absent) / absent if absent > 0 else 0.0
        return -w * (a_pos * y * log_p + a_neg * (1 - y) * log_q)
    loss = -(positive_weight * y * log_p + (1 - y) * log_q)
    # PyTorch's own function cancels where the loss is small: it confirms the formula, not the digits.
    weight = torch.tensor(positive_weight)
    confirmed = F.binary_cross_entropy_with_logits(x, y, reduction="none", pos_weight=weight)
    assert torch.allclose(loss, confirmed, rtol=1e-12, atol=1e-13)
    return w * loss


def focal(x, y, w, gamma=2.0, alpha=None):
    log_p, log_q, p, q = probability_terms(x)
    a_pos, a_neg = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    return -w * (a_pos * y * q**gamma * log_p + a_neg * (1 - y) * p**gamma * log_q)


def zero_bounded(terms):
    zeros = torch.zeros_like(terms[:, :1])
    return torch.logsumexp(torch.cat([terms, zeros], dim=1), dim=1)


def lsep(x, y, w):
    positive = -x + torch.log(w * y)
    negative = x + torch.log(w * (1 - y))
    pairs = positive.unsqueeze(2) + negative.unsqueeze(1)
    return zero_bounded(pairs.flatten(1))


def zlpr(x, y, w):
    return zero_bounded(-x + torch.log(w * y)) + zero_bounded(x + torch.log(w * (1 - y)))


def fzlpr(x, y, w, tau=0.2):
    return zlpr(x / tau, y, w)


def polynomial(x, y, w, gamma_positive=0.0, gamma_negative=4.0, margin=0.05, alpha_1=0.0, alpha_2=1.75, beta_1=1.0, lambda_=None):
    log_p, log_q, p, q = probability_terms(x)
    present = q**gamma_positive * (-log_p + (alpha_1 - 1) * q + (alpha_2 - 0.5) * q**2)
    shifted = (p - margin).clamp(min=0)
    log_complement = log_q if margin == 0 else torch.log1p(-shifted)
    absent = shifted**gamma_negative * (-log_complement + (beta_1 - 1) * shifted)
    if lambda_ is not None:
        absent = absent * (lambda_ - p) * p**2 * (lambda_ - (1 - shifted))
    return w * (y * present + (1 - y) * absent)


def asymmetric(x, y, w, **focus):
    return polynomial(x, y, w, alpha_1=1.0, alpha_2=0.5, **focus)


def robust_asymmetric(x, y, w, **parameters):
    parameters["lambda_"] = parameters.pop("lambda", 1.5)
    return polynomial(x, y, w, **parameters)


def sigmoid_f1(x, y, w, beta=1.0, eta=0.0, of_probabilities=0):
    u = F.logsigmoid(x).exp() if of_probabilities else x
    _, _, step, rest = probability_terms(beta * (u + eta))
    tp, fp, fn = (w * step * y).sum(0), (w * step * (1 - y)).sum(0), (w * rest * y).sum(0)
    occurs, known = (w * y).sum(0) > 0, w.sum(0) > 0
    f1 = torch.where(occurs, 2 * tp / torch.where(occurs, 2 * tp + fp + fn, 1.0), 0.0)
    return torch.where(known, 1 - f1, 0.0)


def hbm(x, y, w, alpha=1.0, margin=0.1, bound=0.0):
    bound = torch.as_tensor(bound)
    total = 0.0
    for side, sign in ((y == 1, -1.0), (y == 0, 1.0)):
        side = side & (w > 0)
        exponents = sign * (x - bound)
        biases = []
        for row, members in zip(x, side):
            few = members.sum() < 2
            biases.append(torch.zeros(()) if few else row[members].std(unbiased=True).detach())
        kept = side & (torch.sigmoid(2 * exponents) > margin)
        biased = exponents + alpha * torch.stack(biases).unsqueeze(1)
        total = total + zero_bounded(torch.where(kept, biased + torch.log(w), -torch.inf))
    return total


def distributionally_robust(x, y, w, gamma_1=1.0, gamma_2=1.0):
    positive = -gamma_1 * x + torch.log(w * y)
    negative = gamma_1 * x + torch.log(w * (1 - y))
    pairs = (positive.unsqueeze(1) + negative.unsqueeze(0)).flatten(0, 1)
    constraint = gamma_2 * x + torch.log(w * (1 - y))
    return torch.logsumexp(torch.cat([torch.zeros_like(x[:1]), pairs, constraint]), dim=0)


def pairwise_hinge(x, y, w, margin=1.0):
    weights = (w * y).unsqueeze(2) * (w * (1 - y)).unsqueeze(1)
    return (weights * F.relu(margin - (x.unsqueeze(2) - x.unsqueeze(1)))).sum((1, 2))


def multi_label_softmax(x, y, w):
    """Each present label in turn, by a cross-entropy of a softmax over it and the absent labels."""
    values = []
    for row, present, weight in zip(x, y == 1, w):
        absent = ~present & (weight > 0)
        costs, total = torch.zeros(()) * row.sum(), 0.0
        for label in torch.nonzero(present & (weight > 0)).flatten():
            others = row[absent] + torch.log(weight[absent])
            softmax = torch.log_softmax(torch.cat([row[label : label + 1], others]), dim=0)
            costs, total = costs - weight[label] * softmax[0], total + weight[label]
        values.append(costs / total if total > 0 else costs)
    return torch.stack(values)


def label_correlation(x, y, w):
    p = F.logsigmoid(x).exp()
    weights = (w * y).unsqueeze(2) * (w * (1 - y)).unsqueeze(1)
    pairs = torch.exp(-(p.unsqueeze(2) - p.unsqueeze(1)))
    total = weights.sum((1, 2))
    return (weights * pairs).sum((1, 2)) / torch.where(total > 0, total, 1.0)


def disease_health(x, y, w, alpha=0.1, beta=0.3):
    total = w.sum(1)
    mean = bce(x, y, w).sum(1) / torch.where(total > 0, total, 1.0)
    return mean + alpha * multi_label_softmax(x, y, w) + beta * label_correlation(x, y, w)


def balanced_asymmetric(x, y, w, gamma_positive=0.0, gamma_negative=12.0, margin=0.05, smoothing=0.01):
    present = (1 - smoothing) * y + smoothing / x.shape[1]
    absent = 1 - y
    p = torch.sigmoid(x / x[w > 0].max())
    q = (1 - p + margin).clamp(max=1)
    loss = present * torch.log(p.clamp(min=1e-8)) + absent * torch.log(q.clamp(min=1e-8))
    focus = (1 - p * present - q * absent) ** (gamma_positive * present + gamma_negative * absent)
    return -w * focus * loss


# name in the file, loss, parameters, whether soft targets are allowed
LOSSES = [
    ("bce", bce, {}, True),
    ("weighted-bce", weighted_bce, {"positive_weight": 3.0}, True),
    ("weighted-bce", weighted_bce, {}, True),
    ("focal", focal, {"gamma": 2.0}, False),
    ("focal", focal, {"gamma": 1.5, "alpha": 0.25}, False),
    ("lsep", lsep, {}, False),
    ("zlpr", zlpr, {}, True),
    ("fzlpr", fzlpr, {"tau": 0.2}, True),
    ("fzlpr", fzlpr, {"tau": 0.7}, True),
    ("asymmetric", asymmetric, {}, False),
    ("asymmetric", asymmetric, {"gamma_positive": 1.0, "gamma_negative": 2.5, "margin": 0.0}, False),
    ("asymmetric-polynomial", polynomial, {}, False),
    (
        "asymmetric-polynomial",
        polynomial,
        {"gamma_positive": 1.25, "gamma_negative": 1.0, "margin": 0.2, "alpha_1": 2.0, "alpha_2": -0.5, "beta_1": 1.75},
        False,
    ),
    ("robust-asymmetric", robust_asymmetric, {}, False),
    ("robust-asymmetric", robust_asymmetric, {"lambda": 2.0, "gamma_negative": 1.0, "margin": 0.0, "beta_1": 0.5}, False),
    ("balanced-asymmetric", balanced_asymmetric, {}, False),
    ("balanced-asymmetric", balanced_asymmetric, {"gamma_positive": 1.5, "gamma_negative": 2.5, "smoothing": 0.0}, False),
    ("balanced-asymmetric", balanced_asymmetric, {"gamma_negative": 9.8, "margin": 0.2, "smoothing": 0.1}, False),
    ("pairwise-hinge", pairwise_hinge, {}, False),
    ("pairwise-hinge", pairwise_hinge, {"margin": 0.3}, False),
    ("multi-label-softmax", multi_label_softmax, {}, False),
    ("label-correlation", label_correlation, {}, False),
    ("disease-health", disease_health, {}, False),
    ("disease-health", disease_health, {"alpha": 2.0, "beta": 0.5}, False),
    ("sigmoid-f1", sigmoid_f1, {}, True),
    ("sigmoid-f1", sigmoid_f1, {"beta": 0.25, "eta": 1.0}, True),
    ("sigmoid-f1", sigmoid_f1, {"beta": 10.0, "eta": -0.5, "of_probabilities": 1}, True),
    ("hbm", hbm, {"bound": 0.0}, False),
    ("hbm", hbm, {"alpha": 0.5, "margin": 0.3, "bound": 0.75}, False),
    ("distributionally-robust", distributionally_robust, {}, False),
    ("distributionally-robust", distributionally_robust, {"gamma_1": 0.5, "gamma_2": 1.5}, False),
]


def cases():
    """Logits that bf16 and f16 hold exactly, so that one file serves every dtype."""
    generator = torch.Generator().manual_seed(593)

    def normal(*shape):
        x = 3 * torch.randn(*shape, generator=generator)
        return x.to(torch.bfloat16).to(torch.float16).double()

    def coin(*shape):
        return (torch.rand(*shape, generator=generator) < 0.4).double()

    yield "random", normal(4, 6), coin(4, 6), None
    extreme = [
        [9984, -9984, 200, -200, 30, -30],
        [-9984, 9984, -200, 200, -30, 30],
        [9984, 9984, -9984, -9984, 0, 0],
        [200, -30, 0.0078125, -0.0078125, 88, -104],
    ]
    extreme_targets = [[1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 1, 0], [1, 0, 0, 1, 0, 1]]
    yield "extreme", torch.tensor(extreme).double(), torch.tensor(extreme_targets).double(), None
    yield "all present, none present", normal(2, 4), torch.tensor([[1.0] * 4, [0.0] * 4]), None
    yield "one label", torch.tensor([[2.5], [-0.75], [40.0]]), torch.tensor([[1.0], [0.0], [0.0]]), None
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]]).double()
    yield "masked", normal(4, 5), coin(4, 5), mask
    weights = torch.tensor([[1, 0.5, 2, 0, 0.25], [0.125, 1, 1, 4, 0.5], [1, 1, 0, 0, 2]]).double()
    yield "weighted", normal(3, 5), coin(3, 5), weights
    yield "largest positive", normal(4, 6).abs(), coin(4, 6), None
    yield "largest positive, masked", normal(4, 5).abs(), coin(4, 5), mask
    yield "soft", normal(3, 5), torch.tensor([0.0, 0.25, 0.5, 0.875, 1.0]).repeat(3, 1), None


def evaluate(loss, parameters, logits, targets, mask):
    x = logits.clone().requires_grad_()
    if "bound" in parameters:
        parameters = parameters | {"bound": torch.tensor(parameters["bound"], requires_grad=True)}
    values = loss(x, targets, torch.ones_like(x) if mask is None else mask, **parameters)
    (upstream(values.numel()).reshape(values.shape) * values).sum().backward()
    assert torch.isfinite(values).all() and torch.isfinite(x.grad).all(), (loss.__name__, parameters)
    result = {"values": values.detach().flatten().tolist(), "gradient": x.grad.flatten().tolist()}
    if "bound" in parameters:
        result["bound_gradient"] = [parameters["bound"].grad.item()]
    return result


def main():
    out = {"torch": torch.__version__, "cases": {}, "losses": []}
    for name, logits, targets, mask in cases():
        out["cases"][name] = {
            "shape": list(logits.shape),
            "logits": logits.flatten().tolist(),
            "targets": targets.flatten().tolist(),
            "mask": None if mask is None else mask.flatten().tolist(),
        }
    for name, loss, parameters, soft in LOSSES:
        entry = {"loss": name, "parameters": parameters, "results": {}}
        for case, logits, targets, mask in cases():
            if case == "soft" and not soft:
                continue
            if loss is balanced_asymmetric and not case.startswith("largest positive"):
                continue
            entry["results"][case] = evaluate(loss, parameters, logits, targets, mask)
        out["losses"].append(entry)
    path = pathlib.Path(__file__).with_name("losses.json")
    path.write_text(json.dumps(out, separators=(",", ":")).replace('{"loss":', '\n{"loss":') + "\n")


if __name__ == "__main__":
    main()
