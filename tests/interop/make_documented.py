"""Makes tests/goldens/formats/{openai,gemma_scope,vit_prisma,llamascopium,llama_scope}: python make_documented.py

These libraries cannot be installed beside the others. The files have the layouts that their sources show, written with
PyTorch, NumPy and safetensors; the outputs are the formulas of their sources, computed with PyTorch.
"""

import collections
import json
import math
import sys
import types

import numpy as np
import torch
from record import D_MODEL, D_SAE, TOP_K, Recorder, thresholds
from safetensors.numpy import save_file as save_arrays
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

# Gemma Scope 2: a folder with a configuration, whose tensors are those of a transcoder as well.
GEMMA_HOOK = "model.layers.17.output"
GEMMA = {
    "hf_hook_point_in": GEMMA_HOOK, "hf_hook_point_out": GEMMA_HOOK, "width": D_SAE, "model_name": "google/gemma-3-1b-pt",
    "architecture": "jump_relu", "l0": 60, "affine_connection": False, "type": "sae",
}


def gemma_2(case, seed, without=(), **fields):
    folder = recorder.folder / case
    folder.mkdir()
    outputs = gemma(
        f"{case}/params.safetensors", seed, lambda path, **arrays: save_arrays(arrays, path), str.lower
    )
    cfg = {name: value for name, value in (GEMMA | fields).items() if name not in without}
    (folder / "config.json").write_text(json.dumps(cfg))
    return outputs


recorder.accepted("scope_2", *gemma_2("scope_2", 18))
recorder.accepted(
    "scope_2_bare", *gemma_2("scope_2_bare", 20, without=("type", "affine_connection", "hf_hook_point_out", "width"))
)
for case, field, value in [
    ("scope_2_transcoder", "type", "transcoder"), ("scope_2_crosscoder", "type", "crosscoder"),
    ("scope_2_affine", "affine_connection", True),
    ("scope_2_other_output", "hf_hook_point_out", "model.layers.17.mlp.output"),
    ("scope_2_width", "width", 2 * D_SAE), ("scope_2_architecture", "architecture", "topk"),
]:
    gemma_2(case, 22, **{field: value})
    recorder.refused(case, field)
gemma_2("scope_2_alone", 24)
(recorder.folder / "scope_2_alone" / "config.json").unlink()
recorder.refused("scope_2_alone", "config.json")
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


def prisma(case, seed, more={}, **fields):
    W_enc, b_enc, W_dec, b_dec = parameters(seed)
    folder = recorder.folder / case
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(PRISMA | fields, indent=1))
    state = collections.OrderedDict(W_dec=W_dec, W_enc=W_enc, b_enc=b_enc, b_dec=b_dec, **more)
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


def gate(seed):
    """Biases and scales of a gated encoder, and its codes."""
    W_enc, _, W_dec, b_dec = parameters(seed)
    generator = torch.Generator().manual_seed(seed + 100)
    b_gate, r_mag, b_mag = (0.3 * torch.randn(D_SAE, generator=generator) for _ in range(3))
    u = (recorder.x - b_dec) @ W_enc
    codes = (u + b_gate > 0) * torch.relu(u * r_mag.exp() + b_mag)
    return {"b_gate": b_gate, "r_mag": r_mag, "b_mag": b_mag}, codes, codes @ W_dec + b_dec


gates, codes, x_hat = gate(14)
prisma("gated", 14, gates, architecture="gated")
recorder.accepted("gated", codes, x_hat)
prisma("gated_topk", 14, gates, architecture="gated", activation_fn_str="topk", activation_fn_kwargs={"k": TOP_K})
recorder.refused("gated_topk", "activation_fn_str")
prisma("transcoder", 15, is_transcoder=True)
recorder.refused("transcoder", "is_transcoder")


# The older form: one file, with the configuration as an object of the library's class in the pickle.
class VisionModelSAERunnerConfig:
    pass


def module(name, **contents):
    """A module of the library's name, so that the pickle mentions the class as the library's own files do."""
    made = sys.modules.setdefault(name, types.ModuleType(name))
    for key, value in contents.items():
        value.__module__ = name
        setattr(made, key, value)


for parent in ("vit_prisma", "vit_prisma.sae"):
    module(parent)
module("vit_prisma.sae.config", VisionModelSAERunnerConfig=VisionModelSAERunnerConfig)


def pickled(case, seed, extra=None, more={}, **fields):
    W_enc, b_enc, W_dec, b_dec = parameters(seed)
    cfg = VisionModelSAERunnerConfig()
    cfg.__dict__.update(PRISMA | {"device": torch.device("cpu"), "dtype": torch.float32} | fields)
    # As __post_init__ leaves them.
    cfg.__dict__.update(hook_point="blocks.9.hook_resid_post", tokens_per_buffer=4096000, total_training_steps=158691)
    state = collections.OrderedDict(W_dec=W_dec, W_enc=W_enc, b_enc=b_enc, b_dec=b_dec, **more)
    torch.save({"cfg": cfg, "state_dict": state, **(extra or {})}, recorder.folder / case)
    return (recorder.x - b_dec) @ W_enc + b_enc, W_dec, b_dec


h, W_dec, b_dec = pickled("pickled_relu.pt", 16)
recorder.accepted("pickled_relu.pt", torch.relu(h), torch.relu(h) @ W_dec + b_dec)
h, W_dec, b_dec = pickled("pickled_topk.pt", 17, activation_fn_str="topk", activation_fn_kwargs={"k": TOP_K})
recorder.accepted("pickled_topk.pt", (codes := top_k(h, TOP_K)), codes @ W_dec + b_dec)
for case, field, value in [
    ("pickled_layer_norm.pt", "normalize_activations", "layer_norm"),
    ("pickled_leaky_relu.pt", "activation_fn_str", "leaky_relu"),
]:
    pickled(case, 18, **{field: value})
    recorder.refused(case, field)
gates, codes, x_hat = gate(19)
pickled("pickled_gated.pt", 19, more=gates, architecture="gated")
recorder.accepted("pickled_gated.pt", codes, x_hat)
pickled("pickled_optimizer.pt", 18, extra={"optimizer": {}})
recorder.refused("pickled_optimizer.pt", "optimizer")
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

# -------------------------------------------------------------------------------------------------------- Llama Scope

recorder = Recorder("llama_scope", 8, ["torch", "safetensors"])
HYPERPARAMS = {
    "device": "cuda:0", "seed": 42, "dtype": "torch.bfloat16", "hook_point_in": HOOK, "hook_point_out": HOOK,
    "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "expansion_factor": D_SAE // D_MODEL,
    "d_model": D_MODEL, "d_sae": D_SAE, "bias_init_method": "all_zero", "act_fn": "jumprelu",
    "jump_relu_threshold": 2.5, "norm_activation": "dataset-wise",
    "dataset_average_activation_norm": {"in": 10.8125, "out": 10.8125}, "decoder_exactly_fixed_norm": False,
    "sparsity_include_decoder_norm": True, "use_glu_encoder": False, "init_decoder_norm": 0.5,
    "init_encoder_norm": None, "init_encoder_with_decoder_transpose": True, "lp": 1, "l1_coefficient": 8e-05,
    "l1_coefficient_warmup_steps": 39062, "top_k": TOP_K, "k_warmup_steps": 39062, "use_batch_norm_mse": True,
    "use_ghost_grads": False, "tp_size": 1, "ddp_size": 1,
}


def llama(case, seed, **fields):
    """Writes the files, and computes as the library did after its two changes of the parameters: float64 throughout."""
    cfg = HYPERPARAMS | fields
    W_enc, b_enc, W_dec, b_dec = (value.double() for value in parameters(seed))
    state = {
        "encoder.weight": W_enc.T.float().contiguous(), "encoder.bias": b_enc.float(),
        "decoder.weight": W_dec.T.float().contiguous(), "decoder.bias": b_dec.float(),
    }
    folder = recorder.folder / case
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hyperparams.json").write_text(json.dumps(cfg, indent=4))
    kept = {name: value for name, value in state.items() if cfg["use_decoder_bias"] or name != "decoder.bias"}
    save_file(kept, folder / "checkpoints" / "final.safetensors")
    b_dec = b_dec if cfg["use_decoder_bias"] else torch.zeros_like(b_dec)
    if cfg["norm_activation"] == "dataset-wise":
        norm_in, norm_out = (math.sqrt(D_MODEL) / cfg["dataset_average_activation_norm"][key] for key in ("in", "out"))
        b_enc, b_dec, W_dec = b_enc / norm_in, b_dec / norm_out, W_dec * norm_in / norm_out
    if cfg["sparsity_include_decoder_norm"]:
        norms = W_dec.norm(dim=1)
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None]
    x = recorder.x.double()
    h = (x - b_dec if cfg["apply_decoder_bias_to_pre_encoder"] else x) @ W_enc + b_enc
    threshold = cfg["jump_relu_threshold"]
    act_fn = "jumprelu" if cfg["act_fn"] == "topk" and threshold > 0 else cfg["act_fn"]
    # Of a name that the library does not know nothing is recorded.
    codes = h * (h > threshold) if act_fn == "jumprelu" else top_k(h, TOP_K) if act_fn == "topk" else torch.relu(h)
    return codes, codes @ W_dec + b_dec


recorder.accepted("jumprelu", *llama("jumprelu", 10))
recorder.accepted("topk_with_threshold", *llama("topk_with_threshold", 11, act_fn="topk"))
recorder.accepted("topk", *llama("topk", 12, act_fn="topk", jump_relu_threshold=0))
recorder.accepted(
    "relu_plain",
    *llama("relu_plain", 13, act_fn="relu", sparsity_include_decoder_norm=False, norm_activation="none",
           dataset_average_activation_norm=None, use_decoder_bias=False),
)
recorder.accepted(
    "subtracts",
    *llama("subtracts", 14, apply_decoder_bias_to_pre_encoder=True,
           dataset_average_activation_norm={"in": 7.5, "out": 9.0}),
)
for case, field, value in [
    ("token_wise", "norm_activation", "token-wise"), ("batch_wise", "norm_activation", "batch-wise"),
    ("glu", "use_glu_encoder", True), ("transcoder", "hook_point_out", "blocks.2.hook_mlp_out"),
    ("elu", "act_fn", "elu"),
]:
    llama(case, 15, **{field: value})
    recorder.refused(case, field)
recorder.write()
