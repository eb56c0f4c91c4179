"""Reads every folder of `tests/goldens/shards` with NumPy alone, and compares with what the folder's README says it holds.

    python tests/interop/check_shards.py

`tests/data/shards` asks the same of the library, and that it writes the same bytes.
"""

import hashlib
import json
import pathlib

import numpy as np

shards = pathlib.Path(__file__).parent / "../goldens/shards"
for path in sorted(shards.glob("*/expected.json")):
    expected = json.loads(path.read_text())
    shape = expected["shape"]
    folder = path.parent / expected["dir"]
    each = (len(shape["layers"]), shape["tokens"], shape["d_model"])
    parts = [
        np.fromfile(folder / file["name"], "<f4").reshape(-1, *each)[: file["n_examples"]] for file in expected["files"]
    ]
    x = np.concatenate(parts)
    for at, layer in enumerate(shape["layers"]):
        content = np.ascontiguousarray(x[:, at, 1 if shape["cls_token"] else 0 :])
        assert hashlib.sha256(content.tobytes()).hexdigest() == expected["content_sha256"][str(layer)], path
    print(path.parent.name, x.shape)
