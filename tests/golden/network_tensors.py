"""Names and shapes of the tensors of torchvision's networks (and timm's Xception and ConvNeXt V2): makes network_tensors.json.

Per network the number of trained values and a hash of all names and shapes, without classifiers and counters.
"""

import json
import pathlib

import timm
import torch
import torchvision

from golden import fnv1a
from network_names import ALL

networks = {}
for name in ALL:
    # RegNet computes its widths with tensors, which have no values on the device `meta`.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        if name == "xception" or name.startswith("convnextv2"):
            net = timm.create_model("legacy_xception" if name == "xception" else name)
        elif name == "resnet38":
            net = torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, [2, 3, 5, 2])
        else:
            options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
            net = getattr(torchvision.models, name)(weights=None, **options)
    lines, trained = [], 0
    parameters = dict(net.named_parameters())
    for key, value in net.state_dict().items():
        if key.startswith(("fc.", "classifier.", "head.")) or key.endswith("num_batches_tracked"):
            continue
        lines.append(f"{key if key.startswith('features.') else 'features.' + key} {'x'.join(map(str, value.shape))}\n")
        trained += value.numel() if key in parameters else 0
    networks[name] = {"tensors": len(lines), "trained": trained, "hash": f"{fnv1a(''.join(sorted(lines))):016x}"}

path = pathlib.Path(__file__).with_name("network_tensors.json")
rows = ",\n".join(f'"{name}":{json.dumps(found, separators=(",", ":"))}' for name, found in networks.items())
path.write_text(f'{{"torch":"{torch.__version__}","torchvision":"{torchvision.__version__}","timm":"{timm.__version__}","networks":{{\n{rows}\n}}}}\n')
print(path, len(networks), "networks")
