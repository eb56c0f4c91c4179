"""Compares what `preprocess_images.ts` wrote with Hugging Face's image processors on the same photographs.

    python tests/interop/check_preprocessing.py FOLDER

Needs transformers, torch, pillow and numpy. Differences are in units of one byte of a pixel.
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image
from transformers import BitImageProcessor, CLIPImageProcessor, SiglipImageProcessor, ViTImageProcessor

folder = pathlib.Path(sys.argv[1])
photos = sorted((pathlib.Path(__file__).parent / "../../examples/demo/photos").glob("*.jpg"))
images = [Image.open(photo).convert("RGB") for photo in photos]
classes = {"clip": CLIPImageProcessor, "dinov2": BitImageProcessor, "vit": ViTImageProcessor, "siglip": SiglipImageProcessor}
for name, processor in classes.items():
    config = json.loads((folder / f"{name}.json").read_text())
    kwargs = {"use_fast": False} if "use_fast" in processor.__init__.__code__.co_varnames else {}
    theirs = np.stack(processor(**config, **kwargs)(images, return_tensors="np")["pixel_values"])
    ours = np.load(folder / f"{name}.npy").reshape(theirs.shape)
    std = np.array(config["image_std"]).reshape(1, 3, 1, 1)
    off = np.abs(ours - theirs) * std * 255
    print(f"{name}: mean {off.mean():.4f}, worst {off.max():.4f}")
    assert off.max() < 1e-3, "other bytes"
