"""Compares exported networks with their own logits in ONNX Runtime and PyTorch: `cargo xtask verify export` calls it.

usage: exported.py DIR    a folder that the example `exported` of cxr-exchange wrote
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

BOUND = 1e-4
# ONNX Runtime's antialiased filter is Pillow's but for a few of 65,536 pixels that are rounded to the next grey level, where
# the size is no power of two.
RESIZED_BOUND = 2e-2
folder = Path(sys.argv[1])
torch.set_num_threads(2)


def session(name):
    onnx.checker.check_model(str(folder / name), full_check=name == "network.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])


images = np.fromfile(folder / "images.f32", np.float32).reshape(-1, 3, 224, 224)
logits = np.fromfile(folder / "logits.f32", np.float32).reshape(len(images), -1)
network = session("network.onnx")
asks = (folder / "non_image.f32").exists()
given = np.fromfile(folder / "non_image.f32", np.float32).reshape(len(images), -1) if asks else None
feed = lambda batch, numbers: {"images": batch, "non_image": numbers} if asks else {"images": batch}
assert [i.name for i in network.get_inputs()] == (["images", "non_image"] if asks else ["images"]) and [o.name for o in network.get_outputs()] == ["logits"]
described = network.get_modelmeta().custom_metadata_map
assert json.loads(described["labels"]) == json.loads(described["cxr.card"])["labels"] and len(json.loads(described["labels"])) == logits.shape[1]

# Batches of different sizes, one after the other.
found, at = [], 0
for size in [1, 3] + [16] * len(images):
    if at < len(images):
        found.append(network.run(None, feed(images[at:at + size], given[at:at + size] if asks else None))[0])
        at += size
onnx_error = np.abs(np.concatenate(found) - logits).max()

sys.path.insert(0, str(folder / "torch"))
import model

net = model.load()
with torch.no_grad():
    if asks:
        # The module makes the same numbers of what is known, and the metadata say what each pair is.
        known = model.encode(json.loads((folder / "known.json").read_text()))
        assert torch.equal(known, torch.from_numpy(given)) and len(json.loads(described["non_image"])) * 2 == given.shape[1]
        found = torch.cat([net(*both) for both in zip(torch.from_numpy(images).split(16), known.split(16))])
    else:
        found = torch.cat([net(batch) for batch in torch.from_numpy(images).split(16)])
torch_error = np.abs(found.numpy() - logits).max()

# The whole way from bytes to probabilities.
whole, film_error, probability_error, exact_error = session("whole.onnx"), 0, 0, 0
for at, film in enumerate(json.loads((folder / "films.json").read_text())):
    pixels = np.fromfile(folder / f"film-{at}.u8", np.uint8).reshape(1, 1, film["height"], film["width"])
    numbers = np.array(film["non_image"], np.float32) if asks else None
    found, probabilities = whole.run(["logits", "probabilities"], feed(pixels, numbers))
    film_error = max(film_error, np.abs(found[0] - film["logits"]).max())
    if film["width"] == film["height"] == 512:
        exact_error = np.abs(found[0] - film["logits"]).max()
        probability_error = max(probability_error, np.abs(probabilities[0] - film["probabilities"]).max())
    ours = model.probabilities(torch.tensor([film["logits"]]))[0].numpy()
    probability_error = max(probability_error, np.abs(ours - film["probabilities"]).max())

print(f"{len(images)} images, logits {logits.min():.2f} to {logits.max():.2f}: ONNX Runtime {onnx_error:.1e}, PyTorch {torch_error:.1e}, "
      f"with the resizing inside {exact_error:.1e} ({film_error:.1e} of odd sizes), probabilities {probability_error:.1e}", flush=True)
# Written so that a NaN fails.
sys.exit(not (max(onnx_error, torch_error, exact_error, probability_error) <= BOUND and film_error <= RESIZED_BOUND))
