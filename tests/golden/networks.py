"""Features and gradients of torchvision's networks (and timm's Xception and ConvNeXt V2) in double precision: makes networks.json.

usage: networks.py [NAME ...]; networks that are not named keep what the file has.
       networks.py --check FILE; all networks and more sizes, for `cargo xtask verify networks`
"""

import json
import pathlib
import sys

import numpy as np
import torch
import torchvision

from golden import parameter, tensor, uniform
from network_names import ALL

torch.set_num_threads(2)
PROJECTIONS = 4
PATH = pathlib.Path(__file__).with_name("networks.json")
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Every family; the others differ from these in sizes alone.
NAMES = """resnet18 mobilenet_v2 regnet_y_400mf efficientnet_b0 convnext_tiny vgg16_bn resnext50_32x4d inception_v3 xception
efficientnet_v2_s resnet50 regnet_x_400mf vgg16 convnextv2_tiny resnet38-pooled""".split()


# Besides the size that all have, from 64 to 1024 pixels.
SIZES = {"resnet18": [[2, 3, 224, 224], [2, 3, 67, 131], [1, 3, 1024, 768]], "resnext50_32x4d": [[2, 3, 129, 100]],
         "vgg16_bn": [[2, 3, 101, 90]], "mobilenet_v2": [[2, 3, 224, 224], [1, 3, 1024, 1024]], "efficientnet_b0": [[2, 3, 224, 224], [2, 3, 300, 211]],
         "efficientnet_v2_s": [[2, 3, 97, 160]], "regnet_x_400mf": [[2, 3, 224, 224], [1, 3, 640, 512]], "regnet_y_400mf": [[2, 3, 65, 64]],
         "inception_v3": [[2, 3, 299, 299]], "xception": [[2, 3, 205, 224]], "convnext_tiny": [[2, 3, 224, 224], [1, 3, 512, 384]],
         "convnextv2_tiny": [[2, 3, 96, 224]]}


def images_of(name):
    # Inception has no padding and halves the size before it begins.
    return [3, 3, 128, 139] if name in ("inception_v3", "xception") else [3, 3, 64, 96]


def network(name):
    """The network and the function from images to features."""
    if name == "xception":
        import timm

        net = timm.create_model("legacy_xception")
        column = lambda values, x: torch.tensor(values, dtype=x.dtype).reshape(3, 1, 1)
        return net, lambda x: net.forward_features((x * column(DEVIATION, x) + column(MEAN, x) - 0.5) / 0.5)
    if name.startswith("convnextv2"):
        import timm

        net = timm.create_model(name, drop_path_rate=0.0, num_classes=0, global_pool="")
        net.norm_pre = net.head = torch.nn.Identity()
        return net, net.forward_features
    if name == "inception_v3":
        net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=True, init_weights=False)
        net.avgpool = net.dropout = net.fc = torch.nn.Identity()
        kept = {}
        net.Mixed_7c.register_forward_hook(lambda module, inputs, output: kept.update(features=output))

        def features(x):
            net(x)
            return kept["features"]

        return net, features
    if name.startswith("resnet38"):
        # torchvision's blocks in the numbers of Baltruschat et al. (2019), and their second pool.
        net = torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, [2, 3, 5, 2])
        pool = torch.nn.MaxPool2d(3, 2, 1) if name.endswith("-pooled") else torch.nn.Identity()
        return net, lambda x: net.layer4(net.layer3(net.layer2(pool(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))))))
    net = getattr(torchvision.models, name)(weights=None)
    for module in net.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    if hasattr(net, "features"):
        return net.features, net.features
    if hasattr(net, "trunk_output"):
        return net, lambda x: net.trunk_output(net.stem(x))
    return net, lambda x: net.layer4(net.layer3(net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))))


# A formula's values in single precision, which all runs share.
KEPT = {}


def smooth(net):
    """Puts SiLU in the place of every ReLU and ReLU6."""
    for module in list(net.modules()):
        for key, child in module.named_children():
            if isinstance(child, (torch.nn.ReLU, torch.nn.ReLU6)):
                setattr(module, key, torch.nn.SiLU())
    # Inception calls the function.
    torch.nn.functional.relu = lambda x, inplace=False: torch.nn.functional.silu(x)


def run(name, shape, dtype):
    """Features of the network as it is; gradients with SiLU in place of ReLU.

    In a small batch a single unit whose rounding error takes it across a ReLU's corner changes every gradient before it by
    a hundredth, in PyTorch's single precision as in ours.
    """
    found, trained = {}, 0
    relu = torch.nn.functional.relu
    for is_smooth in (False, True):
        net, features_of = network(name)
        if is_smooth:
            smooth(net)
        net = net.to(dtype)
        named = {f"features.{key}": value for key, value in {**dict(net.named_parameters()), **dict(net.named_buffers())}.items()
                 if not key.startswith("fc.") and value.is_floating_point()}
        with torch.no_grad():
            for key, value in named.items():
                if key not in KEPT:
                    KEPT[key] = parameter(key, list(value.shape), torch.float32)
                value.copy_(KEPT[key])
        for training in (False, True):
            kind = "training" if training else "evaluation"
            net.train(training)
            images = tensor(f"{name} images", shape, 2.0, dtype=dtype).requires_grad_(is_smooth)
            with torch.set_grad_enabled(is_smooth):
                features = features_of(images)
            if not is_smooth:
                found[f"features in {kind}"] = features
                continue
            net.zero_grad(set_to_none=True)
            (features * tensor(f"{name} cotangent", list(features.shape), dtype=dtype)).sum().backward()
            found[f"smooth features in {kind}"] = features
            found[f"images gradient in {kind}"] = images.grad
        for key, value in named.items():
            if "running" not in key and is_smooth:
                found[f"{key} gradient"] = value.grad
                trained += value.numel()
            elif "running" in key and not is_smooth:
                found[key] = value.clone()
    torch.nn.functional.relu = relu
    return found, trained


def brief(name, exact, single):
    """Less than other goldens keep: there are thousands of tensors."""
    number = lambda value: float(f"{value:.7g}")
    flat = exact.detach().double().reshape(-1).numpy()
    norm = float(np.linalg.norm(flat))
    error = float(np.linalg.norm(single.detach().double().reshape(-1).numpy() - flat))
    return {"shape": list(exact.shape), "norm": number(norm),
            "projections": [number(3**0.5 * uniform(f"projection {k} of {name}", flat.size) @ flat) for k in range(1, PROJECTIONS + 1)],
            "entries": [], "torch_f32_error": float(f"{error / norm if norm else error:.2g}")}


def golden(name, shape):
    KEPT.clear()
    exact, trained = run(name, shape, torch.float64)
    single, _ = run(name, shape, torch.float32)
    expected = {key: brief(f"{name} {key}", exact[key], single[key]) for key in exact}
    errors = sorted(g["torch_f32_error"] for g in expected.values() if g["norm"] > 1e-3)
    print(name, shape, len(expected), "tensors,", trained, "trained values, PyTorch's errors: median", errors[len(errors) // 2], "largest", errors[-1], flush=True)
    return {"images": shape, "trained": trained, "expected": expected}


if sys.argv[1:2] == ["--check"]:
    cases = [{"network": name, **golden(name, shape)} for name in ALL for shape in [images_of(name), *SIZES.get(name, [])]]
    pathlib.Path(sys.argv[2]).write_text(json.dumps({"cases": cases}))
    sys.exit()

found = json.loads(PATH.read_text())["networks"] if PATH.exists() else {}
for name in sys.argv[1:] or NAMES:
    found[name] = golden(name, images_of(name))
    ordered = {name: found[name] for name in NAMES if name in found}
    text = json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__, "networks": ordered}, separators=(",", ":"))
    PATH.write_text(text.replace('},"', '},\n"') + "\n")
