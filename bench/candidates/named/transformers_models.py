"""Image classifiers of transformers: `hf:ORG/NAME` of the Hugging Face hub, or `hf:./folder`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from bench.candidates.named.made import Made, SourceReference, Transform, pillow_transform
from bench.candidates.named.options import CONVERSIONS, Options, read_options
from bench.candidates.named.requirements import in_one_line, required, unavailable
from bench.candidates.sources import CandidateSource, Search
from bench.errors import FOREIGN_ERRORS, InputError

PREFIX = "hf:"
SCALES = ("mean", "std", "input_range")
ALLOWED = tuple(CONVERSIONS)


class TransformersSource(CandidateSource):
    """Finds image classifiers; mean, deviation and size are those of the image processor."""

    title = "transformers"
    prefix = PREFIX

    def takes_options(self, name: str) -> bool:
        """Return that it may."""
        return True

    def find(self, name: str, search: Search) -> list[SourceReference]:
        """Return the model of a repository or a folder.

        Raises:
            InputError: a name of another form, or no such folder.
        """
        text, options = read_options(name, ALLOWED)
        model = text.removeprefix(PREFIX)
        folder = Path(model).expanduser()
        is_folder = folder.is_dir()
        if not is_folder and (model.startswith((".", "/", "~")) or not model):
            raise InputError(f"{name}: expected a folder with a config.json, found none")
        where = str(folder) if is_folder else model
        make = partial(_make, name, where, is_folder, options)
        missing = partial(_missing, where, is_folder)
        return [SourceReference(name, options, search, make, missing)]


def _make(name: str, model: str, is_folder: bool, options: Options) -> Made:
    transformers = required("transformers", name)
    try:
        module, loaded = transformers.AutoModelForImageClassification.from_pretrained(
            model, trust_remote_code=False, output_loading_info=True
        )
    except FOREIGN_ERRORS as error:
        if not is_folder and _missing(model, is_folder) and not _is_unknown(error):
            raise unavailable(name, "it", error) from error
        raise InputError(f"{name}: transformers cannot load it: {in_one_line(error)}") from error
    lacking = sorted(map(str, loaded.get("missing_keys", ())))
    if lacking:
        raise InputError(
            f"{name}: expected the weights of a whole classifier, got none for "
            f"{', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}, which transformers "
            "would draw at random"
        )
    conversion, transform = _preprocessing(name, model, options)
    if "resize" not in conversion and isinstance(side := _image_size(module.config), list):
        conversion["resize"] = side
    return Made(module.float(), type(module).__name__, conversion, transform)


def _preprocessing(
    name: str, model: str, options: Options
) -> tuple[dict[str, Any], Transform | None]:
    """Return what the image processor does, as arguments of `wrap` and as a transform."""
    transformers = required("transformers", name)
    try:
        settings = transformers.AutoImageProcessor.from_pretrained(model).to_dict()
    except FOREIGN_ERRORS as error:
        if options.conversion.keys() & set(SCALES):
            return {}, None
        raise InputError(
            f"{name}: has no image processor that could be read ({in_one_line(error)}); save it "
            "beside the model, or say what the network takes, such as "
            f"`{name},normalize=imagenet` or `{name},input_range=0:1`"
        ) from error
    conversion: dict[str, Any] = {}
    if settings.get("do_normalize"):
        conversion = {"mean": settings["image_mean"], "std": settings["image_std"]}
    factor = settings.get("rescale_factor") or 1 / 255
    width = 255 * (factor if settings.get("do_rescale", True) else 1)
    low = -1.0 if settings.get("rescale_offset") else 0.0
    if abs(width - 1) > 1e-6 or low:
        conversion["input_range"] = [low, low + width]
    size = settings.get("size") or {}
    edge = size.get("shortest_edge")
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    sides = _sides(crop) or _sides(size) or ([edge, edge] if edge else None)
    if settings.get("do_resize", True) and sides:
        conversion["resize"] = sides
    resample = int(settings["resample"]) if settings.get("resample") is not None else 2
    conversion["interpolation"] = {0: "nearest-exact", 3: "bicubic"}.get(resample, "bilinear")
    return conversion, _transform(sides, edge, size, conversion["interpolation"])


def _transform(
    sides: list[int] | None, edge: int | None, size: dict[str, Any], interpolation: str
) -> Transform | None:
    if sides is None:
        return None
    from torchvision.transforms import InterpolationMode

    return pillow_transform(edge or _sides(size) or sides, sides, InterpolationMode(interpolation))


def _sides(size: Any) -> list[int] | None:
    if isinstance(size, int):
        return [size, size]
    if isinstance(size, dict) and size.get("height") and size.get("width"):
        return [int(size["height"]), int(size["width"])]
    return None


def _image_size(config: Any) -> list[int] | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return [size, size]
    return list(size) if isinstance(size, list | tuple) and len(size) == 2 else None


def _is_unknown(error: BaseException | None) -> bool:
    """Return whether the hub answered that there is no such repository."""
    while error is not None:
        if type(error).__name__ in ("RepositoryNotFoundError", "HFValidationError"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _missing(model: str, is_folder: bool) -> str:
    if is_folder:
        return ""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    try:
        cached = [try_to_load_from_cache(model, file) for file in files]
    except ValueError:  # no name of a repository
        return f"{model} from the Hugging Face hub"
    found = any(isinstance(each, str) for each in cached)
    return "" if found else f"{model} from the Hugging Face hub"
