"""Evaluate a timm model on your own images.

    python examples/evaluate_timm_model.py photos --model resnet18.a1_in1k --pretrained

The folder has one subfolder for each class, named by the class's place among the model's outputs:
`photos/207/dog.jpg` for the golden retriever of ImageNet.
"""

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image

import bench

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def read(folder: Path, config: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, 3, H, W) in [0, 1], resized and cropped as timm does, and labels (N,)."""
    pixels = config | {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # the model normalizes
    transform = timm.data.create_transform(**pixels)
    files = sorted(each for each in folder.glob("*/*") if each.suffix.lower() in ENDINGS)
    if not files:
        raise SystemExit(f"expected images as {folder}/CLASS/NAME.jpg, got none")
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    return images, torch.tensor([int(file.parent.name) for file in files])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="resnet18.a1_in1k", help="a name of timm.list_models()")
    parser.add_argument("--pretrained", action="store_true", help="download timm's weights")
    parser.add_argument("--checkpoint", default="", help="or your own, saved by timm's train.py")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--size", type=int, help="pixels; default: the model's own")
    parser.add_argument("--eps", type=float, default=4, help="Linf radius, in 255ths")
    parser.add_argument("--results-dir", default="results")
    options = parser.parse_args()

    network = timm.create_model(
        options.model,
        pretrained=options.pretrained,
        checkpoint_path=options.checkpoint,
        num_classes=options.classes,
    ).eval()
    config = timm.data.resolve_data_config(model=network)
    if options.size:
        config["input_size"] = (3, options.size, options.size)
    model = bench.wrap(network, mean=config["mean"], std=config["std"])
    images, labels = read(options.folder, config)

    result = bench.evaluate(
        model,
        images=images,
        labels=labels,
        threat_model=bench.Linf(options.eps / 255),
        name=options.model,
        results_dir=options.results_dir,
    )
    if not options.pretrained and not options.checkpoint:
        print("random weights: these numbers mean nothing")
    interval = result.interval
    print(f"{options.model}: {len(images)} images, Linf {options.eps:g}/255")
    print(f"clean accuracy {result.clean_accuracy:.1%}")
    print(f"robust accuracy at most {result.robust_accuracy:.1%}", end="")
    print(f" (95% interval {interval.low:.1%} to {interval.high:.1%})")
    print(result.attacks[["attempted", "broken", "accuracy_after"]])
    for flag in result.flags:
        print(f"flag {flag.name}: {flag.meaning}")


if __name__ == "__main__":
    main()
