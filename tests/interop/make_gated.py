"""Makes tests/goldens/gated: forty steps of the gated training of SAELens and dictionary_learning, by their own code.

Of every step the parameters before it, the rows, the parts of the loss and all gradients, as they are before clipping.
python make_gated.py
"""

import collections
import pathlib

import numpy as np
import torch
from dictionary_learning.trainers.gdm import GatedSAETrainer
from sae_lens import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

GOLDENS = pathlib.Path(__file__).parent.parent / "goldens" / "gated"
D_MODEL, D_SAE, N_ROWS, N_STEPS = 6, 12, 16, 40
# Of dictionary_learning, and of SAELens.
L1 = 0.3


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(N_ROWS, D_MODEL, generator=generator) + 0.2 for _ in range(N_STEPS)]


@torch.no_grad()
def start(module, seed):
    """Biases and scales that are not zero; the decoder stays of unit rows."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


class Record:
    """What there is at every call of a function of the training code, which it then makes."""

    def __init__(self, parameters, owner, function):
        self.steps = collections.defaultdict(list)
        call = getattr(owner, function)

        def noted(*args, **kwargs):
            for name, (parameter, isTransposed) in parameters.items():
                for what, value in [(name, parameter), (f"grad_{name}", parameter.grad)]:
                    value = value.detach().clone()
                    self.steps[what].append((value.T if isTransposed else value).contiguous().numpy())
            return call(*args, **kwargs)

        setattr(owner, function, noted)

    def note(self, **values):
        for name, value in values.items():
            self.steps[name].append(np.float32(value))

    def write(self, name, **more):
        arrays = {key: np.stack(values).astype(np.float32) for key, values in self.steps.items()}
        assert all(len(values) == N_STEPS for values in arrays.values()), {k: len(v) for k, v in arrays.items()}
        GOLDENS.mkdir(exist_ok=True)
        path = GOLDENS / f"{name}.npz"
        np.savez(path, **arrays, **{key: np.float32(value) for key, value in more.items()})
        print(f"{name}: {path.stat().st_size} bytes")


# ------------------------------------------------------------------------------------------------- dictionary_learning

trainer = GatedSAETrainer(
    steps=N_STEPS, activation_dim=D_MODEL, dict_size=D_SAE, layer=0, lm_name="vit", lr=1e-2, l1_penalty=L1,
    warmup_steps=5, sparsity_warmup_steps=None, seed=1, device="cpu",
)
ae = trainer.ae
start(ae, 2)
record = Record(
    {
        "W_enc": (ae.encoder.weight, True), "b_gate": (ae.gate_bias, False), "r_mag": (ae.r_mag, False),
        "b_mag": (ae.mag_bias, False), "W_dec": (ae.decoder.weight, True), "b_dec": (ae.decoder_bias, False),
    },
    trainer.optimizer,
    "step",
)
for step, x in enumerate(batches(3)):
    losses = trainer.loss(x, step, logging=True).losses
    record.note(x=x.numpy(), mse=losses["mse_loss"], l1=losses["sparsity_loss"], aux=losses["aux_loss"])
    trainer.update(step, x)
record.write("dictionary_learning", l1_penalty=L1)

# -------------------------------------------------------------------------------------------------------------- SAELens

torch.manual_seed(4)
sae = GatedTrainingSAE(GatedTrainingSAEConfig(d_in=D_MODEL, d_sae=D_SAE, l1_coefficient=L1))
start(sae, 5)
cfg = SAETrainerConfig(
    total_training_samples=N_ROWS * N_STEPS, train_batch_size_samples=N_ROWS, lr=1e-2, lr_end=1e-2,
    device="cpu",
    logger=LoggingConfig(log_to_wandb=False),
)
rows = batches(6)
trainer = SAETrainer(cfg=cfg, sae=sae, data_provider=iter(rows))
names = ["W_enc", "b_gate", "r_mag", "b_mag", "W_dec", "b_dec"]
# It clips the gradients before the update.
record = Record({name: (getattr(sae, name), False) for name in names}, torch.nn.utils, "clip_grad_norm_")
forward = sae.training_forward_pass


def noted(*args, **kwargs):
    output = forward(*args, **kwargs)
    losses = {name: value.item() for name, value in output.losses.items()}
    record.note(
        x=output.sae_in.numpy(), mse=losses["mse_loss"], l1=losses["l1_loss"],
        aux=losses["auxiliary_reconstruction_loss"],
    )
    return output


sae.training_forward_pass = noted
trainer.fit()
record.write("saelens", l1_coefficient=L1)
