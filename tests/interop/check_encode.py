"""What `saev encode` wrote, read by SciPy and PyTorch, and by the Python package's own probes.

check_encode.py FOLDER GOLDEN [PACKAGE]

FOLDER is what `saev encode GOLDEN --data ...` wrote; GOLDEN one of tests/goldens/inference; PACKAGE a checkout of the Python
package, whose probes are then fitted on FOLDER's codes (it has to be .../saev/runs/<run>/inference/<hash> beside
.../saev/shards/<hash>).
"""

import json
import multiprocessing.queues
import pathlib
import sys
import types

import numpy as np
import scipy.sparse
import torch

folder, golden = map(pathlib.Path, sys.argv[1:3])
expected = json.loads((golden / "expected.json").read_text())
theirs = golden / "inference" / expected["shards"]["hash"]

ours = scipy.sparse.load_npz(folder / "token_acts.npz")
want = scipy.sparse.load_npz(theirs / "token_acts.npz")
assert type(ours) is type(want), (type(ours), type(want))
assert ours.dtype == want.dtype and ours.indices.dtype == want.indices.dtype
assert ours.has_canonical_format and 0 not in ours.data
assert (ours.indptr == want.indptr).all() and (ours.indices == want.indices).all()
np.testing.assert_allclose(ours.data, want.data, rtol=1e-5, atol=1e-6)

corrected = expected["corrected"]
load = lambda name: torch.load(folder / name, weights_only=True).numpy()
mean_values, sparsity, distributions = map(load, ["mean_values.pt", "sparsity.pt", "distributions.pt"])
never = [value is None for value in corrected["mean_values"]]
assert (np.isnan(mean_values) == never).all()
known = np.array([value or 0 for value in corrected["mean_values"]])
np.testing.assert_allclose(np.nan_to_num(mean_values), known, rtol=1e-5)
np.testing.assert_allclose(sparsity, corrected["sparsity"], rtol=1e-6)
assert (distributions == ours.toarray()[:, : distributions.shape[1]]).all()
metrics = json.loads((folder / "metrics.json").read_text())
for name, value in corrected["metrics"].items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
assert json.loads((folder / "config.json").read_text())["ignore_labels"] == expected["ignore_labels"]
print(f"{folder}: SciPy and PyTorch read it, {ours.shape[0]} x {ours.shape[1]}, {ours.nnz} codes")

if len(sys.argv) > 3:
    package = pathlib.Path(sys.argv[3])
    sys.path[:0] = [str(package / "src"), str(package / "contrib/trait_discovery/src")]
    # Its models of images are not run here.
    for name in ("bird_mae", "clip", "dinov2", "dinov3", "fake_clip", "pe", "siglip"):
        stand_in = types.ModuleType(f"saev.data.{name}")
        for model in ("Vit", "Transformer", "Core", "Spatial"):
            setattr(stand_in, model, type(model, (), {}))
        sys.modules[stand_in.__name__] = stand_in
    models = types.ModuleType("saev.data.models")
    models.register_family = lambda family: None
    sys.modules[models.__name__] = models
    # The package is for Python 3.12, where a queue's type takes an argument.
    multiprocessing.queues.Queue.__class_getitem__ = classmethod(lambda cls, item: cls)
    from saev import helpers
    from saev.metrics import Metrics

    Metrics.from_dict(metrics)
    helpers.csr_topk(ours, k=4, axis=0)

    from tdiscovery import probe1d

    root = folder.parents[3]
    shards = root / "shards" / folder.name
    run = folder.parents[1]
    code = probe1d.worker_fn(
        probe1d.Config(run=run, train_shards=shards, test_shards=shards, device="cpu")
    )
    assert code == 0
    with np.load(folder / "probe1d_metrics.npz") as probes:
        assert probes["loss"].shape[0] == ours.shape[1] and np.isfinite(probes["loss"]).all()
    print(f"{folder}: the Python package's probes fit it")
