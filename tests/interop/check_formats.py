"""Opens the files of write_formats.ts with the libraries whose formats they have: python check_formats.py FOLDER"""

import importlib.metadata
import json
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from dictionary_learning.utils import load_dictionary
from sae_lens import SAE

warnings.simplefilter("ignore")
folder = pathlib.Path(sys.argv[1])
index = json.loads((folder / "index.json").read_text())
x = np.array(index["x"], dtype=np.float32).reshape(-1, index["d_model"])


def with_saelens(path):
    sae = SAE.load_from_disk(path)
    codes = sae.encode(torch.from_numpy(x))
    return codes.numpy(), sae(torch.from_numpy(x)).numpy()


def with_dictionary_learning(path):
    dictionary, _ = load_dictionary(str(path), "cpu")
    if type(dictionary).__name__ == "AutoEncoder":
        # Its own loader makes the decoder's rows unit vectors, and the codes longer.
        again = type(dictionary).from_pretrained(path / "ae.pt", normalize_decoder=False)
        x_hat, codes = again(torch.from_numpy(x), output_features=True)
        assert torch.allclose(x_hat, dictionary(torch.from_numpy(x)), atol=1e-4)
    else:
        codes = dictionary.encode(torch.from_numpy(x))
        x_hat = dictionary.decode(codes)
    return codes.numpy(), x_hat.numpy()


def with_onnxruntime(path):
    model = onnx.load(path.with_suffix(".onnx"))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = dict(zip([output.name for output in session.get_outputs()], session.run(None, {"x": x})))
    one_row = dict(zip(outputs, session.run(None, {"x": x[:1]})))
    assert all(np.allclose(one_row[name], outputs[name][:1], atol=1e-5) for name in outputs)
    return outputs["f_x"], outputs.get("x_hat")


READERS = {
    "saelens": with_saelens,
    "dictionary_learning": with_dictionary_learning,
    "onnx": with_onnxruntime,
    "onnx_encoder": with_onnxruntime,
}
counts = {name: 0 for name in READERS}
worst = {name: 0.0 for name in READERS}
with torch.no_grad():
    for name, model in index["models"].items():
        for written in model["written"]:
            codes, x_hat = READERS[written](folder / name / written)
            want = np.array(model["codes"]).reshape(codes.shape)
            assert ((codes != 0) == (want != 0)).all(), (name, written)
            pairs = [(codes, want)]
            if x_hat is not None:
                pairs.append((x_hat, np.array(model["x_hat"]).reshape(x_hat.shape)))
            for got, expected in pairs:
                error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
                assert error < 32 * 2**-24, (name, written, error)
                worst[written] = max(worst[written], error)
            counts[written] += 1
for name, count in counts.items():
    print(f"{name}: {count} models compute the same, worst relative error {worst[name]:.1e}")
packages = ["sae-lens", "dictionary-learning", "onnx", "onnxruntime", "torch"]
print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages))
