"""What the make_*.py scripts share: seeded values, and the record of what a library computes, for tests/io/formats."""

import importlib.metadata
import json
import pathlib
import shutil

import numpy as np
import torch

D_MODEL = 8
D_SAE = 16
N_ROWS = 4
TOP_K = 3
GOLDENS = pathlib.Path(__file__).parent.parent / "goldens" / "formats"


def array(tensor):
    """An array as goldens have it: float32 to 9 digits, which is exact."""
    data = tensor.detach().to(torch.float32).contiguous().numpy()
    return {"shape": list(data.shape), "data": [float(f"{value:.9g}") for value in data.reshape(-1)]}


class Recorder:
    """Collects the cases of one format and writes them as one JSON file beside its folder."""

    def __init__(self, name, seed, packages):
        self.name = name
        self.folder = GOLDENS / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        torch.manual_seed(seed)
        self.x = torch.randn(N_ROWS, D_MODEL) + 0.3
        versions = {package: importlib.metadata.version(package) for package in packages}
        self.record = {"versions": versions, "x": array(self.x), "cases": {}}

    def accepted(self, case, codes, x_hat, **more):
        """A case that reads as a model with these outputs for x."""
        assert codes.shape == (N_ROWS, D_SAE) and x_hat.shape == (N_ROWS, D_MODEL), (codes.shape, x_hat.shape)
        assert 0 < int((codes != 0).sum()) < N_ROWS * D_SAE, f"{case}: the codes say nothing"
        self.record["cases"][case] = {"codes": array(codes), "x_hat": array(x_hat), **more}

    def refused(self, case, names):
        """A case that must be refused with a message that contains this."""
        self.record["cases"][case] = {"refused": names}

    def write(self):
        path = GOLDENS / f"{self.name}.json"
        path.write_text(json.dumps(self.record) + "\n")
        sizes = [file.stat().st_size for file in [path, *self.folder.rglob("*")] if file.is_file()]
        assert max(sizes) < 25_000, f"{self.name}: a file of {max(sizes)} bytes"
        print(f"{self.name}: {len(self.record['cases'])} cases, {sum(sizes)} bytes, {self.record['versions']}")


@torch.no_grad()
def randomise(module, seed):
    """Every floating-point parameter anew, so that no bias is zero and no matrix the transpose of another."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(values * (0.5 if parameter.ndim > 1 else 0.2))


def thresholds(seed):
    """Of a JumpReLU: some high, some zero, one negative."""
    values = torch.rand(D_SAE, generator=torch.Generator().manual_seed(seed)) * 1.5
    values[3] = 0.0
    values[5] = -0.25
    return values


def numpy_arrays(tensors):
    return {name: np.asarray(tensor.detach().numpy()) for name, tensor in tensors.items()}
