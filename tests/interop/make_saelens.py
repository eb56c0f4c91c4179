"""Makes tests/goldens/formats/saelens with SAELens itself: python make_saelens.py"""

import json
import tempfile
import warnings

import torch
from record import D_MODEL, D_SAE, TOP_K, Recorder, randomise, thresholds
from safetensors.torch import load_file, save_file
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    JumpReLUTranscoder,
    JumpReLUTranscoderConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    SkipTranscoder,
    SkipTranscoderConfig,
    StandardSAE,
    StandardSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
    TrainingSAE,
    Transcoder,
    TranscoderConfig,
)
from sae_lens.saes.sae import SAEMetadata

warnings.simplefilter("ignore")
recorder = Recorder("saelens", 1, ["sae-lens", "torch", "safetensors"])
SIZES = {"d_in": D_MODEL, "d_sae": D_SAE}


def metadata(**more):
    return SAEMetadata(model_name="vit", hook_name="blocks.2.hook_resid_post", context_size=50, prepend_bos=True, **more)


@torch.no_grad()
def outputs(case, **options):
    """What SAELens computes from the files."""
    sae = SAE.load_from_disk(recorder.folder / case, **options)
    codes = sae.encode(recorder.x)
    return codes, sae.decode(codes)


def keep(case, sae):
    sae.save_model(recorder.folder / case)
    recorder.accepted(case, *outputs(case))


def edit(case, change):
    """Rewrites the configuration of a case, as older versions had it."""
    path = recorder.folder / case / "cfg.json"
    cfg = json.loads(path.read_text())
    cfg = change(cfg) or cfg
    path.write_text(json.dumps(cfg))


def make(cls, config, seed, **more):
    sae = cls(config(**SIZES, metadata=metadata(), **more))
    randomise(sae, seed)
    if hasattr(sae, "threshold"):
        sae.threshold.data = thresholds(seed + 1)
    return sae


keep("standard", make(StandardSAE, StandardSAEConfig, 10))
keep("standard_plain_input", make(StandardSAE, StandardSAEConfig, 11, apply_b_dec_to_input=False))
make(StandardSAE, StandardSAEConfig, 12, dtype="bfloat16").save_model(recorder.folder / "standard_bfloat16")
recorder.accepted("standard_bfloat16", *outputs("standard_bfloat16", dtype="float32"))
keep("topk", make(TopKSAE, TopKSAEConfig, 20, k=TOP_K))
keep("topk_rescaled", make(TopKSAE, TopKSAEConfig, 21, k=TOP_K, rescale_acts_by_decoder_norm=True))
keep("jumprelu", make(JumpReLUSAE, JumpReLUSAEConfig, 30))
keep("jumprelu_plain_input", make(JumpReLUSAE, JumpReLUSAEConfig, 31, apply_b_dec_to_input=False))

for case, cls, config, more in [
    ("batchtopk", BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {}),
    ("matryoshka_batchtopk", MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig,
     {"matryoshka_widths": [4, 8, D_SAE]}),
]:
    training = cls(config(**SIZES, k=TOP_K, metadata=metadata(), rescale_acts_by_decoder_norm=True, **more))
    randomise(training, 40)
    training.topk_threshold = torch.tensor(0.6, dtype=torch.double)
    training.save_inference_model(recorder.folder / case)
    recorder.accepted(case, *outputs(case))


# Checkpoints of training: weights and configuration as they are then. What counts is what SAELens makes of them for use.
def keep_checkpoint(case, cls, config, seed, prepare=lambda sae: None, **more):
    training = cls(config(**SIZES, metadata=metadata(), **more))
    randomise(training, seed)
    prepare(training)
    training.save_model(recorder.folder / case)
    with tempfile.TemporaryDirectory() as folder:
        training.save_inference_model(folder)
        sae = SAE.load_from_disk(folder)
        with torch.no_grad():
            recorder.accepted(case, (codes := sae.encode(recorder.x)), sae.decode(codes))
    return training


def with_threshold(value):
    def prepare(sae):
        sae.topk_threshold = torch.tensor(value, dtype=torch.double)

    return prepare


def with_thresholds(sae):
    sae.threshold.data = thresholds(45)


keep_checkpoint("training_checkpoint", MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig, 40,
                with_threshold(0.6), k=TOP_K, rescale_acts_by_decoder_norm=True, matryoshka_widths=[4, 8, D_SAE])
keep_checkpoint("training_batchtopk", BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, 41, with_threshold(0.4), k=2.5,
                rescale_acts_by_decoder_norm=False, apply_b_dec_to_input=False)
keep_checkpoint("training_standard", StandardTrainingSAE, StandardTrainingSAEConfig, 42)
keep_checkpoint("training_topk", TopKTrainingSAE, TopKTrainingSAEConfig, 43, k=TOP_K)
keep_checkpoint("training_jumprelu", JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, 44, with_thresholds,
                jumprelu_sparsity_loss_mode="tanh", pre_act_loss_coefficient=3e-6)
# The versions before 6.49 trained the thresholds' logarithms, and saved them so.
training = keep_checkpoint("training_log_threshold", JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, 46,
                           lambda sae: sae.threshold.data.copy_(torch.linspace(0.05, 1.5, D_SAE)))
path = recorder.folder / "training_log_threshold" / "sae_weights.safetensors"
tensors = load_file(path)
tensors["log_threshold"] = tensors.pop("threshold").log()
save_file(tensors, path)
with torch.no_grad():
    training = TrainingSAE.load_from_disk(recorder.folder / "training_log_threshold")
    recorder.accepted("training_log_threshold", (codes := training.encode(recorder.x)), training.decode(codes))

# A scale of the inputs: SAELens keeps it beside the model while it trains, and folds it in when it is done.
sae = make(StandardSAE, StandardSAEConfig, 50, normalize_activations="expected_average_only_in")
sae.save_model(recorder.folder / "scaled")
(recorder.folder / "scaled" / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.37}))
sae.fold_activation_norm_scaling_factor(0.37)
with torch.no_grad():
    recorder.accepted("scaled", (codes := sae.encode(recorder.x)), sae.decode(codes))
make(StandardSAE, StandardSAEConfig, 51, normalize_activations="expected_average_only_in").save_model(
    recorder.folder / "scaled_unknown"
)
recorder.refused("scaled_unknown", "normalize_activations")

# Rows that are normalised one by one. Beside the refusal stands what the model is behind that.
for case, key in [("layer_norm", "layer_norm"), ("norm_rescale", "constant_norm_rescale")]:
    sae = make(TopKSAE, TopKSAEConfig, 60, k=TOP_K, normalize_activations=key)
    sae.save_model(recorder.folder / case)
    sae.run_time_activation_norm_fn_in = sae.run_time_activation_norm_fn_out = lambda x: x
    with torch.no_grad():
        recorder.accepted(case, (codes := sae.encode(recorder.x)), sae.decode(codes), accept=["normalised-rows"])

for case, cls, config, more in [
    ("transcoder", Transcoder, TranscoderConfig, {}),
    ("skip_transcoder", SkipTranscoder, SkipTranscoderConfig, {}),
    ("jumprelu_transcoder", JumpReLUTranscoder, JumpReLUTranscoderConfig, {}),
]:
    sae = cls(config(**SIZES, d_out=D_MODEL, apply_b_dec_to_input=False, metadata=metadata(), **more))
    randomise(sae, 71)
    sae.save_model(recorder.folder / case)
    recorder.refused(case, f'the architecture is "{case}"')
keep("gated", make(GatedSAE, GatedSAEConfig, 70))
keep("gated_plain_input", make(GatedSAE, GatedSAEConfig, 71, apply_b_dec_to_input=False))

# As the versions 3 to 5 wrote it: no metadata, other names, a function's name and its arguments.
OLD = {
    "hook_layer": 2, "hook_head_index": None, "dataset_path": "imagenet", "dataset_trust_remote_code": True,
    "sae_lens_training_version": "3.10.0", "activation_fn_kwargs": {}, "finetuning_scaling_factor": False,
    "neuronpedia_id": None, "model_from_pretrained_kwargs": {},
}


def as_old(cfg, **fields):
    flat = {key: value for key, value in cfg.items() if key not in ("metadata", "reshape_activations", "k",
                                                                    "rescale_acts_by_decoder_norm")}
    flat |= {"model_name": "vit", "hook_name": "blocks.2.hook_resid_post", "context_size": 50, "prepend_bos": True}
    return flat | OLD | fields


make(StandardSAE, StandardSAEConfig, 80).save_model(recorder.folder / "old_standard")
edit("old_standard", lambda cfg: as_old(cfg, activation_fn_str="relu"))
recorder.accepted("old_standard", *outputs("old_standard"))

make(TopKSAE, TopKSAEConfig, 81, k=TOP_K).save_model(recorder.folder / "old_topk")
edit("old_topk", lambda cfg: as_old(cfg, architecture="standard", activation_fn_str="topk",
                                    activation_fn_kwargs={"k": TOP_K}, normalize_activations=False))
recorder.accepted("old_topk", *outputs("old_topk"))

make(StandardSAE, StandardSAEConfig, 82).save_model(recorder.folder / "older")


def as_older(cfg):
    flat = as_old(cfg)
    for field in ("architecture", "apply_b_dec_to_input", "hook_name", "normalize_activations", "activation_fn_kwargs"):
        del flat[field]
    return flat | {"hook_point": "blocks.2.hook_resid_post", "hook_point_head_index": None, "hook_point_layer": 2}


edit("older", as_older)
tensors = load_file(recorder.folder / "older" / "sae_weights.safetensors")
save_file(tensors | {"scaling_factor": torch.ones(D_SAE)}, recorder.folder / "older" / "sae_weights.safetensors")
recorder.accepted("older", *outputs("older"))

recorder.write()
