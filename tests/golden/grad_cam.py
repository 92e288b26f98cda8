"""Heat maps of a small DenseNet and top network by pytorch-grad-cam: Grad-CAM of each label, raw and as the library returns it, and
the other methods' raw maps."""

import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from golden import parameter, tensor

SIDE, LABELS = 224, 3


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torchvision.models.DenseNet(growth_rate=4, block_config=(1, 2, 1, 2), num_init_features=8).features
        self.relu = nn.ReLU()
        norm = {"eps": 1e-3, "momentum": 0.01}
        self.top = nn.Module()
        self.top.conv1, self.top.norm1 = nn.Conv2d(self.features.norm5.num_features, 8, 3), nn.BatchNorm2d(8, **norm)
        self.top.conv2, self.top.norm2 = nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6, **norm)
        self.top.dense1, self.top.norm3 = nn.Linear(54, 10), nn.BatchNorm1d(10, **norm)
        self.top.dense2, self.top.norm4 = nn.Linear(10, LABELS), nn.BatchNorm1d(LABELS, **norm)
        self.double().eval()
        with torch.no_grad():
            for name, value in self.state_dict().items():
                if not name.endswith("num_batches_tracked"):
                    value.copy_(parameter(name, list(value.shape)))

    def forward(self, images):
        top = self.top
        maps = top.norm1(top.conv1(self.relu(self.features(images)))).relu()
        maps = top.norm2(top.conv2(maps)).relu()
        return top.norm4(top.dense2(top.norm3(top.dense1(maps.flatten(1))).relu()))


class KeepRaw:
    """Remembers the map before the library cuts, scales and resizes it."""

    def get_cam_image(self, *arguments, **named):
        self.raw = super().get_cam_image(*arguments, **named)
        return self.raw


class KeepGradCAM(KeepRaw, GradCAM):
    pass


class KeepGradCAMPlusPlus(KeepRaw, GradCAMPlusPlus):
    pass


class KeepLayerCAM(KeepRaw, LayerCAM):
    pass


class KeepHiResCAM(KeepRaw, HiResCAM):
    pass


METHODS = {"grad-cam++": KeepGradCAMPlusPlus, "layer-cam": KeepLayerCAM, "hires-cam": KeepHiResCAM}


def heat_map(network, image, label, method=KeepGradCAM):
    """The map cut at zero, and as the library returns it; the label's logit."""
    with method(model=network, target_layers=[network.relu]) as cam:
        returned = cam(input_tensor=image, targets=[ClassifierOutputTarget(label)])[0]
        return np.maximum(cam.raw[0], 0), returned, float(network(image)[0, label].detach())


def other(network, image, label, method):
    raw, _, _ = heat_map(network, image, label, method)
    single, _, _ = heat_map(Classifier().float(), image.float(), label, method)
    return {"raw": [float(value) for value in raw.reshape(-1)],
            "torch_f32_error": float(np.linalg.norm(single - raw) / np.linalg.norm(raw))}


def main():
    network = Classifier()
    image = tensor("image", [1, 3, SIDE, SIDE])
    picks = [(i * 37) % SIDE * SIDE + (i * 91) % SIDE for i in range(64)]
    maps = []
    for label in range(LABELS):
        raw, returned, logit = heat_map(network, image, label)
        single, single_returned, _ = heat_map(Classifier().float(), image.float(), label)
        maps.append({
            "logit": logit,
            "raw": [float(value) for value in raw.reshape(-1)],
            "torch_f32_error": float(np.linalg.norm(single - raw) / np.linalg.norm(raw)),
            "returned_at": picks,
            "returned": [float(returned.reshape(-1)[place]) for place in picks],
            "torch_f32_returned_error": float(np.abs(single_returned - returned).max()),
            "methods": {name: other(network, image, label, method) for name, method in METHODS.items()},
        })
    Path(__file__).with_suffix(".json").write_text(json.dumps({"shape": list(raw.shape), "labels": maps}, indent=1) + "\n")


if __name__ == "__main__":
    main()
