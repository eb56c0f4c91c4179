"""Reads event files with TensorBoard's own readers: the golden one, and that of a run beside its metrics.jsonl."""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing import event_accumulator, event_file_loader

root = pathlib.Path(sys.argv[1])
checks = 0


def check(what, found, expected):
    global checks
    assert found == expected, f"{what}: found {found}, expected {expected}"
    checks += 1


def accumulate(folder):
    sizes = {event_accumulator.SCALARS: 0, event_accumulator.HISTOGRAMS: 0, event_accumulator.TENSORS: 0}
    accumulator = event_accumulator.EventAccumulator(str(folder), size_guidance=sizes)
    accumulator.Reload()
    return accumulator


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def scalars(accumulator, tag):
    return [(one.step, one.value) for one in accumulator.Scalars(tag)]


# Every event, as the loader of raw protocol buffers gives it: a record with a wrong checksum would end it.
golden = root / "golden" / "events.out.tfevents.golden"
events = list(event_file_loader.LegacyEventFileLoader(str(golden)).Load())
check("events", len(events), 6)
check("version", events[0].file_version, "brain.Event:2")
check("wall time", events[1].wall_time, 1_700_000_000.5)
check("restart", (events[3].step, events[3].session_log.status), (26, 1))
histogram = events[4].summary.value[1].histo
check("bins", list(histogram.bucket_limit), [-2.25, -2, -1])
check("counts", list(histogram.bucket), [1, 2, 3])
numbers = (histogram.min, histogram.max, histogram.num, histogram.sum, histogram.sum_squares)
check("numbers", numbers, (-2.5, -0.25, 6, -9, 15.5))

read = accumulate(root / "golden")
# What was written of step 50 before the restart is void.
check("losses", scalars(read, "train/loss"), [(25, 0.5), (50, 0.125), (1_000_000, float32(1e-9))])
check("l0", scalars(read, "train/l0"), [(25, 32.0)])
check("histograms", [one.step for one in read.Histograms("validation/log10_density")], [50])

# The new loader, whose data every plugin of TensorBoard gets, turns histograms into tensors.
tensors = [
    (value.tag, value.tensor.tensor_shape.dim[0].size)
    for event in event_file_loader.EventFileLoader(str(golden)).Load()
    for value in event.summary.value
    if value.metadata.plugin_data.plugin_name == "histograms"
]
check("tensors", tensors, [("validation/log10_density", 3)])

# A run: every number of a report is that of its line in metrics.jsonl, each step once although some were made twice.
lines = [json.loads(line) for line in (root / "run" / "metrics.jsonl").read_text().splitlines()]
run = accumulate(root / "run")
reports = [lines[step - 1] for step in range(5, 121, 5)]
for name in ["loss", "mse", "sparsity", "l0", "l1", "aux", "n_dead", "sparsity_coeff", "grad_norm", "lr"]:
    expected = [(line["step"], float32(line[name])) for line in reports]
    check(name, scalars(run, f"train/{name}"), expected)
for name in ["W_enc", "b_enc", "W_dec", "b_dec"]:
    expected = [(line["step"], float32(line[f"grad_norms.{name}"])) for line in reports]
    check(name, scalars(run, f"gradients/{name}"), expected)
validated = [line for line in lines if "validation" in line]
check("validations", [line["step"] for line in validated], list(range(10, 121, 10)))
for name in ["nmse", "l0", "dead_fraction"]:
    expected = [(line["step"], float32(line["validation"][name])) for line in validated]
    check(name, scalars(run, f"validation/{name}"), expected)
alive = [round(64 * (1 - line["validation"]["dead_fraction"])) for line in validated]
densities = run.Histograms("validation/log10_density")
check("densities", [(one.step, one.histogram_value.num) for one in densities], list(zip(range(10, 121, 10), alive)))
for one in densities:
    value = one.histogram_value
    check("counts", sum(value.bucket), value.num)
    assert value.min <= value.bucket_limit[0] and value.max <= value.bucket_limit[-1] <= 0 + 1e-12, value
metrics = json.loads((root / "run" / "metrics.json").read_text())["metrics"]
check("evaluation", scalars(run, "evaluation/nmse"), [(120, float32(metrics["nmse"]))])
print(f"{checks} checks passed")
