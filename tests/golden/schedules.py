"""Learning rates by PyTorch's schedulers: makes schedules.json."""

import json
import pathlib
import warnings

import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR, StepLR

warnings.simplefilter("ignore")  # SequentialLR calls a deprecated form of step() itself.


def rates(rate, n, main, warmup=0):
    """The rates of `n` steps (or epochs) of the scheduler `main` makes, after a warm-up."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    if warmup:
        rise = LinearLR(optimiser, start_factor=1 / (warmup + 1), total_iters=warmup)
        scheduler = SequentialLR(optimiser, [rise, main(optimiser)], milestones=[warmup])
    else:
        scheduler = main(optimiser)
    result = []
    for _ in range(n):
        result.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return result


EPOCHS, STEPS = 6, 7
N = EPOCHS * STEPS
cases = [
    ({"cosine": {"rate": 1e-5, "floor": 1e-7}}, rates(1e-5, N, lambda o: CosineAnnealingLR(o, N, 1e-7))),
    (
        {"cosine": {"rate": 0.1, "floor": 1e-3, "warmup": 9}},
        rates(0.1, N, lambda o: CosineAnnealingLR(o, N - 9, 1e-3), 9),
    ),
    (
        {"cosine": {"rate": 0.1, "floor": 0.0, "per": "epoch"}},
        rates(0.1, EPOCHS, lambda o: CosineAnnealingLR(o, EPOCHS, 0.0)),
    ),
    (
        {"cosine": {"rate": 0.1, "floor": 0.01, "warmup": 2, "per": "epoch"}},
        rates(0.1, EPOCHS, lambda o: CosineAnnealingLR(o, EPOCHS - 2, 0.01), 2),
    ),
    ({"step": {"rate": 0.1, "factor": 0.3, "every": 2}}, rates(0.1, EPOCHS, lambda o: StepLR(o, 2, 0.3))),
    (
        {"step": {"rate": 0.1, "factor": 0.5, "every": 8, "warmup": 3, "per": "step"}},
        rates(0.1, N, lambda o: StepLR(o, 8, 0.5), 3),
    ),
    ({"constant": {"rate": 0.02, "warmup": 5}}, rates(0.02, N, lambda o: ConstantLR(o, 1.0), 5)),
]
golden = {
    "torch": torch.__version__,
    "epochs": EPOCHS,
    "steps": STEPS,
    "cases": [{"schedule": schedule, "rates": expected} for schedule, expected in cases],
}
path = pathlib.Path(__file__).with_name("schedules.json")
path.write_text(json.dumps(golden, indent=1) + "\n")
print(path)
