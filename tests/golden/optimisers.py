"""Parameters after fifty steps of AdamW, Adam, RMSprop and SGD with groups, clipping and accumulation: makes optimisers.json."""

import fnmatch
import json
import pathlib

import torch

from golden import summary, tensor

STEPS = 50
SHAPES = {
    "features.conv0.weight": [4, 3, 3, 3],
    "features.norm0.bias": [4],
    "features.norm0.weight": [4],
    "features.stem.weight": [3, 3],
    "loss.0": [],
    "top.dense1.bias": [5],
    "top.dense1.weight": [5, 8],
}
GROUPS = [
    {"parameters": "features.stem.*", "frozen": True},
    {"parameters": "*.bias", "learning_rate_factor": 2.0, "weight_decay": 0.0},
    {"parameters": "features.*", "learning_rate_factor": 0.1},
    {"parameters": "loss.*", "weight_decay": 0.3},
]
ADAMW = {"kind": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 4e-3}
ADAM = {**ADAMW, "kind": "adam", "weight_decay": 0.0}
RMSPROP = {"kind": "rmsprop", "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0}
SGD = {"kind": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 1e-2}
CASES = [
    {"name": "AdamW", "optimiser": ADAMW, "rate": 1e-2},
    {"name": "AdamW, groups, clipping", "optimiser": ADAMW, "rate": 1e-2, "groups": GROUPS, "clip_norm": 5.0},
    {"name": "AdamW, accumulation", "optimiser": ADAMW, "rate": 3e-3, "groups": GROUPS, "clip_norm": 3.0, "batches": [4, 4, 3]},
    {"name": "Adam", "optimiser": ADAM, "rate": 1e-2},
    {"name": "Adam, decay, groups, clipping", "optimiser": {**ADAM, "eps": 1e-3, "weight_decay": 0.1}, "rate": 1e-2, "groups": GROUPS, "clip_norm": 5.0},
    {"name": "RMSprop", "optimiser": RMSPROP, "rate": 1e-3},
    {"name": "RMSprop, momentum, decay, groups, clipping, accumulation", "optimiser": {**RMSPROP, "alpha": 0.9, "eps": 1e-7, "momentum": 0.5, "weight_decay": 0.1}, "rate": 1e-3, "groups": GROUPS, "clip_norm": 3.0, "batches": [4, 1]},
    {"name": "SGD without momentum", "optimiser": {**SGD, "momentum": 0.0}, "rate": 1e-2},
    {"name": "SGD", "optimiser": SGD, "rate": 1e-2},
    {"name": "SGD, groups, clipping", "optimiser": SGD, "rate": 1e-2, "groups": GROUPS, "clip_norm": 5.0},
    {"name": "Nesterov, groups, clipping, accumulation", "optimiser": {**SGD, "nesterov": True}, "rate": 1e-2, "groups": GROUPS, "clip_norm": 3.0, "batches": [4, 1]},
]


def loss_of(parameters, name, step, batch, dtype):
    """Its gradient is the formula's tensor, larger in some steps than in others, plus a tenth of the parameter."""
    size = 0.2 + 0.4 * (step % 5)
    slope = tensor(f"slope of {name} in batch {batch} of step {step}", SHAPES[name], size, dtype=dtype)
    return (parameters[name] * slope + 0.05 * parameters[name] ** 2).sum()


def run(case, dtype):
    parameters = {name: tensor(name, shape, dtype=dtype).requires_grad_() for name, shape in SHAPES.items()}
    torch_groups, frozen = {}, set()
    for name in SHAPES:
        group = next((group for group in case.get("groups", []) if fnmatch.fnmatchcase(name, group["parameters"])), {})
        if group.get("frozen"):
            frozen.add(name)
            parameters[name].requires_grad_(False)
            continue
        key = json.dumps(group)
        settings = {"params": [], "lr": case["rate"] * group.get("learning_rate_factor", 1.0)}
        if "weight_decay" in group:
            settings["weight_decay"] = group["weight_decay"]
        torch_groups.setdefault(key, settings)["params"].append(parameters[name])
    optimiser = case["optimiser"]
    if optimiser["kind"] in ("adamw", "adam"):
        betas = (optimiser["beta1"], optimiser["beta2"])
        make = torch.optim.AdamW if optimiser["kind"] == "adamw" else torch.optim.Adam
        optimiser = make(list(torch_groups.values()), betas=betas, eps=optimiser["eps"], weight_decay=optimiser["weight_decay"])
    elif optimiser["kind"] == "rmsprop":
        kept = {key: optimiser[key] for key in ("alpha", "eps", "momentum", "weight_decay")}
        optimiser = torch.optim.RMSprop(list(torch_groups.values()), lr=case["rate"], **kept)
    else:
        kept = {key: optimiser[key] for key in ("momentum", "nesterov", "weight_decay")}
        optimiser = torch.optim.SGD(list(torch_groups.values()), lr=case["rate"], **kept)
    batches = case.get("batches", [1])
    norms = []
    for step in range(STEPS):
        optimiser.zero_grad()
        for batch, images in enumerate(batches):
            loss = sum(loss_of(parameters, name, step, batch, dtype) for name in SHAPES if name not in frozen)
            (loss * (images / sum(batches))).backward()
        trained = [parameters[name] for name in SHAPES if name not in frozen]
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained, case.get("clip_norm", float("inf")))))
        optimiser.step()
    return norms, parameters


def with_summaries(case):
    """RMSprop divides by the root of a mean of squares that begins at 0: single precision is felt, PyTorch's too."""
    norms, exact = run(case, torch.float64)
    single = run(case, torch.float32)[1] if case["optimiser"]["kind"] == "rmsprop" else {}
    expected = {name: summary(f"{name} after {case['name']}", value, single.get(name)) for name, value in exact.items()}
    return {**case, "norms": norms, "expected": expected}


cases = [with_summaries(case) for case in CASES]
for case in cases:
    if "clip_norm" in case:
        clipped = sum(norm > case["clip_norm"] for norm in case["norms"])
        assert 0 < clipped < STEPS, (case["name"], clipped)
path = pathlib.Path(__file__).with_name("optimisers.json")
path.write_text(json.dumps({"torch": torch.__version__, "steps": STEPS, "shapes": SHAPES, "cases": cases}, indent=1) + "\n")
print(path)
