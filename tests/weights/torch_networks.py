"""State dicts of torchvision's classifiers with random numbers, and their features, computed with torch's functions.

Written from the papers' tables and torchvision's names, without our code, so that names, paddings and epsilons are held
to something else than themselves.
"""

import json

import numpy as np

MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
EFFICIENTNET_B0 = (
    *((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2)),
    *((6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1)),
)
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class Network:
    """Layers in the order in which they run: `features(state, images)` with torch, `state` with numpy.

    `levels` names what is kept of the way.
    """

    def __init__(self, name, blocks=None):
        self.name, self.rng, self.state, self.steps = name, np.random.default_rng(0), {}, []
        getattr(self, f"_{name}")(*(() if blocks is None else (blocks,)))

    def conv(self, conv, norm, inputs, outputs, size, stride=1, groups=1, act=None):
        fan_in = inputs // groups * size * size
        weight = self.rng.normal(size=(outputs, inputs // groups, size, size)) * np.sqrt(2 / fan_in)
        self.state[f"{conv}.weight"] = weight
        for name, low, high in (("weight", 0.5, 1.5), ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3)):
            self.state[f"{norm}.{name}"] = self.rng.uniform(low, high, outputs)
        self.state[f"{norm}.running_var"] = self.rng.uniform(0.5, 1.5, outputs)
        self.state[f"{norm}.num_batches_tracked"] = np.asarray(7)
        return ("conv", conv, norm, stride, groups, act)

    def _mobilenet_v2(self):
        self.steps = [self.conv("features.0.0", "features.0.1", 3, 32, 3, 2, act="relu6")]
        inputs, index = 32, 1
        for expansion, outputs, repeats, first in MOBILENET_V2:
            for repeat in range(repeats):
                stride, wide, block, place = (first if repeat == 0 else 1), inputs * expansion, [], 0
                prefix = f"features.{index}.conv"
                if expansion > 1:
                    block.append(self.conv(f"{prefix}.0.0", f"{prefix}.0.1", inputs, wide, 1, act="relu6"))
                    place = 1
                names = (f"{prefix}.{place}.0", f"{prefix}.{place}.1")
                block.append(self.conv(*names, wide, wide, 3, stride, wide, act="relu6"))
                block.append(self.conv(f"{prefix}.{place + 1}", f"{prefix}.{place + 2}", wide, outputs, 1))
                self.steps.append(("block", block, stride == 1 and inputs == outputs, None))
                inputs, index = outputs, index + 1
        self.steps.append(self.conv("features.18.0", "features.18.1", 320, 1280, 1, act="relu6"))
        self.state |= {"classifier.1.weight": self.rng.normal(size=(10, 1280)), "classifier.1.bias": np.zeros(10)}
        self.levels = {"C2": 3, "C3": 6, "C4": 13, "C5": 18}

    def _efficientnet_b0(self):
        self.steps = [self.conv("features.0.0", "features.0.1", 3, 32, 3, 2, act="silu")]
        inputs, self.levels = 32, {}
        for stage, (expansion, size, outputs, repeats, first) in enumerate(EFFICIENTNET_B0, start=1):
            for repeat in range(repeats):
                stride, wide, block = (first if repeat == 0 else 1), inputs * expansion, []
                prefix, place = f"features.{stage}.{repeat}.block", 0
                if expansion > 1:
                    block.append(self.conv(f"{prefix}.0.0", f"{prefix}.0.1", inputs, wide, 1, act="silu"))
                    place = 1
                names = (f"{prefix}.{place}.0", f"{prefix}.{place}.1")
                block.append(self.conv(*names, wide, wide, size, stride, wide, act="silu"))
                narrow = max(1, inputs // 4)
                for name, ins, outs in (("fc1", wide, narrow), ("fc2", narrow, wide)):
                    self.state[f"{prefix}.{place + 1}.{name}.weight"] = self.rng.normal(size=(outs, ins, 1, 1)) * 0.1
                    self.state[f"{prefix}.{place + 1}.{name}.bias"] = self.rng.uniform(-0.3, 0.3, outs)
                block.append(("squeeze", f"{prefix}.{place + 1}"))
                block.append(self.conv(f"{prefix}.{place + 2}.0", f"{prefix}.{place + 2}.1", wide, outputs, 1))
                self.steps.append(("block", block, stride == 1 and inputs == outputs, None))
                inputs = outputs
            self.levels |= {1: {"C1": len(self.steps) - 1}, 2: {"C2": len(self.steps) - 1}}.get(stage, {})
            self.levels |= {3: {"C3": len(self.steps) - 1}, 5: {"C4": len(self.steps) - 1}}.get(stage, {})
        self.levels["C5"] = len(self.steps) - 1
        self.conv("features.8.0", "features.8.1", 320, 1280, 1)
        self.state |= {"classifier.1.weight": self.rng.normal(size=(10, 1280)), "classifier.1.bias": np.zeros(10)}

    def _resnet(self, blocks):
        self.steps = [self.conv("conv1", "bn1", 3, 64, 7, 2, act="relu"), ("pool",)]
        inputs, self.levels = 64, {"C1": 0}
        for stage, count in enumerate(blocks):
            filters = 64 * 2**stage
            for index in range(count):
                prefix, stride = f"layer{stage + 1}.{index}", 2 if stage and index == 0 else 1
                block = [
                    self.conv(f"{prefix}.conv1", f"{prefix}.bn1", inputs, filters, 1, act="relu"),
                    self.conv(f"{prefix}.conv2", f"{prefix}.bn2", filters, filters, 3, stride, act="relu"),
                    self.conv(f"{prefix}.conv3", f"{prefix}.bn3", filters, 4 * filters, 1),
                ]
                shortcut = True
                if index == 0:
                    names = (f"{prefix}.downsample.0", f"{prefix}.downsample.1")
                    shortcut = self.conv(*names, inputs, 4 * filters, 1, stride)
                self.steps.append(("block", block, shortcut, "relu"))
                inputs = 4 * filters
            self.levels[f"C{stage + 2}"] = len(self.steps) - 1
        self.state |= {"fc.weight": self.rng.normal(size=(10, inputs)), "fc.bias": np.zeros(10)}

    def features(self, pixels):
        """`{level: [B, h, w, C]}` of pixels 0...255 `[B, H, W, 3]`."""
        import torch

        state = {name: torch.tensor(np.asarray(value, np.float32)) for name, value in self.state.items()}
        x = torch.tensor(((pixels / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2))
        found = {}
        with torch.no_grad():
            for index, step in enumerate(self.steps):
                x = _run(step, x, state)
                found |= {level: x for level, last in self.levels.items() if last == index}
        return {level: value.permute(0, 2, 3, 1).numpy() for level, value in found.items()}

    def write_safetensors(self, path):
        write_safetensors(path, self.state)


def write_safetensors(path, state):
    """Writes `{name: array}` as a safetensors file."""
    header, parts, end = {}, [], 0
    for name, value in state.items():
        value = np.asarray(value, np.int64 if name.endswith("tracked") else np.float32)
        dtype = "I64" if value.dtype == np.int64 else "F32"
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [end, end + value.nbytes]}
        parts.append(value.tobytes())
        end += value.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))


def _run(step, x, state):
    from torch.nn import functional

    if step[0] == "pool":
        return functional.max_pool2d(x, 3, 2, 1)
    if step[0] == "squeeze":
        gate = x.mean((2, 3), keepdim=True)
        for name, act in (("fc1", functional.silu), ("fc2", functional.sigmoid)):
            gate = act(functional.conv2d(gate, state[f"{step[1]}.{name}.weight"], state[f"{step[1]}.{name}.bias"]))
        return x * gate
    if step[0] == "block":
        _, block, shortcut, act = step
        y = x
        for inner in block:
            y = _run(inner, y, state)
        if shortcut:
            y = y + (x if shortcut is True else _run(shortcut, x, state))
        return functional.relu(y) if act else y
    _, conv, norm, stride, groups, act = step
    weight = state[f"{conv}.weight"]
    x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    values = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    x = functional.batch_norm(x, *values, eps=1e-5)
    return getattr(functional, act)(x) if act else x
