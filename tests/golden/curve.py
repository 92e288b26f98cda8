"""Two hundred steps on phantoms: makes curve.png and curve.json.

cargo run --release -p cxr -- phantoms --experiment tests/golden/curve.toml --data FOLDER
python3 tests/golden/curve.py FOLDER

curve.png has the phantoms, training images first, one above the other; curve.json their labels (how each was
taken: a small network learns that in few steps, where findings would leave the AUCs to chance), and what a
small DenseNet does that starts from the weights of golden.py: the loss of every step, and the AUCs of the test
images after the last, in single precision by one and two threads and in double precision. Batches are large
and the rate falls to 0 because PyTorch's own AUCs are then the same within 0.002 for all three; with batches of
16 at a constant rate they are 0.02 apart.
"""

import csv
import json
import pathlib
import sys

import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn

from golden import parameter, uniform

SIDE, BATCH, STEPS, RATE = 40, 48, 200, 1e-3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Net(nn.Module):
    """The network of curve.toml."""

    def __init__(self, n_labels, dtype):
        super().__init__()
        net = torchvision.models.DenseNet(growth_rate=8, block_config=(2, 3), num_init_features=16, bn_size=4)
        self.features, self.top = net.features, nn.Module()
        norm = {"eps": 1e-3, "momentum": 0.1}
        maps = self.features.norm5.num_features
        self.top.conv1, self.top.norm1 = nn.Conv2d(maps, 16, 3), nn.BatchNorm2d(16, **norm)
        self.top.conv2, self.top.norm2 = nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16, **norm)
        self.top.dense1, self.top.norm3 = nn.Linear(16, 16), nn.BatchNorm1d(16, **norm)
        self.top.dense2, self.top.norm4 = nn.Linear(16, n_labels), nn.BatchNorm1d(n_labels, **norm)
        self.to(dtype)
        with torch.no_grad():
            for name, value in self.state_dict().items():
                if not name.endswith("num_batches_tracked"):
                    value.copy_(parameter(name, list(value.shape), dtype))

    def forward(self, images):
        top = self.top
        maps = self.features(images).relu()
        maps = top.norm2(top.conv2(top.norm1(top.conv1(maps)).relu())).relu()
        return top.norm4(top.dense2(top.norm3(top.dense1(maps.flatten(1))).relu()))


def phantoms(folder):
    """Grey values, labels and the number of training images."""
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.reader(file))
    labels_of = {row[0]: [int(value) for value in row[2:]] for row in rows[1:]}
    lists = [(folder / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt")]
    names = [name for names in lists for name in sorted(names)]
    images = [Image.open(folder / "images" / name).convert("L").resize((SIDE, SIDE), Image.BICUBIC) for name in names]
    labels = [labels_of[name] for name in names]
    return np.stack([np.asarray(image) for image in images]), np.array(labels), len(lists[0])


def tensors(pixels, dtype):
    """Normalised as single precision has it."""
    grey = pixels.astype(np.float32)[:, None] / np.float32(255)
    mean, std = (np.array(values, np.float32)[None, :, None, None] for values in (MEAN, STD))
    return torch.from_numpy((grey - mean) / std).to(dtype)


def train(pixels, labels, n_train, dtype, threads):
    torch.set_num_threads(threads)
    images, targets = tensors(pixels, dtype), torch.from_numpy(labels).to(dtype)
    net = Net(labels.shape[1], dtype).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS, 0.0)
    losses, steps_an_epoch = [], n_train // BATCH
    for step in range(STEPS):
        epoch, batch = divmod(step, steps_an_epoch)
        order = np.argsort(uniform(f"order of epoch {epoch}", n_train), kind="stable")
        picked = torch.from_numpy(order[batch * BATCH : (batch + 1) * BATCH])
        loss = nn.functional.binary_cross_entropy_with_logits(net(images[picked]), targets[picked])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        logits = net.eval()(images[n_train:]).double().numpy()
    truth = labels[n_train:]
    aucs = [roc_auc_score(truth[:, label], logits[:, label]) for label in range(labels.shape[1])]
    return {"losses": losses, "aucs": aucs}


here = pathlib.Path(__file__)
pixels, labels, n_train = phantoms(pathlib.Path(sys.argv[1]))
Image.fromarray(pixels.reshape(-1, SIDE)).save(here.with_suffix(".png"), optimize=True)
golden = {
    "torch": torch.__version__,
    "side": SIDE,
    "batch": BATCH,
    "steps": STEPS,
    "n_train": n_train,
    "labels": ["".join(map(str, row)) for row in labels],
    "f32_one_thread": train(pixels, labels, n_train, torch.float32, 1),
    "f32_two_threads": train(pixels, labels, n_train, torch.float32, 2),
    "f64": train(pixels, labels, n_train, torch.float64, 2),
}
here.with_suffix(".json").write_text(json.dumps(golden, indent=1) + "\n")


def windows(run):
    return np.array(run["losses"]).reshape(-1, 10).mean(1)


exact = golden["f64"]
for key in ("f32_one_thread", "f32_two_threads"):
    apart = np.abs(windows(golden[key]) / windows(exact) - 1)
    auc = np.mean(golden[key]["aucs"]) - np.mean(exact["aucs"])
    print(f"{key} against f64: loss of ten steps {apart.max():.2e}, mean AUC {auc:+.4f}")
print("f64:", np.round(windows(exact), 4), "mean AUC", np.mean(exact["aucs"]))
