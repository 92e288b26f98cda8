"""Small files as torch.save writes them, and what is in them: makes the files beside this script. Run with PyTorch."""

import io
import json
import tarfile
import warnings
from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent


def no_source(*arguments):
    raise OSError("PyTorch's sources are not to be in the files")


torch.serialization.get_source_lines_and_file = no_source
warnings.filterwarnings("ignore")
expected = {}


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 2)
        self.norm = torch.nn.BatchNorm2d(2)
        self.register_buffer("passing", torch.zeros(3), persistent=False)
        self.register_buffer("absent", None)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.head = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        self.names = {"a": [1, (2, 3.5)], 2: b"bytes", "big": 1 << 70}


def save(name, value, tensors, found_under=(), others=(), **how):
    torch.save(value, HERE / name, **how)
    listed = [
        {"name": key, "type": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape),
         "values": [float(v) for v in tensor.reshape(-1)]}
        for key, tensor in tensors.items()
    ]
    expected[name] = {"tensors": listed, "found_under": list(found_under), "others": list(others)}


torch.manual_seed(0)
net = Net()
state = net.state_dict()
base = torch.arange(24, dtype=torch.float32)
types = OrderedDict(
    f64=torch.tensor([1.5, -2.0], dtype=torch.float64), f16=torch.tensor([[0.5], [65504.0]], dtype=torch.float16),
    bf16=torch.tensor([1.0, -3.0], dtype=torch.bfloat16), i64=torch.tensor(7), u8=torch.tensor([0, 255], dtype=torch.uint8),
    bool=torch.tensor([True, False]), none=torch.zeros(0, 3), transposed=base.reshape(4, 6).t(), part=base[5:9],
    tied=base.reshape(2, 3, 4).permute(2, 0, 1)[1:, :, ::2],
)
old = {"_use_new_zipfile_serialization": False}
save("state.pth", state, state)
save("types.pth", types, types)
save("types-before-1.6.pth", types, types, **old)
save("module.pt", net, state)
save("module-before-1.6.pt", net, state, **old)
checkpoint = {"epoch": 3, "args": torch.nn.ReLU(), "model": OrderedDict((f"module.{key}", value) for key, value in state.items())}
wrapped = checkpoint["model"]
save("checkpoint.pth", checkpoint, wrapped, found_under=["model"])
save("checkpoint-protocol-4.pth", {"state_dict": dict(state), "lr": 0.1}, state, found_under=["state_dict"], pickle_protocol=4)
save("mixed.pth", {"weight": base[:2], "step": 5, "note": "text"}, {"weight": base[:2]}, others=["step", "note"])

with tarfile.open(HERE / "before-0.1.10.tar", "w") as archive:
    for name in ("sys_info", "pickle", "storages", "tensors"):
        archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
(HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
