"""DenseNet121 with the paper's top network in PyTorch on a CUDA device (channels-last): images per second and peak memory.

usage: gpu.py train|frozen|infer BATCH STEPS f32|bf16 eager|compiled

A step of training is forward, binary cross-entropy, backward and fused AdamW; `frozen` trains the top network only; f32
multiplies in TF32, bf16 is autocast. The median of groups of five steps counts. Prints one JSON object.
"""

import contextlib
import json
import statistics
import sys
import time

import torch
import torchvision
from torch import nn

work, batch, steps, dtype, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
torch.backends.cudnn.benchmark = True
device = torch.device("cuda")

CLASSES = 14
GROUP = 5
top = nn.Sequential(
    nn.Conv2d(1024, 256, 3), nn.BatchNorm2d(256), nn.ReLU(),
    nn.Conv2d(256, 128, 3), nn.BatchNorm2d(128), nn.ReLU(),
    nn.Flatten(), nn.Dropout(0.1),
    nn.Linear(128 * 3 * 3, 64), nn.BatchNorm1d(64), nn.ReLU(),
    nn.Linear(64, CLASSES), nn.BatchNorm1d(CLASSES),
)
backbone = nn.Sequential(torchvision.models.densenet121(weights=None).features, nn.ReLU())
network = nn.Sequential(backbone, top).to(device, memory_format=torch.channels_last)
images = torch.randn(batch, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
targets = (torch.rand(batch, CLASSES, device=device) < 0.1).float()
if work == "frozen":
    backbone.requires_grad_(False)
trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=4e-3, fused=True)
forward = torch.compile(network) if mode == "compiled" else network


def autocast():
    return torch.autocast("cuda", dtype=torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()


def step():
    if work == "infer":
        network.eval()
        with torch.inference_mode(), autocast():
            forward(images)
        return
    network.train()
    if work == "frozen":
        backbone.eval()
    with autocast():
        logits = forward(images)
    loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


for _ in range(GROUP):
    step()
torch.cuda.synchronize()
torch.cuda.reset_peak_memory_stats()
times = []
for _ in range(max(1, -(-steps // GROUP))):
    begin = time.perf_counter()
    for _ in range(GROUP):
        step()
    torch.cuda.synchronize()
    times.append((time.perf_counter() - begin) / GROUP)
print(json.dumps({
    "img_s": batch / statistics.median(times),
    "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
    "torch": torch.__version__,
}))
