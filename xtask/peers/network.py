"""DenseNet121 with the paper's top network in PyTorch (channels-last) or ONNX Runtime: images per second.

usage: network.py train|frozen|infer BATCH STEPS THREADS f32|bf16

A step of training is forward, binary cross-entropy, backward and AdamW; `frozen` trains the top network only;
`infer` is ONNX Runtime's. The median of STEPS counts, two before them do not. Prints one JSON object.
"""

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time

import torch
import torchvision
from torch import nn

work, batch, steps, threads, dtype = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
torch.set_num_threads(threads)
torch.manual_seed(0)

CLASSES = 14
top = nn.Sequential(
    nn.Conv2d(1024, 256, 3), nn.BatchNorm2d(256), nn.ReLU(),
    nn.Conv2d(256, 128, 3), nn.BatchNorm2d(128), nn.ReLU(),
    nn.Flatten(), nn.Dropout(0.1),
    nn.Linear(128 * 3 * 3, 64), nn.BatchNorm1d(64), nn.ReLU(),
    nn.Linear(64, CLASSES), nn.BatchNorm1d(CLASSES),
)
backbone = nn.Sequential(torchvision.models.densenet121(weights=None).features, nn.ReLU())
network = nn.Sequential(backbone, top).to(memory_format=torch.channels_last)
images = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
targets = (torch.rand(batch, CLASSES) < 0.1).float()


def training():
    if work == "frozen":
        backbone.requires_grad_(False)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=4e-3)
    is_half = dtype == "bf16"

    def step():
        network.train()
        if work == "frozen":
            backbone.eval()
        with torch.autocast("cpu", dtype=torch.bfloat16) if is_half else contextlib.nullcontext():
            logits = network(images)
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def inference():
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.onnx")
        # Its log goes to the standard output, where the result belongs.
        with contextlib.redirect_stdout(sys.stderr):
            torch.onnx.export(network.eval(), (images,), path, dynamo=False, input_names=["images"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"images": images.contiguous().numpy()}
    return lambda: session.run(None, feed)


call = inference() if work == "infer" else training()
times = []
for _ in range(steps + 2):
    begin = time.perf_counter()
    call()
    times.append(time.perf_counter() - begin)
name = work if dtype == "f32" else f"{work} {dtype}"
print(json.dumps({name: batch / statistics.median(times[2:])}))
