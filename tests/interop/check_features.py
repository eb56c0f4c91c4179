"""
`features.json` and `saev stability` against SciPy and scikit-learn.

    check_features.py SHARDS FEATURES ENCODED STABILITY MODEL MODEL...

SHARDS has labels.json. FEATURES is what `saev features` wrote of the first model, ENCODED what `saev encode` did, and
STABILITY what `saev stability MODEL MODEL... --out` did; the models are converted to SAELens' safetensors in their order.
"""

import json
import pathlib
import sys

import numpy as np
import scipy.sparse
from safetensors.numpy import load_file
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import average_precision_score, roc_auc_score


def check_features(shards, folder, encoded):
    file = json.loads((folder / "features.json").read_text())
    labels = np.array(json.loads((shards / "labels.json").read_text())["labels"])
    codes = scipy.sparse.load_npz(encoded / "token_acts.npz").tocsc()
    codes.data = np.maximum(codes.data, 0)
    codes.eliminate_zeros()
    grid = file["data"]["grid"]
    patches = grid["height"] * grid["width"]
    n_images = file["data"]["n_images"]
    assert codes.shape == (n_images * patches, file["model"]["d_sae"])
    worst = 0.0
    for record in file["latents"]:
        column = codes[:, [record["latent"]]]
        assert record["n_rows"] == column.nnz, record["latent"]
        assert record["max"] == column.data.max()
        assert abs(record["mean"] - column.data.astype(np.float64).mean()) <= 1e-9 * record["mean"]
        pooled = column.toarray().reshape(n_images, patches).max(axis=1)
        assert record["n_images"] == (pooled > 0).sum()
        top = [file["images"][e["image"]]["example"] for e in record["examples"] if e["kind"] == "top"]
        assert list(top) == sorted(np.flatnonzero(pooled), key=lambda i: (-pooled[i], i))[: len(top)]
        for score in record["classes"]:
            is_class = labels == score["class"]
            worst = max(
                worst,
                abs(score["auroc"] - roc_auc_score(is_class, pooled)),
                abs(score["average_precision"] - average_precision_score(is_class, pooled)),
            )
        every = [roc_auc_score(labels == c, pooled) for c in np.flatnonzero(np.bincount(labels) >= 5)]
        assert abs(record["classes"][0]["auroc"] - max(every)) <= 1e-12
    assert worst <= 1e-12, worst
    print(f"{len(file['latents'])} latents: counts exact, AUROC and average precision within {worst:.1e}")


def unit(rows):
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check_stability(path, models):
    file = json.loads(path.read_text())
    decoders = [unit(load_file(model / "sae_weights.safetensors")["W_dec"]) for model in models]
    counts = [np.zeros(len(rows)) for rows in decoders]
    for pair in file["pairs"]:
        a, b = pair["members"]
        cosines = decoders[a] @ decoders[b].T
        best = np.concatenate([cosines.max(axis=1), cosines.max(axis=0)])
        assert abs(pair["mean_best"] - best.mean()) < 1e-6
        counts[a] += cosines.max(axis=1) >= file["threshold"]
        counts[b] += cosines.max(axis=0) >= file["threshold"]
        assert pair["is_exact"]
        rows, columns = linear_sum_assignment(cosines, maximize=True)
        assert abs(pair["mean_cosine"] - cosines[rows, columns].mean()) < 1e-6
    for shares, found in zip(counts, file["recurrence"]):
        # A cosine may lie on the threshold by float32's rounding.
        assert (np.abs(shares / (len(models) - 1) - np.array(found)) > 1e-6).mean() < 1e-3
    print(f"{len(file['pairs'])} pairs: best matches, recurrence and assignments are SciPy's")


if __name__ == "__main__":
    shards, features, encoded, stability, *models = map(pathlib.Path, sys.argv[1:])
    check_features(shards, features, encoded)
    check_stability(stability, models)
