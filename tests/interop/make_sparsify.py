"""Makes tests/goldens/formats/sparsify with sparsify itself: python make_sparsify.py"""

import json

import torch
from record import D_MODEL, D_SAE, TOP_K, Recorder, randomise
from sparsify import SparseCoder
from sparsify.config import SparseCoderConfig

recorder = Recorder("sparsify", 3, ["eai-sparsify", "torch", "safetensors"])


@torch.no_grad()
def save(case, seed, **more):
    coder = SparseCoder(D_MODEL, SparseCoderConfig(k=TOP_K, **more))
    randomise(coder, seed)
    coder.save_to_disk(recorder.folder / case)


@torch.no_grad()
def keep(case):
    coder = SparseCoder.load_from_disk(recorder.folder / case)
    values, indices, _ = coder.encode(recorder.x)
    codes = torch.zeros(len(recorder.x), D_SAE).scatter_(1, indices, values)
    recorder.accepted(case, codes, coder.decode(values, indices))


save("topk", 10, num_latents=D_SAE)
keep("topk")
save("topk_expansion", 11, expansion_factor=D_SAE // D_MODEL, normalize_decoder=False, multi_topk=True)
keep("topk_expansion")
save("groupmax", 12, num_latents=D_SAE, activation="groupmax")
recorder.refused("groupmax", "activation")
save("transcode", 13, num_latents=D_SAE, transcode=True)
recorder.refused("transcode", "transcode")
save("skip", 14, num_latents=D_SAE, skip_connection=True)
recorder.refused("skip", "skip_connection")

# As version 0.x wrote it: another field, and no activation, which was always TopK.
save("old", 15, num_latents=D_SAE)
path = recorder.folder / "old" / "cfg.json"
cfg = json.loads(path.read_text())
del cfg["activation"], cfg["transcode"], cfg["skip_connection"]
path.write_text(json.dumps(cfg | {"signed": False}))
keep("old")
save("signed", 16, num_latents=D_SAE)
path = recorder.folder / "signed" / "cfg.json"
path.write_text(json.dumps(json.loads(path.read_text()) | {"signed": True}))
recorder.refused("signed", "signed")

recorder.write()
