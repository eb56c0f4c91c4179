"""Makes `tests/goldens/vit`: a small vision transformer with seeded random weights, exported by PyTorch, and the same with
its weights in a file beside it, for batches of three alone, and in float16.

    python tests/interop/make_tiny_vit.py FOLDER

Images of 32 x 32, patches of 8 x 8, a CLS token and 16 patches of 32 numbers, three blocks. Needs torch, onnx and
onnxconverter-common.
"""

import pathlib
import sys

import onnx
import torch
from onnxconverter_common import float16
from torch import nn

D, DEPTH, HEADS, SIZE, PATCH = 32, 3, 2, 32, 8


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.fc1, self.fc2 = nn.Linear(D, 2 * D), nn.Linear(2 * D, D)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * (D // HEADS) ** -0.5).softmax(-1)
        x = x + self.proj((attention @ v).transpose(1, 2).reshape(b, t, D))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class TinyVit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, D, PATCH, PATCH)
        self.cls = nn.Parameter(torch.randn(1, 1, D))
        self.position = nn.Parameter(0.5 * torch.randn(1, (SIZE // PATCH) ** 2 + 1, D))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


folder = pathlib.Path(sys.argv[1])
torch.manual_seed(0)
model = TinyVit().eval()
torch.onnx.export(
    model,
    (torch.zeros(1, 3, SIZE, SIZE),),
    folder / "tiny_vit.onnx",
    input_names=["pixel_values"],
    output_names=["logits"],
    dynamic_axes={"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
    opset_version=17,
    dynamo=False,
)

external = onnx.load(folder / "tiny_vit.onnx")
(folder / "external").mkdir(exist_ok=True)
onnx.save_model(
    external,
    folder / "external" / "model.onnx",
    save_as_external_data=True,
    location="model.onnx_data",
    size_threshold=256,
)
fixed = onnx.load(folder / "tiny_vit.onnx")
batch = fixed.graph.input[0].type.tensor_type.shape.dim[0]
batch.ClearField("dim_param")
batch.dim_value = 3
onnx.save(fixed, folder / "fixed_batch.onnx")
onnx.save(float16.convert_float_to_float16(onnx.load(folder / "tiny_vit.onnx")), folder / "half.onnx")
