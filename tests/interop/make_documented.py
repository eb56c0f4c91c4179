"""Makes tests/goldens/formats/{openai,gemma_scope,vit_prisma,llamascopium}: python make_documented.py

These libraries cannot be installed beside the others. The files have the layouts that their sources show, written with
PyTorch, NumPy and safetensors; the outputs are the formulas of their sources, computed with PyTorch.
"""

import collections
import json
import math

import numpy as np
import torch
from record import D_MODEL, D_SAE, TOP_K, Recorder, thresholds
from safetensors.torch import save_file

SIZE = {"d_in": D_MODEL, "d_sae": D_SAE}


def parameters(seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    return draw(D_MODEL, D_SAE) * 0.5, draw(D_SAE) * 0.2, draw(D_SAE, D_MODEL) * 0.5, draw(D_MODEL) * 0.2


def top_k(h, k, after=torch.relu):
    values, indices = h.topk(k, dim=-1)
    return torch.zeros_like(h).scatter_(-1, indices, after(values))


# ------------------------------------------------------------------------------------------------------------ OpenAI

recorder = Recorder("openai", 4, ["torch"])


def openai(case, seed, activation, activation_state):
    W_enc, b_enc, W_dec, b_dec = parameters(seed)
    state = collections.OrderedDict(
        {
            "pre_bias": b_dec,
            "latent_bias": b_enc,
            "stats_last_nonzero": torch.arange(D_SAE),
            "latents_activation_frequency": torch.ones(D_SAE),
            "latents_mean_square": torch.zeros(D_SAE),
            "encoder.weight": W_enc.T.contiguous(),
            "decoder.weight": W_dec.T.contiguous(),
        }
    )
    state["activation"] = activation
    if activation_state is not None:
        state["activation_state_dict"] = activation_state
    torch.save(state, recorder.folder / case)
    return (recorder.x - b_dec) @ W_enc + b_enc, W_dec, b_dec


# torch.nn.ReLU and Identity have a state dict, without anything in it.
h, W_dec, b_dec = openai("relu.pt", 10, "ReLU", collections.OrderedDict())
recorder.accepted("relu.pt", torch.relu(h), torch.relu(h) @ W_dec + b_dec)

for case, seed, after, name in [("topk.pt", 11, torch.relu, "ReLU"), ("topk_identity.pt", 12, lambda x: x, "Identity")]:
    k = 12 if name == "Identity" else TOP_K
    h, W_dec, b_dec = openai(case, seed, "TopK", collections.OrderedDict(k=k, postact_fn=name))
    codes = top_k(h, k, after)
    recorder.accepted(case, codes, codes @ W_dec + b_dec, accept=["normalised-rows"])

h, W_dec, b_dec = openai("identity.pt", 13, "Identity", collections.OrderedDict())
recorder.refused("identity.pt", "activation")

# With tied weights the decoder is a module without parameters of its own, and the state dict has none.
W_enc, b_enc, _, b_dec = parameters(14)
shared = W_enc.T.contiguous()
torch.save(
    collections.OrderedDict(
        {
            "pre_bias": b_dec,
            "latent_bias": b_enc,
            "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
            "latents_activation_frequency": torch.ones(D_SAE),
            "latents_mean_square": torch.zeros(D_SAE),
            "encoder.weight": shared,
            "decoder.linear.weight": shared,
            "activation": "ReLU",
            "activation_state_dict": collections.OrderedDict(),
        }
    ),
    recorder.folder / "tied.pt",
)
codes = torch.relu((recorder.x - b_dec) @ W_enc + b_enc)
recorder.accepted("tied.pt", codes, codes @ W_enc.T + b_dec)
recorder.write()

# ------------------------------------------------------------------------------------------------------- Gemma Scope

recorder = Recorder("gemma_scope", 5, ["torch", "numpy"])


def gemma(case, seed, save, spell=str, **more):
    W_enc, b_enc, W_dec, b_dec = parameters(seed)
    threshold = thresholds(seed + 1).clamp(min=0)
    arrays = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "threshold": threshold, **more}
    save(recorder.folder / case, **{spell(name): np.asarray(value.numpy()) for name, value in arrays.items()})
    h = recorder.x @ W_enc + b_enc
    codes = h * (h > threshold)
    return codes, codes @ W_dec + b_dec


recorder.accepted("params.npz", *gemma("params.npz", 10, np.savez))
recorder.accepted("compressed.npz", *gemma("compressed.npz", 12, np.savez_compressed))
recorder.accepted("lower_case.npz", *gemma("lower_case.npz", 14, np.savez, str.lower))
gemma("scaled.npz", 16, np.savez, scaling_factor=torch.full((D_SAE,), 1.5))
recorder.refused("scaled.npz", "scaling_factor")
recorder.write()

# -------------------------------------------------------------------------------------------------------- ViT-Prisma

recorder = Recorder("vit_prisma", 6, ["torch"])
PRISMA = {
    "model_class_name": "HookedViT", "model_name": "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "vit_model_cfg": None, "model_path": None, "hook_point_layer": 9, "layer_subtype": "hook_resid_post",
    "hook_point_head_index": None, "context_size": 50, "use_cached_activations": False, "use_patches_only": False,
    "cached_activations_path": "activations", **SIZE, "activation_fn_str": "relu", "activation_fn_kwargs": {},
    "cls_token_only": False, "max_grad_norm": 1.0, "initialization_method": "encoder_transpose_decoder",
    "normalize_activations": None, "n_batches_in_buffer": 20, "store_batch_size": 32, "num_workers": 16,
    "num_epochs": 10, "total_training_images": 13000000, "total_training_tokens": 650000000, "image_size": 224,
    "device": {"__type__": "torch.device", "value": "cuda"}, "seed": 42,
    "dtype": {"__type__": "torch.dtype", "value": "torch.float32"}, "architecture": "standard", "verbose": False,
    "b_dec_init_method": "geometric_median", "expansion_factor": 2, "from_pretrained_path": None,
    "l1_coefficient": 0.0002, "lp_norm": 1, "lr": 0.001, "lr_scheduler_name": "cosineannealingwarmup",
    "lr_warm_up_steps": 500, "train_batch_size": 4096, "is_transcoder": False,
    "transcoder_with_skip_connection": False, "out_hook_point_layer": 9, "layer_out_subtype": "hook_mlp_out",
    "d_out": 768, "dataset_name": "imagenet1k", "dataset_path": "imagenet", "dataset_train_path": "train",
    "dataset_val_path": "val", "use_ghost_grads": True, "feature_sampling_window": 1000,
    "dead_feature_window": 5000, "dead_feature_threshold": 1e-8, "log_to_wandb": True, "wandb_project": "sae",
    "wandb_entity": None, "wandb_log_frequency": 10, "n_validation_runs": 100, "n_checkpoints": 10,
    "checkpoint_path": "checkpoints",
}


def prisma(case, seed, **fields):
    W_enc, b_enc, W_dec, b_dec = parameters(seed)
    folder = recorder.folder / case
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(PRISMA | fields, indent=1))
    state = collections.OrderedDict(W_dec=W_dec, W_enc=W_enc, b_enc=b_enc, b_dec=b_dec)
    torch.save(state, folder / "weights.pt")
    return (recorder.x - b_dec) @ W_enc + b_enc, W_dec, b_dec


h, W_dec, b_dec = prisma("relu", 10)
recorder.accepted("relu", torch.relu(h), torch.relu(h) @ W_dec + b_dec)
h, W_dec, b_dec = prisma("topk", 11, activation_fn_str="topk", activation_fn_kwargs={"k": TOP_K})
recorder.accepted("topk", (codes := top_k(h, TOP_K)), codes @ W_dec + b_dec)
h, W_dec, b_dec = prisma("layer_norm", 12, normalize_activations="layer_norm")
recorder.accepted("layer_norm", torch.relu(h), torch.relu(h) @ W_dec + b_dec, accept=["normalised-rows"])
prisma("tanh_relu", 13, activation_fn_str="tanh-relu")
recorder.refused("tanh_relu", "activation_fn_str")
prisma("gated", 14, architecture="gated")
recorder.refused("gated", "gated")
prisma("transcoder", 15, is_transcoder=True)
recorder.refused("transcoder", "is_transcoder")
recorder.write()

# ------------------------------------------------------------------------------------------------------ Llamascopium

recorder = Recorder("llamascopium", 7, ["torch", "safetensors"])
HOOK = "blocks.2.hook_resid_post"
SCOPE = {
    "device": "cpu", "dtype": "torch.float32", "sae_type": "sae", "d_model": D_MODEL,
    "expansion_factor": D_SAE / D_MODEL, "use_decoder_bias": True, "act_fn": "relu", "norm_activation": "inference",
    "sparsity_include_decoder_norm": True, "top_k": TOP_K, "use_triton_kernel": False,
    "sparsity_threshold_for_triton_spmm_kernel": 0.996, "jumprelu_threshold_window": 2.0, "hook_point_in": HOOK,
    "hook_point_out": HOOK, "use_glu_encoder": False,
}


def scope(case, seed, norm=1.0, tensors=None, without=(), **fields):
    W_E, b_E, W_D, b_D = parameters(seed)
    state = {"W_E": W_E, "b_E": b_E, "W_D": W_D, "b_D": b_D, **(tensors or {})}
    state[f"dataset_average_activation_norm.{HOOK}"] = torch.tensor(norm)
    folder = recorder.folder / case
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SCOPE | fields, indent=4))
    kept = {name: value for name, value in state.items() if name not in without}
    save_file(kept, folder / "sae_weights.safetensors", {"version": "2.0.0"})
    return W_E, b_E, W_D, b_D, W_D.norm(dim=1)


W_E, b_E, W_D, b_D, norms = scope("relu", 10, without=("b_D",), use_decoder_bias=False)
codes = torch.relu(recorder.x @ W_E + b_E)
recorder.accepted("relu", codes, codes @ W_D)

log_threshold = torch.linspace(-2, 0.5, D_SAE)
for case, includes in [("jumprelu", True), ("jumprelu_plain", False)]:
    W_E, b_E, W_D, b_D, norms = scope(
        case, 11, tensors={"activation_function.log_jumprelu_threshold": log_threshold}, act_fn="jumprelu",
        sparsity_include_decoder_norm=includes,
    )
    h = recorder.x @ W_E + b_E
    codes = h * (h * (norms if includes else 1) > log_threshold.exp())
    recorder.accepted(case, codes, codes @ W_D + b_D)

W_E, b_E, W_D, b_D, norms = scope("topk_plain", 12, act_fn="topk", sparsity_include_decoder_norm=False)
codes = top_k(torch.relu(recorder.x @ W_E + b_E), TOP_K)
recorder.accepted("topk_plain", codes, codes @ W_D + b_D)

W_E, b_E, W_D, b_D, norms = scope("topk", 13, act_fn="topk")
scaled = top_k(torch.relu((recorder.x @ W_E + b_E) * norms), TOP_K)
# What reads them has its codes in other units and the same reconstructions.
recorder.accepted("topk", scaled, (scaled / norms) @ W_D + b_D, accept=["rescaled-codes"])

W_E, b_E, W_D, b_D, norms = scope("dataset_wise", 14, norm=7.5, norm_activation="dataset-wise")
factor = math.sqrt(D_MODEL) / 7.5
codes = torch.relu(recorder.x * factor @ W_E + b_E)
recorder.accepted("dataset_wise", codes, (codes @ W_D + b_D) / factor)

W_E, b_E, W_D, b_D, norms = scope("token_wise", 15, norm_activation="token-wise")
codes = torch.relu(recorder.x @ W_E + b_E)
recorder.accepted("token_wise", codes, codes @ W_D + b_D, accept=["normalised-rows"])

for case, field, value in [
    ("batch_wise", "norm_activation", "batch-wise"), ("batchtopk", "act_fn", "batchtopk"),
    ("glu", "use_glu_encoder", True), ("transcoder", "hook_point_out", "blocks.2.hook_mlp_out"),
    ("clt", "sae_type", "clt"),
]:
    scope(case, 16, **{field: value})
    recorder.refused(case, field)
recorder.write()
