"""A backbone with a head in PyTorch (channels-last) or ONNX Runtime: images per second.

usage: network.py train|frozen|infer BATCH STEPS THREADS f32|bf16 BACKBONE wall|processor

DenseNet121 has the paper's top network, every other of torchvision's networks a dense layer on the means of its maps.

A step of training is forward, binary cross-entropy, backward and AdamW; `frozen` trains the top network only;
`infer` is ONNX Runtime's. The median of STEPS counts, two before them do not. Prints one JSON object.
With `processor` the seconds are those that processors worked for this process.
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

work, batch, steps, threads, dtype, name, clock = sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:8]
now = time.process_time if clock == "processor" else time.perf_counter
torch.set_num_threads(threads)
torch.manual_seed(0)

CLASSES = 14
paper_top = lambda: nn.Sequential(
    nn.Conv2d(1024, 256, 3), nn.BatchNorm2d(256), nn.ReLU(),
    nn.Conv2d(256, 128, 3), nn.BatchNorm2d(128), nn.ReLU(),
    nn.Flatten(), nn.Dropout(0.1),
    nn.Linear(128 * 3 * 3, 64), nn.BatchNorm1d(64), nn.ReLU(),
    nn.Linear(64, CLASSES), nn.BatchNorm1d(CLASSES),
)


def without_classifier(network):
    """From images to the last maps."""
    if hasattr(network, "features"):
        return network.features
    for layer in ("avgpool", "dropout", "fc"):
        if hasattr(network, layer):
            setattr(network, layer, nn.Identity())
    return network


if name == "densenet121":
    backbone, top = nn.Sequential(torchvision.models.densenet121(weights=None).features, nn.ReLU()), paper_top()
else:
    options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
    whole = torchvision.models.get_model(name, weights=None, **options)
    last = [module for module in whole.modules() if isinstance(module, nn.Linear)]
    # The classifier's first dense layer reads the features; VGG's reads 7×7 pixels of them.
    features = 512 if name.startswith("vgg") else (last[-1] if name.startswith("convnext") else last[0]).in_features
    backbone, top = without_classifier(whole), nn.Linear(features, CLASSES)
    if hasattr(whole, "features"):
        top = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), top)
    else:
        # These flatten what is behind their last maps themselves.
        whole.avgpool = nn.AdaptiveAvgPool2d(1)
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
    begin = now()
    call()
    times.append(now() - begin)
label = work if dtype == "f32" else f"{work} {dtype}"
label = label if name == "densenet121" else f"{label} {name}"
print(json.dumps({label: batch / statistics.median(times[2:])}))
