"""Models of timm: `timm:NAME`, pretrained, or with a checkpoint of one's own."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from bench.candidates.named.made import Made, SourceReference, Transform, classes_in
from bench.candidates.named.options import Options, read_options
from bench.candidates.named.requirements import in_one_line, unavailable
from bench.candidates.sources import CandidateSource, Search, unknown
from bench.candidates.weights import load_weights
from bench.errors import FOREIGN_ERRORS, InputError

PREFIX = "timm:"
ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
"""How names begin that timm itself resolves, to a repository or a folder."""
FILES = ("model.safetensors", "pytorch_model.bin")


class TimmSource(CandidateSource):
    """Finds timm's models; normalization and input size come from timm's own configuration."""

    title = "timm"
    prefix = PREFIX

    def takes_options(self, name: str) -> bool:
        """Return that it may."""
        return True

    def find(self, name: str, search: Search) -> list[SourceReference]:
        """Return the model.

        Raises:
            InputError: timm has no such model, or no weights of it.
        """
        model, options = read_options(name)
        model = model.removeprefix(PREFIX)
        if not model.startswith(ELSEWHERE):
            _check_known(name, model, options.checkpoint is None)
        make = partial(make_model, name, model, options)
        return [SourceReference(name, options, search, make, partial(_missing, model, options))]

    def names(self, search: Search) -> list[str]:
        """Return the models with weights."""
        import timm  # slow, with torchvision: only where one of its models is named

        return [f"{PREFIX}{name}" for name in timm.list_models(pretrained=True)]


def make_model(name: str, model: str, options: Options) -> Made:
    """Build a model of timm with its weights.

    Args:
        name: as the user writes it, for messages.
        model: as timm calls it.

    Raises:
        InputError: the weights do not fit, or the model is no classifier.
        Unavailable: the weights cannot be downloaded.
    """
    notes: list[str] = []
    if options.checkpoint is None:
        module = _pretrained(name, model, options)
    else:
        module = _build(name, model)
        classes = options.classes or classes_in(options.checkpoint, module)
        if classes is not None and classes != getattr(module, "num_classes", None):
            module = _build(name, model, num_classes=classes)
        notes = load_weights(module, options.checkpoint, options.key)
    if not getattr(module, "num_classes", 1):
        raise InputError(
            f"{name}: expected a classifier, got a model without one (its num_classes is 0)"
        )
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    interpolation = config["interpolation"]
    conversion = {
        "mean": list(config["mean"])[:channels],
        "std": list(config["std"])[:channels],
        "resize": [height, width],
        "interpolation": interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        "grayscale": channels == 1,
    }
    return Made(module, f"timm:{model}", conversion, _transform(config), tuple(notes))


def _pretrained(name: str, model: str, options: Options) -> nn.Module:
    import timm

    try:
        module: nn.Module = timm.create_model(model, pretrained=True)
    except FOREIGN_ERRORS as error:
        if _missing(model, options):
            raise unavailable(name, "its weights", error) from error
        raise InputError(f"{name}: timm cannot load it: {in_one_line(error)}") from error
    return module


def _build(name: str, model: str, **arguments: Any) -> nn.Module:
    import timm

    try:
        module: nn.Module = timm.create_model(model, pretrained=False, **arguments)
    except FOREIGN_ERRORS as error:
        raise InputError(f"{name}: timm cannot build it: {in_one_line(error)}") from error
    return module


def _check_known(name: str, model: str, needs_weights: bool) -> None:
    """Refuse names that timm does not know, or has no weights for."""
    import timm

    if not timm.is_model(model):
        known = timm.list_models(pretrained=needs_weights)
        raise unknown(name, [f"{PREFIX}{each}" for each in known])
    if needs_weights and not _with_weights(model):
        raise InputError(
            f"{name}: timm has no weights of it; give a file by `{name},checkpoint=FILE`"
        )


def _with_weights(model: str) -> bool:
    import timm

    config = timm.get_pretrained_cfg(model, allow_unregistered=False)
    return config is not None and config.has_weights


def _missing(model: str, options: Options) -> str:
    """Return what timm would download; "" where the weights are on this disk."""
    if options.checkpoint is not None or model.startswith("local-dir:"):
        return ""
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    if model.startswith(ELSEWHERE):
        repository = model.partition(":")[2].partition("@")[0]
    else:
        config = get_pretrained_cfg(model)
        if config is None or config.file:
            return ""
        repository = config.hf_hub_id or ""
        if repository == "timm/":
            repository += f"{config.architecture or model.partition('.')[0]}.{config.tag}"
    cached = [try_to_load_from_cache(repository, file) for file in FILES] if repository else []
    return "" if any(isinstance(each, str) for each in cached) else f"timm's weights of {model}"


def _transform(config: dict[str, Any]) -> Transform:
    """Return timm's own evaluation transform without its normalization."""
    from timm.data import create_transform

    own = create_transform(**config, is_training=False, normalize=False)

    def transform(image: Any) -> Any:
        pixels = own(image.convert("RGB"))
        return pixels if pixels.is_floating_point() else pixels.float() / 255

    return transform
