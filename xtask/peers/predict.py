"""Radiographs to a table of probabilities with Pillow and ONNX Runtime, as one would write it.

usage: predict.py export NETWORK.onnx        DenseNet121 with the paper's top network, random weights (needs PyTorch)
       predict.py run NETWORK.onnx DIR OUT.csv BATCH THREADS

Files are decoded on THREADS threads, ahead of the network, which runs on as many.
"""

import csv
import os
import sys
from concurrent.futures import ThreadPoolExecutor

work, network = sys.argv[1], sys.argv[2]

if work == "export":
    import torch
    import torchvision
    from torch import nn

    torch.manual_seed(0)
    top = nn.Sequential(
        nn.Conv2d(1024, 256, 3), nn.BatchNorm2d(256), nn.ReLU(),
        nn.Conv2d(256, 128, 3), nn.BatchNorm2d(128), nn.ReLU(),
        nn.Flatten(), nn.Linear(128 * 3 * 3, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 14), nn.BatchNorm1d(14),
    )
    backbone = nn.Sequential(torchvision.models.densenet121(weights=None).features, nn.ReLU())
    images = torch.randn(2, 3, 224, 224)
    torch.onnx.export(
        nn.Sequential(backbone, top).eval(), (images,), network, dynamo=False, input_names=["images"],
        dynamic_axes={"images": {0: "n"}},
    )
    sys.exit()

import numpy as np
import onnxruntime
from PIL import Image

folder, out, batch, threads = sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6])
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]


def prepared(name):
    image = Image.open(os.path.join(folder, name)).convert("L").resize((256, 256), Image.BICUBIC)
    grey = np.asarray(image.crop((16, 16, 240, 240)), np.float32) / 255
    return (np.repeat(grey[None], 3, 0) - MEAN) / STD


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
names = sorted(name for name in os.listdir(folder) if name.endswith(".png"))
with ThreadPoolExecutor(threads) as pool, open(out, "w", newline="") as file:
    table = csv.writer(file)
    waiting = []
    for first in range(0, len(names), batch):
        waiting.append((names[first:first + batch], [pool.submit(prepared, name) for name in names[first:first + batch]]))
    for batch_names, images in waiting:
        images = np.stack([image.result() for image in images])
        (logits,) = session.run(None, {"images": images})
        for name, row in zip(batch_names, 1 / (1 + np.exp(-logits))):
            table.writerow([name, *row])
