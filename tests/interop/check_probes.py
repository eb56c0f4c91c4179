"""What `saev probe` and `saev baseline` wrote, against scikit-learn.

check_probes.py RUN GOLDEN ROWS.npy PCA KMEANS

RUN has inference/9d34fdb2 and inference/982225a7 with the codes of GOLDEN (tests/goldens/probe1d) and what `saev probe RUN
--labels GOLDEN/train --test GOLDEN/test` wrote there; PCA and KMEANS are what `saev baseline` made of ROWS.npy.
"""

import io
import pathlib
import sys

import numpy as np
import scipy.sparse
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

run, golden = map(pathlib.Path, sys.argv[1:3])
train, test = run / "inference/9d34fdb2", run / "inference/982225a7"
x = scipy.sparse.load_npz(train / "token_acts.npz").toarray().astype("f8")
y = np.fromfile(golden / "train/labels.bin", "u1")
with np.load(train / "probe1d_metrics.npz") as probes:
    loss, weights, biases = probes["loss"], probes["weights"], probes["biases"]
n = len(y)
worst = 0.0
for latent in range(x.shape[1]):
    for c in range(y.max() + 1):
        of = y == c
        # scikit-learn's ridge is on w alone.
        model = LogisticRegression(C=1 / (1e-8 * n), tol=1e-12, max_iter=10000)
        probability = model.fit(x[:, [latent]], of).predict_proba(x[:, [latent]])[:, 1]
        theirs = log_loss(of, probability)
        worst = max(worst, loss[latent, c] - theirs)
        claimed = np.logaddexp(0, np.where(of, -1, 1) * (biases[latent, c] + weights[latent, c].astype("f8") * x[:, latent]))
        np.testing.assert_allclose(loss[latent, c], claimed.mean(), atol=1e-6)
assert worst < 2e-6, worst
print(f"{loss.size} probes: no loss exceeds scikit-learn's by more than {worst:.1e}")

x = scipy.sparse.load_npz(test / "token_acts.npz").toarray().astype("f8")
y = np.fromfile(golden / "test/labels.bin", "u1")
with np.load(test / "probe1d_metrics__train-9d34fdb2.npz") as scores:
    for c, latent in enumerate(loss.argmin(0)):
        theirs = average_precision_score(y == c, weights[latent, c] * x[:, latent])
        np.testing.assert_allclose(scores["ap"][c], theirs, rtol=1e-6)
    print("average precision is scikit-learn's:", scores["ap"])


def load(folder):
    with open(pathlib.Path(folder) / "sae.pt", "rb") as file:
        file.readline()
        return torch.load(io.BytesIO(file.read()), weights_only=True)


rows = np.load(sys.argv[3]).astype("f8")
ours = load(sys.argv[4])
W_dec = ours["W_dec"].numpy().astype("f8")
theirs = PCA(len(W_dec)).fit(rows)
cosines = np.abs((W_dec * theirs.components_).sum(1))
assert cosines.min() > 1 - 1e-6, cosines
np.testing.assert_allclose(ours["b_dec"].numpy(), theirs.mean_, rtol=1e-5)
print(f"{len(W_dec)} components are scikit-learn's, the least cosine {cosines.min():.9f}")

ours = load(sys.argv[5])
centroids = (ours["W_dec"] + ours["b_dec"]).numpy().astype("f8")
squares = ((rows[:, None] - centroids[None]) ** 2).sum(-1)
here = squares.min(1).sum()
there = KMeans(len(centroids), init=centroids, n_init=1, max_iter=300).fit(rows).inertia_
alone = KMeans(len(centroids), n_init=1, random_state=0).fit(rows).inertia_
assert there > 0.99 * here, (here, there)
print(f"k-means: {here:.6g}; scikit-learn makes {there:.6g} of these centroids, and {alone:.6g} of its own")
