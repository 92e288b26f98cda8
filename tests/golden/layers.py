"""Small networks of every kind of layer from PyTorch in double precision: makes layers.json.

A network is a list of steps, each reading earlier ones by name; the Rust test builds the same from the same list.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

from golden import parameter, summary, tensor

torch.set_num_threads(1)


def conv(out, x, name, maps, kernel, stride=1, padding=(0, 0), groups=1, bias=False):
    return {"out": out, "op": "conv", "in": [x], "name": name, "maps": maps, "kernel": list(kernel), "stride": stride,
            "padding": list(padding), "groups": groups, "bias": bias}


def op(out, kind, *inputs, **options):
    return {"out": out, "op": kind, "in": list(inputs), **options}


CASES = {
    "stem": ([2, 3, 31, 22], [
        conv("a", "images", "c1", 8, (7, 7), 2, (3, 3)), op("b", "norm", "a", name="n1"), op("c", "relu", "b"),
        op("d", "max_pool", "c", window=[3, 2, 1]), conv("e", "d", "c2", 20, (3, 3), 1, (1, 1)), op("f", "norm", "e", name="n2"),
        op("g", "silu", "f"), conv("h", "g", "c3", 33, (1, 1), 2), op("i", "norm", "h", name="n3")]),
    "groups": ([3, 3, 13, 9], [
        conv("a", "images", "c1", 24, (1, 1)), conv("b", "a", "c2", 48, (3, 3), 2, (1, 1), 3), op("c", "norm", "b", name="n1"),
        op("d", "relu6", "c"), conv("e", "d", "c3", 48, (3, 3), 1, (1, 1), 12), op("f", "norm", "e", name="n2"),
        op("g", "hard_swish", "f"), conv("h", "g", "c4", 144, (3, 3), 1, (1, 1), 2)]),
    "depthwise": ([3, 3, 13, 18], [
        conv("a", "images", "c1", 20, (1, 1)), conv("b", "a", "d1", 20, (3, 3), 1, (1, 1), 20), op("c", "norm", "b", name="n1"),
        op("d", "relu6", "c"), conv("e", "d", "d2", 20, (5, 5), 2, (2, 2), 20), op("f", "norm", "e", name="n2"),
        op("g", "hard_swish", "f"), conv("h", "g", "d3", 20, (7, 7), 1, (3, 3), 20, True), op("i", "gelu", "h"),
        conv("j", "i", "d4", 20, (3, 3), 2, (1, 1), 20)]),
    "gates": ([4, 3, 9, 12], [
        conv("a", "images", "c1", 24, (3, 3), 2, (1, 1)), op("b", "norm", "a", name="n1"), op("c", "silu", "b"),
        op("d", "squeeze_excite", "c", name="se", squeezed=6), conv("e", "d", "c2", 24, (1, 1)), op("f", "norm", "e", name="n2"),
        op("g", "add", "f", "a"), op("h", "relu", "g"), op("i", "squeeze_excite", "h", name="se2", squeezed=3),
        op("j", "add", "i", "h")]),
    "branches": ([2, 3, 17, 20], [
        conv("a", "images", "c1", 12, (3, 3), 2), op("b", "relu", "a"), conv("c", "b", "c2", 5, (1, 7), 1, (0, 3)),
        op("d", "norm", "c", name="n1"), op("e", "relu", "d"), conv("f", "b", "c3", 20, (7, 1), 1, (3, 0)),
        op("g", "average_pool", "b", window=[3, 1, 1]), conv("h", "g", "c4", 16, (1, 1)), op("i", "concat", "e", "f", "h", "b"),
        conv("j", "i", "c5", 40, (3, 3), 2), op("k", "max_pool", "i", window=[3, 2, 0]), op("l", "concat", "j", "k")]),
    "transformed": ([2, 3, 25, 34], [
        conv("a", "images", "c1", 20, (4, 4), 4, (0, 0), 1, True), op("b", "layer_norm", "a", name="l1"),
        conv("c", "b", "d1", 20, (7, 7), 1, (3, 3), 20, True), op("d", "layer_norm", "c", name="l2"),
        op("e", "linear", "d", name="f1", outputs=80), op("f", "gelu", "e"), op("g", "linear", "f", name="f2", outputs=20),
        op("h", "layer_scale", "g", name="scale"), op("i", "add", "h", "b"), op("j", "layer_norm", "i", name="l3"),
        conv("k", "j", "c2", 36, (2, 2), 2, (0, 0), 1, True)]),
    "pooled": ([3, 3, 6, 7], [
        conv("a", "images", "c1", 18, (3, 3), 1, (1, 1)), op("b", "relu", "a"), op("c", "global_pool", "b"),
        op("d", "linear", "c", name="f1", outputs=7), op("e", "norm", "d", name="n1"), op("f", "sigmoid", "e"),
        op("g", "linear", "f", name="f2", outputs=5), op("h", "hard_sigmoid", "g")]),
    "chains": ([3, 3, 8, 5], [
        conv("a", "images", "c1", 10, (3, 3)), op("b", "norm", "a", name="n1"), op("c", "norm", "b", name="n2"),
        op("d", "relu", "c"), op("e", "silu", "d"), op("f", "add", "e", "e"), op("g", "gelu", "f"), op("h", "norm", "g", name="n3"),
        op("i", "add", "h", "f"), op("j", "add", "i", "g"), op("k", "relu", "j"), op("l", "layer_scale", "b", name="scale"),
        op("m", "concat", "k", "l", "j"), op("n", "norm", "m", name="n4")]),
    "single pixels": ([5, 3, 1, 1], [
        conv("a", "images", "c1", 20, (3, 3), 2, (1, 1)), op("b", "norm", "a", name="n1"), op("c", "relu", "b"),
        conv("d", "c", "d1", 20, (5, 5), 1, (2, 2), 20), conv("e", "d", "c2", 3, (1, 1), 1, (0, 0), 1, True)]),
    "wide": ([2, 3, 9, 23], [
        conv("a", "images", "c1", 70, (3, 3), 1, (1, 1)), op("b", "norm", "a", name="n1"), op("c", "silu", "b"),
        conv("d", "c", "c2", 130, (3, 3), 1, (1, 1)), op("e", "norm", "d", name="n2"), op("f", "gelu", "e"),
        conv("g", "f", "c3", 200, (1, 1)), op("h", "norm", "g", name="n3"), op("i", "silu", "h"),
        conv("j", "i", "c4", 40, (3, 3), 3, (1, 1))]),
    "tiles": ([2, 3, 14, 19], [
        conv("a", "images", "c1", 40, (1, 1)), op("b", "norm", "a", name="n1"), op("c", "relu6", "b"),
        conv("d", "c", "c2", 40, (3, 3), 1, (1, 1), 1, True), op("e", "norm", "d", name="n2"), op("f", "add", "e", "c"),
        op("g", "silu", "f"), conv("h", "g", "c3", 56, (3, 3)), conv("i", "g", "c4", 24, (3, 3), 1, (2, 2), 1, True),
        op("j", "norm", "i", name="n3"), op("k", "relu", "j"), op("l", "global_pool", "h"), op("m", "global_pool", "k"),
        conv("n", "k", "c5", 33, (3, 3), 1, (1, 1)), op("o", "log_sum_exp_pool", "n", sharpness=2.0),
        op("p", "concat", "l", "m", "o")]),
    "pooled by exponentials": ([3, 3, 11, 13], [
        conv("a", "images", "c1", 20, (3, 3), 1, (1, 1)), op("b", "norm", "a", name="n1"), op("c", "silu", "b"),
        op("d", "log_sum_exp_pool", "c", sharpness=10.0), op("e", "log_sum_exp_pool", "a", sharpness=0.5), op("f", "add", "d", "e")]),
    "responses": ([3, 3, 12, 19], [
        conv("a", "images", "c1", 24, (3, 3), 2, (1, 1)), op("b", "gelu", "a"), op("c", "response_norm", "b", name="r1"),
        op("d", "linear", "c", name="f1", outputs=37), op("e", "response_norm", "d", name="r2"), op("f", "add", "e", "d")]),
    "large": ([1, 3, 131, 149], [
        conv("a", "images", "c1", 16, (3, 3), 1, (1, 1)), op("b", "norm", "a", name="n1"), op("c", "silu", "b"),
        conv("d", "c", "d1", 16, (5, 5), 2, (2, 2), 16), op("e", "norm", "d", name="n2"), op("f", "silu", "e"),
        conv("g", "f", "c2", 24, (1, 1)), op("h", "norm", "g", name="n3"), op("i", "average_pool", "h", window=[2, 2, 0])]),
}


# Of these the gradients of a training by running statistics too.
BY_RUNNING = ("stem", "depthwise", "gates", "chains", "tiles")


class Network:
    """Runs the steps; `weights` gives the tensor of a name and shape."""

    def __init__(self, steps, weights, training):
        self.steps, self.weights, self.training, self.running = steps, weights, training, {}

    def __call__(self, images):
        values = {"images": images}
        for step in self.steps:
            values[step["out"]] = getattr(self, step["op"])(step, *(values[name] for name in step["in"]))
        return values[self.steps[-1]["out"]]

    def conv(self, s, x):
        weight = self.weights(f"{s['name']}.weight", [s["maps"], x.shape[1] // s["groups"], *s["kernel"]])
        bias = self.weights(f"{s['name']}.bias", [s["maps"]]) if s["bias"] else None
        return F.conv2d(x, weight, bias, s["stride"], s["padding"], 1, s["groups"])

    def linear(self, s, x):
        weight = self.weights(f"{s['name']}.weight", [s["outputs"], x.shape[1]])
        return F.linear(x.permute(0, 2, 3, 1), weight, self.weights(f"{s['name']}.bias", [s["outputs"]])).permute(0, 3, 1, 2)

    def norm(self, s, x):
        of = lambda what: self.weights(f"{s['name']}.{what}", [x.shape[1]])
        mean, variance = of("running_mean").detach().clone(), of("running_var").detach().clone()
        y = F.batch_norm(x, mean, variance, of("weight"), of("bias"), self.training, 0.1, 1e-3)
        self.running[f"{s['name']}.running_mean"], self.running[f"{s['name']}.running_var"] = mean, variance
        return y

    def layer_norm(self, s, x):
        of = lambda what: self.weights(f"{s['name']}.{what}", [x.shape[1]])
        return F.layer_norm(x.permute(0, 2, 3, 1), [x.shape[1]], of("weight"), of("bias"), 1e-6).permute(0, 3, 1, 2)

    def response_norm(self, s, x):
        norms = x.norm(dim=(2, 3), keepdim=True)
        relative = norms / (norms.mean(1, keepdim=True) + 1e-6)
        of = lambda what: self.weights(f"{s['name']}.{what}", [x.shape[1]]).reshape(1, -1, 1, 1)
        return x + of("weight") * (x * relative) + of("bias")

    def layer_scale(self, s, x):
        return x * self.weights(s["name"], [x.shape[1], 1, 1])

    def squeeze_excite(self, s, x):
        y = F.adaptive_avg_pool2d(x, 1)
        for layer, maps, f in (("fc1", s["squeezed"], F.silu), ("fc2", x.shape[1], torch.sigmoid)):
            weight = self.weights(f"{s['name']}.{layer}.weight", [maps, y.shape[1], 1, 1])
            y = f(F.conv2d(y, weight, self.weights(f"{s['name']}.{layer}.bias", [maps])))
        return x * y

    def max_pool(self, s, x):
        return F.max_pool2d(x, *s["window"])

    def average_pool(self, s, x):
        return F.avg_pool2d(x, *s["window"])

    def global_pool(self, s, x):
        return F.adaptive_avg_pool2d(x, 1)

    def log_sum_exp_pool(self, s, x):
        pixels = x.shape[2] * x.shape[3]
        return ((s["sharpness"] * x).logsumexp((2, 3), keepdim=True) - torch.tensor(pixels, dtype=x.dtype).log()) / s["sharpness"]

    def add(self, s, x, y):
        return x + y

    def concat(self, s, *parts):
        return torch.cat(parts, 1)

    relu, relu6, silu, gelu = (lambda f: lambda self, s, x: f(x))(F.relu), lambda self, s, x: F.relu6(x), lambda self, s, x: F.silu(x), lambda self, s, x: F.gelu(x)
    hard_swish, hard_sigmoid = lambda self, s, x: F.hardswish(x), lambda self, s, x: F.hardsigmoid(x)
    sigmoid = lambda self, s, x: torch.sigmoid(x)


def run(case, shape, steps, dtype):
    leaves = {}

    def weights(name, shape):
        if name not in leaves:
            leaves[name] = parameter(name, shape, dtype).requires_grad_("running" not in name)
        return leaves[name]

    found = {}
    for training in (False, True):
        kind = "training" if training else "evaluation"
        images = tensor(f"{case} images", shape, 2.0, dtype=dtype).requires_grad_()
        network = Network(steps, weights, training)
        output = network(images)
        (output * tensor(f"{case} cotangent", list(output.shape), dtype=dtype)).sum().backward()
        found[f"output in {kind}"] = output
        found[f"images gradient in {kind}"] = images.grad
        if not training and case in BY_RUNNING:
            found.update({f"{name} gradient by running statistics": leaf.grad for name, leaf in leaves.items() if leaf.requires_grad})
        if training:
            found.update(network.running)
            found.update({f"{name} gradient": leaf.grad for name, leaf in leaves.items() if leaf.requires_grad})
        for leaf in leaves.values():
            leaf.grad = None
    return found


def rounded(found):
    """Nine digits are more than single precision has."""
    text = json.dumps(found)
    return json.loads(text, parse_float=lambda s: float(f"{float(s):.9g}"))


cases = []
for case, (shape, steps) in CASES.items():
    exact, single = run(case, shape, steps, torch.float64), run(case, shape, steps, torch.float32)
    expected = {name: summary(f"{case} {name}", exact[name], single[name]) for name in exact}
    cases.append({"case": case, "images": shape, "steps": steps, "expected": rounded(expected)})

path = pathlib.Path(__file__).with_name("layers.json")
text = json.dumps({"torch": torch.__version__, "cases": cases}, separators=(",", ":"))
path.write_text(text.replace('},"', '},\n"') + "\n")
print(path, len(cases), "cases")
