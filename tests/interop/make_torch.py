"""Writes PyTorch files whose serialization ids are hashes of more or of fewer checksums than they have records.

python make_torch.py tests/goldens/torch
"""

import pathlib
import struct
import sys

import numpy as np
import torch

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
# As the descriptor behind a record's content starts, which is where PyTorch takes checksums from.
like_a_descriptor = struct.pack("<II", 0x08074B50, 12345) + bytes(8)
cases = {
    "empty_storages": {"a": torch.zeros(0), "b": torch.arange(3.0), "c": torch.zeros(0, 2)},
    "like_descriptors": {
        "a": torch.from_numpy(np.frombuffer(like_a_descriptor, dtype="<f4").copy()),
        "b": torch.from_numpy(np.frombuffer(like_a_descriptor[:4], dtype="<f4").copy()),
        "c": torch.arange(3.0),
    },
}
for name, tensors in cases.items():
    torch.save(tensors, folder / f"{name}.pt")
print(f"wrote {len(cases)} files with PyTorch {torch.__version__}")
