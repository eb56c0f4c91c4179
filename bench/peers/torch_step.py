"""The peers' step in PyTorch on the CPU, dense as its autograd makes it.

    python3 torch_step.py FOLDER    (problem.json and x, W_enc, b_enc, W_dec, b_dec as .f32 files)

Prints one line of JSON: the losses of the compared steps, the shortest step in milliseconds, and the version.
"""

import json
import pathlib
import sys
import time

import torch

folder = pathlib.Path(sys.argv[1])
problem = json.loads((folder / "problem.json").read_text())
B, D, S = problem["B"], problem["D"], problem["S"]


def array(name: str, *shape: int) -> torch.Tensor:
    data = bytearray((folder / f"{name}.f32").read_bytes())
    return torch.frombuffer(data, dtype=torch.float32).reshape(*shape).clone()


x = array("x", B, D)
W_enc, b_enc, W_dec, b_dec = parameters = [
    torch.nn.Parameter(array(*spec)) for spec in (("W_enc", D, S), ("b_enc", S), ("W_dec", S, D), ("b_dec", D))
]
dead = torch.arange(S) >= S - problem["n_dead"]
k_aux = min(problem["k_aux"], int(dead.sum()))
adam = torch.optim.Adam(parameters, lr=0.0, betas=(problem["beta1"], problem["beta2"]), eps=problem["eps"], fused=True)


def step() -> float:
    with torch.no_grad():
        W_dec.div_(W_dec.norm(dim=1, keepdim=True))
    h = x @ W_enc + b_enc
    top = torch.topk(h, problem["k"], dim=1)
    f = torch.zeros_like(h).scatter(1, top.indices, top.values)
    error = x - (f @ W_dec + b_dec)
    best = torch.topk(h.masked_fill(~dead, -torch.inf), k_aux, dim=1)
    auxiliary = torch.zeros_like(h).scatter(1, best.indices, best.values) @ W_dec
    loss = error.square().mean() + problem["alpha"] * (auxiliary - error.detach()).square().mean()
    adam.zero_grad()
    loss.backward()
    with torch.no_grad():
        along = (W_dec.grad * W_dec).sum(dim=1, keepdim=True) / W_dec.square().sum(dim=1, keepdim=True)
        W_dec.grad.sub_(along * W_dec)
    torch.nn.utils.clip_grad_norm_(parameters, problem["grad_clip"])
    adam.step()
    for group in adam.param_groups:
        group["lr"] = problem["lr"]
    return loss.item()


losses = [step() for _ in range(problem["n_compared"])]
least = float("inf")
for _ in range(problem["samples"]):
    began = time.perf_counter()
    step()
    least = min(least, time.perf_counter() - began)
print(json.dumps({"losses": losses, "milliseconds": 1000 * least}))
