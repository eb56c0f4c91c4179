"""Writes tests/goldens/muon.json: some steps of PyTorch's own Muon, in its bfloat16 and in float64.

python muon_golden.py tests/goldens/muon.json

The float64 run is the same code of torch.optim.Muon: the gradients are tensors whose bfloat16() keeps them as they are.
"""

import json
import sys

import torch

STEPS_LR = [0.0, 0.05, 0.02, 0.01]
CASES = [
    ("wide", (6, 10), {}),
    ("tall", (10, 6), {}),
    ("square", (8, 8), {}),
    ("a row", (1, 7), {}),
    ("tall, without Nesterov", (9, 4), {"nesterov": False, "momentum": 0.8, "weight_decay": 0.0}),
    ("wide, with much decay", (5, 12), {"momentum": 0.5, "weight_decay": 2.0}),
]


class Wide(torch.Tensor):
    """A tensor that stays as precise as it is."""

    def bfloat16(self):
        return self.clone()


def array(tensor):
    data = tensor.detach().as_subclass(torch.Tensor).to(torch.float32)
    return {"shape": list(data.shape), "data": [float(f"{value:.9g}") for value in data.flatten().tolist()]}


def run(start, gradients, options, kind, dtype):
    """The parameter and the momentum buffer after all steps."""
    parameter = torch.nn.Parameter(start.to(dtype))
    optimizer = torch.optim.Muon([parameter], lr=0.0, **options)
    for lr, gradient in zip(STEPS_LR, gradients):
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = gradient.to(dtype).as_subclass(kind)
        optimizer.step()
    return {"end": array(parameter), "momentum_buffer": array(optimizer.state[parameter]["momentum_buffer"])}


cases = []
for seed, (name, shape, options) in enumerate(CASES):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(shape, generator=generator)
    gradients = [torch.randn(shape, generator=generator) for _ in STEPS_LR]
    cases.append(
        {
            "name": name,
            "shape": list(shape),
            "options": {"momentum": 0.95, "weight_decay": 0.1, "nesterov": True, **options},
            "lrs": STEPS_LR,
            "start": array(start),
            "gradients": [array(gradient) for gradient in gradients],
            "float64": run(start, gradients, options, Wide, torch.float64),
            "bfloat16": run(start, gradients, options, torch.Tensor, torch.float32),
        }
    )

with open(sys.argv[1], "w") as fd:
    about = f"torch.optim.Muon of PyTorch {torch.__version__.split('+')[0]}, by tests/interop/muon_golden.py"
    json.dump({"about": about, "cases": cases}, fd)
    fd.write("\n")
