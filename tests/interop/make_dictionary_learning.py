"""Makes tests/goldens/formats/dictionary_learning with dictionary_learning itself: python make_dictionary_learning.py"""

import json

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
from dictionary_learning.trainers.gated_anneal import GatedAnnealTrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer
from dictionary_learning.dictionary import AutoEncoderNew
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
save("gated", made(GatedAnnealTrainer, 18))
recorder.refused("gated", "GatedAutoEncoder")

# Bare files, which say what they are where their tensors do.
with torch.no_grad():
    new = AutoEncoderNew(D_MODEL, D_SAE)
    randomise(new, 19)
    torch.save(new.state_dict(), recorder.folder / "bare_new.pt")
    recorder.accepted("bare_new.pt", (codes := new.encode(recorder.x)), new.decode(codes))
bare = BatchTopKSAE(D_MODEL, D_SAE, TOP_K)
randomise(bare, 20)
torch.save(bare.state_dict(), recorder.folder / "bare_batch_top_k.pt")
recorder.refused("bare_batch_top_k.pt", "dict_class")

recorder.write()
