"""Networks of other people's layouts with random weights, imported by `cxr` and held to their authors' logits in double
precision, as far as PyTorch's own single precision keeps to them.

usage: imported.py CXR DIR [CASE ...]    `cargo xtask verify import` calls it

CXR is the program, DIR an empty folder. Needs torch, torchvision, timm, torchxrayvision, safetensors, Pillow.
"""

import csv
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision
from PIL import Image

warnings.filterwarnings("ignore")
BOUND = 1e-4
CXR, FOLDER = sys.argv[1], Path(sys.argv[2])
torch.set_num_threads(2)
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
# −1024 to 1024, on one channel.
XRAY_VISION = ([0.5], [1 / 2048])
MEDICAL_MAE = ([0.5056] * 3, [0.252] * 3)


def films(side):
    """PNG files of the very size that the network sees, so that nobody resizes them, and their grey values."""
    folder = FOLDER / f"films-{side}"
    rng = np.random.default_rng(0)
    if not folder.exists():
        folder.mkdir()
        for at in range(6):
            y, x = np.mgrid[0:side, 0:side] / side
            wave = 0.5 + 0.3 * np.sin(20 * rng.random() * x + 5 * rng.random()) * np.cos(15 * rng.random() * y)
            grey = (255 * np.clip(wave + 0.15 * rng.random((side, side)), 0, 1)).astype(np.uint8)
            Image.fromarray(grey).save(folder / f"{at}.png")
    return folder, np.stack([np.asarray(Image.open(folder / f"{at}.png")) for at in range(6)])


def settle(net, normalisation, side=224):
    """Running statistics that are those of the films, so that no network's values grow from layer to layer."""
    torch.manual_seed(1)
    net.train()
    norms = [(module, module.momentum) for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module, _ in norms:
        module.momentum = None
    with torch.no_grad():
        net(normalised(films(side)[1], *normalisation))
    for module, momentum in norms:
        module.momentum = momentum
    return net.eval()


def normalised(grey, mean, std):
    x = torch.from_numpy(grey.astype(np.float32) / 255)[:, None].expand(-1, len(mean), -1, -1)
    column = lambda values: torch.tensor(values).reshape(1, -1, 1, 1)
    return (x - column(mean)) / column(std)


class Wrapped(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.module = net


def torchvision_case(name, save, arguments=(), net=None, side=224):
    def case():
        network = net() if net else getattr(torchvision.models, name)(weights=None, num_classes=3)
        settle(network, IMAGENET, side)
        return network, save, ["--architecture", name, "--labels", "Mass,Nodule,Hernia", *arguments], IMAGENET, side
    return case


def timm_case(theirs, ours):
    return torchvision_case(ours, as_safetensors, net=lambda: timm.create_model(theirs, num_classes=3))


def as_state(net, path):
    torch.save(net.state_dict(), path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_legacy(net, path):
    torch.save(net.state_dict(), path.with_suffix(".pth"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pth")


def as_checkpoint(net, path):
    """As a training with DataParallel leaves it, in half precision."""
    state = {key: value.half() if value.is_floating_point() else value for key, value in Wrapped(net).state_dict().items()}
    for key, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(value.half())
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}, "best": 0.8}, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def as_module(net, path):
    torch.save(net, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def as_legacy_module(net, path):
    torch.save(net, path.with_suffix(".pt"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pt")


def as_safetensors(net, path):
    safetensors.torch.save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def xray_vision(training, save):
    """torchxrayvision's DenseNet121 as its authors saved it: the module itself; probabilities by its own op_norm."""
    def case():
        import torchxrayvision

        net = settle(torchxrayvision.models.DenseNet(num_classes=18, in_channels=1), XRAY_VISION)
        points = torchxrayvision.models.model_urls[training]["op_threshs"]
        labels = torchxrayvision.models.model_urls[training]["labels"]
        net.cxr_expected = lambda logits: torchxrayvision.models.op_norm(torch.sigmoid(logits), torch.tensor(points))
        net.cxr_kept = [at for at, label in enumerate(labels) if label]
        arguments = ["--architecture", "torchxrayvision-densenet121", "--training", training]
        return net, save, arguments, XRAY_VISION, 224
    return case


def medical_mae():
    """As its main_finetune_chestxray.py leaves it: torchvision's DenseNet121 under `model`, beside what it trained with."""
    import argparse

    net = settle(torchvision.models.densenet121(weights=None, num_classes=14), MEDICAL_MAE)

    def save(net, path):
        torch.save({"model": net.state_dict(), "optimizer": {"state": {}}, "epoch": 74, "args": argparse.Namespace(lr=1e-3)}, path.with_suffix(".pth"))
        return path.with_suffix(".pth")

    return net, save, ["--architecture", "medical-mae-densenet121"], MEDICAL_MAE, 224


CASES = {
    "densenet121, state dictionary": torchvision_case("densenet121", as_state),
    "densenet121, before PyTorch 1.6": torchvision_case("densenet121", as_legacy),
    "resnet50, checkpoint in half precision": torchvision_case("resnet50", as_checkpoint),
    "resnet18, module": torchvision_case("resnet18", as_module),
    "mobilenet_v2, safetensors": torchvision_case("mobilenet_v2", as_safetensors),
    "efficientnet_b0, state dictionary": torchvision_case("efficientnet_b0", as_state),
    "regnet_y_400mf, safetensors": torchvision_case("regnet_y_400mf", as_safetensors),
    "inception_v3": torchvision_case("inception_v3", as_state, net=lambda: torchvision.models.inception_v3(
        weights=None, num_classes=3, aux_logits=False, transform_input=True)),
    "timm densenet121": timm_case("densenet121", "densenet121"),
    "timm resnet18": timm_case("resnet18", "resnet18"),
    "timm efficientnet_b0": timm_case("efficientnet_b0", "efficientnet_b0"),
    "timm efficientnet_b2": timm_case("efficientnet_b2", "efficientnet_b2"),
    "timm mobilenetv2_100": timm_case("mobilenetv2_100", "mobilenet_v2"),
    "timm regnety_004": timm_case("regnety_004", "regnet_y_400mf"),
    "timm regnetx_008": timm_case("regnetx_008", "regnet_x_800mf"),
    "torchxrayvision all, module": xray_vision("all", as_module),
    "torchxrayvision nih, module before PyTorch 1.6": xray_vision("nih", as_legacy_module),
    "torchxrayvision mimic_ch, state dictionary": xray_vision("mimic_ch", as_state),
    "medical_mae": lambda: medical_mae(),
}


def run(*arguments):
    done = subprocess.run([CXR, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"cxr {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}")
    return done.stdout


failed = False
for at, (name, case) in enumerate(CASES.items()):
    if sys.argv[3:] and name not in sys.argv[3:]:
        continue
    net, save, arguments, (mean, std), side = case()
    folder, grey = films(side)
    extras = {key: net.__dict__.pop(key) for key in ("cxr_expected", "cxr_kept") if key in net.__dict__}
    weights = save(net, FOLDER / f"case-{at}")
    with torch.no_grad():
        single = net(normalised(grey, mean, std))
        expected = net.double()(normalised(grey, mean, std).double())
    own_error = (single - expected).abs().max().item()
    model = FOLDER / f"model-{at}.safetensors"
    run("import", weights, *arguments, "-o", model, "--crop-size", side, "--image-size", side)
    table = list(csv.DictReader(run("predict", model, folder).splitlines()))
    table.sort(key=lambda row: row["image"])
    column = lambda start: np.array([[float(value) for key, value in row.items() if key.startswith(start)] for row in table])
    kept = extras.get("cxr_kept", range(expected.shape[1]))
    error = np.abs(column("logit_") - expected[:, list(kept)].numpy()).max()
    words = f"{name}: {len(table)} images, logits {expected.min():.2f} to {expected.max():.2f}: {error:.1e} (PyTorch's own in single precision: {own_error:.1e})"
    if "cxr_expected" in extras:
        probabilities = extras["cxr_expected"](expected.float())[:, list(kept)].numpy()
        difference = np.abs(column("prob_") - probabilities).max()
        words += f", probabilities {difference:.1e}"
        error = max(error, difference)
        calls = column("positive_") != (probabilities > 0.5)
        words += f", {calls.sum()} other decisions"
        error = error if not (calls & (np.abs(probabilities - 0.5) > 1e-4)).any() else np.inf
    print("   " + words, flush=True)
    # Written so that a NaN fails.
    failed |= not error <= max(BOUND, 3 * own_error)
    weights.unlink()
    model.unlink()
sys.exit(failed)
