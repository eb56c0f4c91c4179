"""Makes tests/goldens/formats/dictionary_learning with dictionary_learning itself: python make_dictionary_learning.py"""

import json

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
from dictionary_learning.trainers.gated_anneal import GatedAnnealTrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE, MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, JumpReluAutoEncoder
from dictionary_learning.utils import load_dictionary
from record import D_MODEL, D_SAE, TOP_K, Recorder, randomise, thresholds

recorder = Recorder("dictionary_learning", 2, ["dictionary-learning", "torch"])
COMMON = {"steps": 10_000, "activation_dim": D_MODEL, "dict_size": D_SAE, "layer": 2, "lm_name": "vit", "device": "cpu",
          "seed": 0}


def save(case, trainer):
    """As its training loop does."""
    folder = recorder.folder / case
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config, "buffer": {"d_submodule": D_MODEL}}, indent=4))
    torch.save({key: value.cpu() for key, value in trainer.ae.state_dict().items()}, folder / "ae.pt")


@torch.no_grad()
def keep(case, trainer):
    save(case, trainer)
    ae = trainer.ae
    codes = ae.encode(recorder.x)
    recorder.accepted(case, codes, ae.decode(codes))
    loaded, _ = load_dictionary(str(recorder.folder / case), "cpu")
    assert torch.allclose(loaded(recorder.x), ae(recorder.x), atol=1e-5), case


def made(cls, seed, **more):
    trainer = cls(**COMMON, **more)
    randomise(trainer.ae, seed)
    return trainer


keep("standard", made(StandardTrainer, 10))
keep("standard_april", made(StandardTrainerAprilUpdate, 11))
trainer = made(TopKTrainer, 12, k=TOP_K)
trainer.ae.threshold = torch.tensor(0.4)
keep("top_k", trainer)
trainer = made(BatchTopKTrainer, 13, k=TOP_K)
trainer.ae.threshold = torch.tensor(0.7)
keep("batch_top_k", trainer)
keep("batch_top_k_untrained_threshold", made(BatchTopKTrainer, 14, k=TOP_K))
trainer = made(MatryoshkaBatchTopKTrainer, 15, k=TOP_K, group_fractions=[0.25, 0.25, 0.5])
trainer.ae.threshold = torch.tensor(0.5)
keep("matryoshka_batch_top_k", trainer)
trainer = made(JumpReluTrainer, 16)
trainer.ae.threshold.data = thresholds(17)
keep("jump_relu", trainer)
keep("gated", made(GatedAnnealTrainer, 18))

# A class that the library reads, and none of its trainers writes.
new = AutoEncoderNew(D_MODEL, D_SAE)
randomise(new, 19)
config = {"trainer": {"dict_class": "AutoEncoderNew", "activation_dim": D_MODEL, "dict_size": D_SAE}, "buffer": {}}
(recorder.folder / "new").mkdir()
(recorder.folder / "new" / "config.json").write_text(json.dumps(config))
torch.save(new.state_dict(), recorder.folder / "new" / "ae.pt")
with torch.no_grad():
    loaded, _ = load_dictionary(str(recorder.folder / "new"), "cpu")
    recorder.accepted("new", (codes := loaded.encode(recorder.x)), loaded.decode(codes))


def keep_bare(name, module, seed):
    """Without a configuration, as programs that know the class save it."""
    randomise(module, seed)
    torch.save(module.state_dict(), recorder.folder / name)


# Two classes are known by their tensors, which nobody else calls so.
for name, module, seed in [
    ("bare_standard.pt", AutoEncoder(D_MODEL, D_SAE), 21),
    ("bare_matryoshka_batch_top_k.pt", MatryoshkaBatchTopKSAE(D_MODEL, D_SAE, TOP_K, [4, 4, 8]), 22),
]:
    keep_bare(name, module, seed)
    with torch.no_grad():
        recorder.accepted(name, (codes := module.encode(recorder.x)), module.decode(codes))
for name, module, seed in [
    ("bare_new.pt", AutoEncoderNew(D_MODEL, D_SAE), 19),
    ("bare_batch_top_k.pt", BatchTopKSAE(D_MODEL, D_SAE, TOP_K), 20),
    ("bare_jump_relu.pt", JumpReluAutoEncoder(D_MODEL, D_SAE), 23),
]:
    keep_bare(name, module, seed)
    recorder.refused(name, "dict_class")

recorder.write()
