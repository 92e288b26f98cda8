"""The heads of other systems from PyTorch in double precision: makes heads.json.

Each head is written from its paper's formula in the most direct form (attention as weighted maps for each label, a softmax over
places), not in the form of the crate.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

from golden import parameter, summary, tensor

torch.set_num_threads(1)
IMAGES, CHANNELS, HEIGHT, WIDTH, LABELS = 3, 10, 5, 4, 6


def csra(w, x, _, heads=1, **options):
    temperatures = {1: [1], 2: [1, 99], 4: [1, 2, 4, 99], 6: [1, 2, 3, 4, 5, 99], 8: [1, 2, 3, 4, 5, 6, 7, 99]}[heads]
    logits = 0
    for head, temperature in enumerate(temperatures):
        m = w(f"heads.{head}.weight", [LABELS, CHANNELS, 1, 1])
        scores = (F.conv2d(x, m) / torch.norm(m, dim=1, keepdim=True).transpose(0, 1)).flatten(2)
        base = scores.mean(2)
        if temperature == 99:
            attended = scores.max(2).values
        else:
            attended = (F.softmax(temperature * scores, dim=2) * scores).sum(2)
        logits = logits + base + options["lambda"] * attended
    return logits


def cral(w, x, _, hidden, attention):
    a = F.relu(F.conv2d(x, w("attention1.weight", [hidden, CHANNELS, 1, 1]), w("attention1.bias", [hidden])))
    a = F.relu(F.conv2d(a, w("attention2.weight", [hidden, hidden, 3, 3]), w("attention2.bias", [hidden]), padding=1))
    a = F.conv2d(a, w("attention3.weight", [LABELS, hidden, 1, 1]), w("attention3.bias", [LABELS]))
    if attention == "sigmoid":
        a = torch.sigmoid(a)
    else:
        a = F.softmax(a.flatten(2), dim=2).reshape(a.shape) * HEIGHT * WIDTH
    weighted = (1 + a.unsqueeze(2)) * x.unsqueeze(1)
    pooled = weighted.mean((3, 4))
    weight = w("classifier.weight", [LABELS, CHANNELS, 1, 1]).reshape(1, LABELS, CHANNELS)
    return (pooled * weight).sum(2) + w("classifier.bias", [LABELS])


def transition(w, x, training, channels, kernel, pooling, sharpness=10.0):
    x = F.conv2d(x, w("transition.weight", [channels, CHANNELS, kernel, kernel]), padding=kernel // 2)
    of = lambda what: w(f"norm.{what}", [channels])
    mean, variance = of("running_mean").detach().clone(), of("running_var").detach().clone()
    x = F.relu(F.batch_norm(x, mean, variance, of("weight"), of("bias"), training, 0.1, 1e-5))
    places = x.flatten(2)
    if pooling == "mean":
        pooled = places.mean(2)
    elif pooling == "max":
        pooled = places.max(2).values
    else:
        number = torch.log(torch.tensor(float(HEIGHT * WIDTH), dtype=x.dtype))
        pooled = (torch.logsumexp(sharpness * places, dim=2) - number) / sharpness
    return F.linear(pooled, w("dense.weight", [LABELS, channels]), w("dense.bias", [LABELS]))


def dense(w, x, training, hidden, dropout=0.0):
    x, width = x.mean((2, 3)), CHANNELS
    for at, to in enumerate(hidden):
        x = F.linear(x, w(f"hidden.{at}.dense.weight", [to, width]), w(f"hidden.{at}.dense.bias", [to]))
        of = lambda what: w(f"hidden.{at}.norm.{what}", [to])
        mean, variance = of("running_mean").detach().clone(), of("running_var").detach().clone()
        x = F.relu(F.batch_norm(x, mean, variance, of("weight"), of("bias"), training, 0.1, 1e-5))
        width = to
    return F.linear(x, w("dense.weight", [LABELS, width]), w("dense.bias", [LABELS]))


CASES = [
    ("csra", csra, {"heads": 1, "lambda": 0.1}),
    ("csra", csra, {"heads": 4, "lambda": 0.5}),
    ("csra", csra, {"heads": 8, "lambda": 0.3}),
    ("cral", cral, {"hidden": 7, "attention": "sigmoid"}),
    ("cral", cral, {"hidden": 12, "attention": "softmax"}),
    ("transition", transition, {"channels": 9, "kernel": 3, "pooling": "log-sum-exp", "sharpness": 10.0}),
    ("transition", transition, {"channels": 9, "kernel": 1, "pooling": "log-sum-exp", "sharpness": 0.5}),
    ("transition", transition, {"channels": 5, "kernel": 1, "pooling": "mean"}),
    ("transition", transition, {"channels": 5, "kernel": 5, "pooling": "max"}),
    ("dense", dense, {"hidden": [11]}),
    ("dense", dense, {"hidden": [12, 8]}),
]


def run(case, head, options, dtype):
    leaves = {}

    def weights(name, shape):
        if name not in leaves:
            leaves[name] = parameter(name, shape, dtype).requires_grad_("running" not in name)
        return leaves[name]

    found = {}
    for training in (False, True):
        kind = "training" if training else "evaluation"
        maps = tensor(f"{case} maps", [IMAGES, CHANNELS, HEIGHT, WIDTH], 2.0, dtype=dtype).requires_grad_()
        logits = head(weights, maps, training, **options)
        (logits * tensor(f"{case} cotangent", list(logits.shape), dtype=dtype)).sum().backward()
        found[f"logits in {kind}"] = logits
        found[f"maps gradient in {kind}"] = maps.grad
        if training:
            found.update({f"{name} gradient": leaf.grad for name, leaf in leaves.items() if leaf.requires_grad})
        for leaf in leaves.values():
            leaf.grad = None
    return found


def rounded(found):
    return json.loads(json.dumps(found), parse_float=lambda s: float(f"{float(s):.9g}"))


cases = []
for number, (name, head, options) in enumerate(CASES):
    case = f"{name} {number}"
    exact, single = run(case, head, options, torch.float64), run(case, head, options, torch.float32)
    expected = {key: summary(f"{case} {key}", exact[key], single[key]) for key in exact}
    cases.append({"case": case, "head": name, "options": options, "expected": rounded(expected)})

maps = {"images": IMAGES, "channels": CHANNELS, "height": HEIGHT, "width": WIDTH, "labels": LABELS}
path = pathlib.Path(__file__).with_name("heads.json")
text = json.dumps({"torch": torch.__version__, "maps": maps, "cases": cases}, separators=(",", ":"))
path.write_text(text.replace('},"', '},\n"') + "\n")
print(path, len(cases), "cases")
