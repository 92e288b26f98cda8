"""Features and gradients of torchvision's networks (and timm's Xception) in double precision: makes networks.json.

usage: networks.py [NAME ...]; networks that are not named keep what the file has.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import torchvision

from golden import parameter, tensor, uniform

torch.set_num_threads(2)
PROJECTIONS = 3
PATH = pathlib.Path(__file__).with_name("networks.json")
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NAMES = """resnet18 efficientnet_b0 mobilenet_v2 regnet_y_400mf regnet_x_400mf resnext50_32x4d resnet50 vgg16_bn inception_v3
convnext_tiny efficientnet_v2_s xception vgg16 resnet34 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4
regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf convnext_small resnet101 resnet152
convnext_base resnext101_32x8d""".split()


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
    if name == "inception_v3":
        net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=True, init_weights=False)
        net.avgpool = net.dropout = net.fc = torch.nn.Identity()
        kept = {}
        net.Mixed_7c.register_forward_hook(lambda module, inputs, output: kept.update(features=output))

        def features(x):
            net(x)
            return kept["features"]

        return net, features
    net = getattr(torchvision.models, name)(weights=None)
    for module in net.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    if hasattr(net, "features"):
        return net.features, net.features
    if hasattr(net, "trunk_output"):
        return net, lambda x: net.trunk_output(net.stem(x))
    return net, lambda x: net.layer4(net.layer3(net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))))


# A formula's values in single precision, which four runs share.
KEPT = {}


def run(name, dtype, memory_format=torch.contiguous_format):
    net, features_of = network(name)
    net = net.to(dtype).to(memory_format=memory_format)
    named = {f"features.{key}": value for key, value in {**dict(net.named_parameters()), **dict(net.named_buffers())}.items()
             if not key.startswith("fc.") and value.is_floating_point()}
    with torch.no_grad():
        for key, value in named.items():
            if key not in KEPT:
                KEPT[key] = parameter(key, list(value.shape), torch.float32)
            value.copy_(KEPT[key])
    found = {}
    for training in (False, True):
        kind = "training" if training else "evaluation"
        net.train(training)
        images = tensor(f"{name} images", images_of(name), 2.0, dtype=dtype).to(memory_format=memory_format).requires_grad_()
        features = features_of(images)
        if not training:
            # Without statistics of the batch a deep network's features may be of any size.
            scale = features.detach().abs().max()
        cotangent = tensor(f"{name} cotangent", list(features.shape), dtype=dtype)
        net.zero_grad(set_to_none=True)
        (features * cotangent).sum().backward()
        found[f"features in {kind}"] = features
        found[f"images gradient in {kind}"] = images.grad
    for key, value in named.items():
        if "running" in key:
            found[key] = value.clone()
        else:
            found[f"{key} gradient"] = value.grad
    assert scale < 1e30, f"{name}: features of {scale}"
    trained = sum(value.numel() for key, value in named.items() if "running" not in key)
    return found, trained


def brief(name, exact, singles):
    """A quarter of what other goldens keep: there are thousands of tensors.

    As in densenet121.py PyTorch's own error is the largest of three orders of summation.
    """
    number = lambda value: float(f"{value:.7g}")
    flat = exact.detach().double().reshape(-1).numpy()
    norm = float(np.linalg.norm(flat))
    error = max(float(np.linalg.norm(single.detach().double().reshape(-1).numpy() - flat)) for single in singles)
    return {"shape": list(exact.shape), "norm": number(norm),
            "projections": [number(3**0.5 * uniform(f"projection {k} of {name}", flat.size) @ flat) for k in range(1, PROJECTIONS + 1)],
            "entries": [], "torch_f32_error": float(f"{error / norm if norm else error:.2g}")}


def golden(name):
    KEPT.clear()
    exact, trained = run(name, torch.float64)
    singles = [run(name, torch.float32)[0], run(name, torch.float32, torch.channels_last)[0]]
    with torch.backends.mkldnn.flags(enabled=False):
        singles.append(run(name, torch.float32)[0])
    expected = {key: brief(f"{name} {key}", exact[key], [single[key] for single in singles]) for key in exact}
    errors = sorted(g["torch_f32_error"] for g in expected.values() if g["norm"] > 1e-3)
    print(name, len(expected), "tensors,", trained, "trained values, PyTorch's errors: median", errors[len(errors) // 2], "largest", errors[-1], flush=True)
    return {"images": images_of(name), "trained": trained, "expected": expected}


found = json.loads(PATH.read_text())["networks"] if PATH.exists() else {}
for name in sys.argv[1:] or NAMES:
    found[name] = golden(name)
    ordered = {name: found[name] for name in NAMES if name in found}
    text = json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__, "networks": ordered}, separators=(",", ":"))
    PATH.write_text(text.replace('},"', '},\n"') + "\n")
