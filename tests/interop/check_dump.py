"""Checks the checkpoints of dump_files.ts with PyTorch, and writes some of its own for load_files.ts.

python check_dump.py FOLDER
"""

import collections
import io
import json
import pathlib
import struct
import sys
import tempfile
import zipfile

import numpy as np
import orjson
import torch

folder = pathlib.Path(sys.argv[1])
index = json.loads((folder / "index.json").read_text())
THRESHOLD = "activation.threshold"
ORDERS = {1: ["W_enc", "b_enc", "W_dec", "b_dec"], 5: ["W_dec", "b_dec", "W_enc", "b_enc"]}


class BatchTopK(torch.nn.Module):
    """Upstream's activation, as far as its state goes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("threshold", torch.tensor(0.0))


class Model(torch.nn.Module):
    """Upstream's model, as far as its state dict goes."""

    def __init__(self, tensors):
        super().__init__()
        for name, tensor in tensors.items():
            if name != THRESHOLD:
                setattr(self, name, torch.nn.Parameter(tensor))
        self.activation = BatchTopK() if THRESHOLD in tensors else torch.nn.ReLU()


def split(path):
    """As upstream's load() does."""
    with open(path, "rb") as fd:
        return json.loads(fd.readline()), fd.read()


def expected(name, parameter, shape):
    return torch.from_numpy(np.fromfile(folder / f"{name}.{parameter}.f32", dtype="<f4").reshape(shape))


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()


def places_of_id(body):
    """Where the first half of the serialization id and its checksum stand: all that may differ from torch.save."""
    info = zipfile.ZipFile(io.BytesIO(body)).getinfo("archive/.data/serialization_id")
    name_size, extra_size = struct.unpack("<HH", body[info.header_offset + 26 : info.header_offset + 30])
    start = info.header_offset + 30 + name_size + extra_size
    places = set(range(start, start + 20))
    places |= set(range(start + 40 + 4, start + 40 + 8))
    central = body.rindex(b"PK\x01\x02")
    return places | set(range(central + 16, central + 20))


for name, about in index["models"].items():
    header, body = split(folder / f"{name}.pt")
    d_model, d_sae = about["d_model"], about["d_sae"]
    assert header["schema"] == about["schema"], header
    assert list(header)[-1] == "saev_nn" and header["commit"] == "unknown" and header["lib"] == "0.1.0"
    assert zipfile.ZipFile(io.BytesIO(body)).testzip() is None

    shapes = {"W_enc": (d_model, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_model), "b_dec": (d_model,)}
    want = {key: expected(name, key, shape) for key, shape in shapes.items()}
    order = list(ORDERS[1 if about["schema"] == 1 else 5])
    if about["activation"] == "batch-top-k":
        want[THRESHOLD] = expected(name, "threshold", ())
        order.append(THRESHOLD)
    state = torch.load(io.BytesIO(body), weights_only=True)
    assert type(state) is collections.OrderedDict
    assert list(state) == order, list(state)
    assert all(same_bits(state[key], want[key]) for key in want), name

    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        file.write(body)
        file.flush()
        mapped = torch.load(file.name, weights_only=True, mmap=True)
        assert all(same_bits(mapped[key], want[key]) for key in want), name
        assert all(mapped[key].data_ptr() % 64 == mapped["W_enc"].data_ptr() % 64 for key in want)
        del mapped

    model = Model({key: torch.zeros_like(tensor) for key, tensor in state.items()})
    model.load_state_dict(state)
    again = io.BytesIO()
    torch.save(model.state_dict(), again)
    theirs = again.getvalue()
    assert len(theirs) == len(body), (name, len(theirs), len(body))
    differing = {i for i, (a, b) in enumerate(zip(theirs, body)) if a != b}
    assert differing <= places_of_id(body), sorted(differing - places_of_id(body))[:20]
    print(f"{name}: schema {about['schema']}, {len(body)} bytes, loads, maps; {len(differing)} bytes of the id differ")

floats = [float(value) for value in index["floats"]]
assert orjson.dumps(floats).decode() == index["orjson"]
assert json.dumps(floats) == index["dumps"]
print(f"{len(floats)} floats are written as orjson {orjson.__version__} and json.dumps write them")

matrix = np.load(folder / "matrix.npy")
saved = io.BytesIO()
np.save(saved, matrix)
assert matrix.shape == (3, 5) and saved.getvalue() == (folder / "matrix.npy").read_bytes()
print("the .npy file is the one numpy.save writes")

# The other way: files as PyTorch writes them, to be read by load_files.ts.
torch.manual_seed(0)
base = {"W_dec": torch.randn(5, 3), "b_dec": torch.randn(3), "W_enc": torch.randn(3, 5), "b_enc": torch.randn(5)}
header = (
    '{"schema":5,"cfg":{"d_model":3,"d_sae":5,"activation":{"cls":"Relu","params":{"key":"relu"}}},'
    '"commit":"unknown","lib":"0.1.0"}\n'
)
variants = {
    "plain": base,
    "half": {key: tensor.half() for key, tensor in base.items()},
    "bfloat16": {key: tensor.bfloat16() for key, tensor in base.items()},
    "double": {key: tensor.double() / 3 for key, tensor in base.items()},
    "view": {**base, "W_enc": base["W_dec"].T},
    "offset": {**base, "W_enc": torch.randn(40)[7:22].view(3, 5), "b_dec": torch.randn(9)[1::3]},
}
for name, tensors in variants.items():
    file = io.BytesIO()
    torch.save(collections.OrderedDict(tensors), file)
    (folder / f"python_{name}.pt").write_bytes(header.encode() + file.getvalue())
    for key, tensor in tensors.items():
        (folder / f"python_{name}.{key}.f32").write_bytes(tensor.float().contiguous().numpy().astype("<f4").tobytes())
batch = base | {"activation.threshold": torch.tensor(0.3)}
file = io.BytesIO()
torch.save(Model(batch).state_dict() | batch, file)
batch_header = header.replace('"Relu","params":{"key":"relu"}', '"BatchTopK","params":{"key":"batch-top-k","top_k":2}')
(folder / "python_batch.pt").write_bytes(batch_header.encode() + file.getvalue())
for key, tensor in batch.items():
    (folder / f"python_batch.{key.split('.')[-1]}.f32").write_bytes(tensor.numpy().astype("<f4").tobytes())
file = io.BytesIO()
torch.save(base, file, _use_new_zipfile_serialization=False)
(folder / "refused_legacy.pt").write_bytes(header.encode() + file.getvalue())
stem = folder / "python_stem.zip"
torch.save(base, stem)
(folder / "python_stem.pt").write_bytes(header.encode() + stem.read_bytes())
for key, tensor in base.items():
    (folder / f"python_stem.{key}.f32").write_bytes(tensor.numpy().astype("<f4").tobytes())
print(f"wrote {len(variants) + 3} files with PyTorch {torch.__version__}, NumPy {np.__version__}")
