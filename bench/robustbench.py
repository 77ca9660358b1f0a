"""The one place that speaks RobustBench's interface.

RobustBench 1.1.1 imports a module `autoattack`, while the distribution that it depends on
installs that code as `pyautoattack`, with another interface. `bench.import_hook` answers
`import autoattack` with a module whose `AutoAttack` is this one: it takes RobustBench's arguments
and runs pyautoattack. (`pkg_resources`, which RobustBench imports too, comes with `setuptools<81`,
a dependency of this package.)
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import importlib.metadata
import importlib.resources
import io
import logging
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError, Unavailable
from bench.import_hook import make_importable as make_importable

if TYPE_CHECKING:
    import torch

DOWNLOADS = "https://drive.google.com/uc?id="
"""Where the zoo's checkpoints are; Google Drive's id of a file follows."""

DEFAULT_SEED = 0

DEFAULT_ENGINE = "reference"
ENGINES = (DEFAULT_ENGINE, "fast")

_seed: contextvars.ContextVar[int] = contextvars.ContextVar("autoattack_seed", default=DEFAULT_SEED)
_engine: contextvars.ContextVar[str] = contextvars.ContextVar(
    "autoattack_engine", default=DEFAULT_ENGINE
)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let `robustbench.benchmark` attack with `seed` within this context.

    RobustBench passes no seed to AutoAttack, which then takes the clock: two calls give two
    results. Through the adapter, a call without a seed uses this one (0 outside any context).
    """
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


@contextlib.contextmanager
def engine(name: str) -> Iterator[None]:
    """Let `robustbench.benchmark` attack by another engine within this context.

        with bench.robustbench.engine("fast"):
            clean, robust = robustbench.benchmark(model, dataset="cifar10", eps=8 / 255)

    The fast engine runs the same attacks with the same budgets (`bench.autoattack`), and writes
    that it does. Outside any context the attacks are pyautoattack's own.

    Args:
        name: "reference" or "fast".

    Raises:
        InputError: there is no such engine.
    """
    if name not in ENGINES:
        raise InputError(f"expected an engine of {', '.join(ENGINES)}; got {name!r}")
    token = _engine.set(name)
    try:
        yield
    finally:
        _engine.reset(token)


def check_torchvision() -> None:
    """Import torchvision, or say what to install.

    Raises:
        ImportError: torchvision is absent, or was built against another torch (a CPU-only build
            of torch next to PyPI's torchvision fails with "operator torchvision::nms does not
            exist").
    """
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        version = importlib.import_module("torch").__version__
        raise ImportError(
            f"torchvision does not import beside torch {version}: {error}. Expected two builds "
            "that belong together; a CPU-only torch does not go with PyPI's torchvision. Install "
            "both from one index: `pip install --force-reinstall torch torchvision`."
        ) from error


class AutoAttack:
    """pyautoattack behind the interface of `autoattack.AutoAttack`, as RobustBench calls it.

    Within `engine("fast")` this makes a `bench.autoattack.AutoAttack` instead.

    Args:
        model: images (N, C, H, W) in [0, 1] -> logits (N, K).
        norm: "Linf", "L2" or "L1".
        eps: radius of the ball, > 0, in the [0, 1] pixel scale.
        seed: of every random draw; None takes the seed of the surrounding `seeded`.
        verbose: whether pyautoattack's progress goes to its logger ("auto-attack").
        attacks_to_run: with version="custom", the attacks by name.
        version: "standard", "plus", "rand" or "custom".
        device: where the attacks run.
        log_path: a file that receives pyautoattack's log as well.
    """

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Return the adversary of the engine that is asked for."""
        if _engine.get() == DEFAULT_ENGINE:
            return super().__new__(cls)
        adversary = importlib.import_module("bench.autoattack").AutoAttack(*args, **options)
        if adversary.seed is None:
            adversary.seed = _seed.get()
        return adversary

    def __init__(
        self,
        model: torch.nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: list[str] | None = None,
        version: str = "standard",
        is_tf_model: bool = False,
        device: torch.device | str = "cpu",
        log_path: str | Path | None = None,
    ) -> None:
        if is_tf_model:
            raise ValueError("expected a PyTorch model, got is_tf_model=True")
        reference = importlib.import_module("bench.engines.reference")
        self._finite = reference.FiniteModule(model)
        self.reference = importlib.import_module("pyautoattack").AutoAttack(
            self._finite,
            norm=norm,
            eps=eps,
            seed=_seed.get() if seed is None else seed,
            attacks=attacks_to_run or None,
            version=version,
            device=device,
        )
        self.reference.verbose = verbose
        self.log_path = log_path

    @property
    def attacks_to_run(self) -> list[str]:
        """Names of the attacks, in their order."""
        attacks: list[str] = self.reference.attacks_to_run
        return attacks

    @attacks_to_run.setter
    def attacks_to_run(self, attacks: list[str]) -> None:
        self.reference.attacks_to_run = attacks

    @property
    def seed(self) -> int:
        """The seed of every random draw."""
        seed: int = self.reference.seed
        return seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.reference.seed = seed

    def run_standard_evaluation(
        self,
        x_orig: torch.Tensor,
        y_orig: torch.Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: str | Path | None = None,
    ) -> Any:
        """Attack images one attack after the other; each sees what survived the earlier ones.

        Args:
            x_orig: (N, C, H, W) in [0, 1].
            y_orig: (N,) labels.
            bs: batch size; the result depends on it.
            return_labels: whether to return the predictions on the images as well.
            state_path: refused, since a state file that pyautoattack wrote cannot be read back.

        Returns:
            adversarial images (N, C, H, W), and predictions (N,) if asked for.

        Raises:
            ValueError: a `state_path` was given.
        """
        if state_path is not None:
            raise ValueError(
                f"expected no state_path, got {str(state_path)!r}: pyautoattack 0.2.0 writes state "
                "files that it cannot resume from. `bench run` resumes; use it for long runs."
            )
        with self._isolated():
            images, predictions = self.reference.run_standard_evaluation(
                x_orig, y_orig, batch_size=bs
            )
        self._warn_of_unanswered()
        return (images, predictions) if return_labels else images

    def run_standard_evaluation_individual(
        self, x_orig: torch.Tensor, y_orig: torch.Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Run each attack alone on all images; returns its adversarial images by attack name."""
        with self._isolated():
            results = self.reference.run_standard_evaluation_individual(
                x_orig, y_orig, batch_size=bs
            )
        self._warn_of_unanswered()
        return {name: pair if return_labels else pair[0] for name, pair in results.items()}

    def _warn_of_unanswered(self) -> None:
        """Warn where logits were not finite, which RobustBench takes for class 0."""
        count, self._finite.unanswered_images = self._finite.unanswered_images, 0
        if count:
            warnings.warn(
                f"the logits of {count} images that were passed hold NaN or infinity. RobustBench "
                "takes them for class 0, so that its accuracies are wrong; `bench run` counts such "
                "an image as wrong, and under attack as broken.",
                stacklevel=3,
            )

    @contextlib.contextmanager
    def _isolated(self) -> Iterator[None]:
        """Keep the caller's random state (pyautoattack seeds globally), and write the log."""
        with importlib.import_module("torch").random.fork_rng(), self._logging():
            yield

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        if self.log_path is None:
            yield
            return
        handler = logging.FileHandler(self.log_path)
        logger = self.reference.logger
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            handler.close()


def version() -> str:
    """Name and version of the installed RobustBench."""
    return f"robustbench {importlib.metadata.version('robustbench')}"


def _import(name: str) -> Any:
    """Import one of RobustBench's modules without the warnings of its own imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _models(dataset: str, norm: str) -> dict[str, Any]:
    enums = _import("robustbench.model_zoo.enums")
    try:
        kind, threat = enums.BenchmarkDataset(dataset), enums.ThreatModel(norm)
    except ValueError:
        return {}
    models: dict[str, Any] = _import("robustbench.model_zoo").model_dicts[kind].get(threat, {})
    return models


def model_ids(dataset: str, norm: str) -> list[str]:
    """Return the ids of the zoo's models for a data set and a norm, sorted; maybe none."""
    return sorted(_models(dataset, norm))


def missing_checkpoints(model_id: str, dataset: str, norm: str, model_dir: Path) -> list[Path]:
    """Return the checkpoint files of a zoo model that are not in `model_dir` yet."""
    files = _checkpoints(model_id, dataset, norm, model_dir)
    return [file for file in files if not file.is_file()]


def _checkpoints(model_id: str, dataset: str, norm: str, model_dir: Path) -> dict[Path, str]:
    """Return Google Drive's id of each checkpoint file of a zoo model."""
    downloads = _models(dataset, norm)[model_id].get("gdrive_id")
    path = model_dir / dataset / norm / f"{model_id}.pt"
    if not isinstance(downloads, list):
        return {path: downloads}
    return {
        path.with_name(f"{path.name}_m{part}.pt"): download
        for part, download in enumerate(downloads)
    }


def fetch_checkpoints(model_id: str, dataset: str, norm: str, model_dir: Path) -> list[Path]:
    """Return the checkpoint files of a zoo model in order; download what is missing.

    Raises:
        Unavailable: a download failed.
    """
    files = _checkpoints(model_id, dataset, norm, model_dir)
    for path, download in files.items():
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                _import("robustbench.utils").download_gdrive_new(download, str(path))
        except Exception as error:  # whatever gdown or requests raised
            raise _not_downloaded(path, download, model_dir, _reason(error)) from error
        if not path.is_file():
            raise _not_downloaded(path, download, model_dir, "Google Drive gave no file")
    return list(files)


def _not_downloaded(path: Path, download: str, model_dir: Path, reason: str) -> Unavailable:
    """Return the error for a checkpoint that cannot be downloaded, with what to do about it."""
    return Unavailable(
        f"weights cannot be downloaded from {DOWNLOADS}{download} ({reason}): put the file at "
        f"{path} yourself, or name the folder that has {path.relative_to(model_dir)} by --model-dir"
    )


def _reason(error: BaseException) -> str:
    """Return why a download failed: what the operating system said, if it began there.

    Libraries wrap that in errors whose texts name addresses, retries and objects in memory.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            is_network = isinstance(cause, (socket.gaierror, ConnectionError, TimeoutError))
            return f"{cause.strerror}; no network?" if is_network else cause.strerror
        cause = cause.__cause__ or cause.__context__
    return _text(error)


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def checkpoint_megabytes(model_id: str, dataset: str, norm: str) -> float | None:
    """Return the size of a zoo model in float32, in MB; None if it cannot be told.

    The model is built on the meta device, which takes no memory; some constructors fail there.
    """
    torch = importlib.import_module("torch")
    try:
        with torch.device("meta"), contextlib.redirect_stdout(io.StringIO()):
            module = _models(dataset, norm)[model_id]["model"]()
        return float(sum(4 * tensor.numel() for tensor in module.state_dict().values()) / 1e6)
    except Exception:  # third-party constructors: any failure means only that the size is unknown
        return None


def load_zoo_model(model_id: str, dataset: str, norm: str, model_dir: Path) -> torch.nn.Module:
    """Load a model by RobustBench's own loader, downloading what is missing.

    Raises:
        Unavailable: a download or the loading of the checkpoint failed.
    """
    files = _checkpoints(model_id, dataset, norm, model_dir)
    missing = [path for path in files if not path.is_file()]
    try:
        utils = _import("robustbench.utils")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            module: torch.nn.Module = utils.load_model(
                model_id, model_dir=model_dir, dataset=dataset, threat_model=norm
            )
    except Exception as error:  # whatever gdown, requests, pickle or a constructor raised
        for path in missing:
            if not path.is_file():
                raise _not_downloaded(path, files[path], model_dir, _reason(error)) from error
        raise Unavailable(
            f"RobustBench cannot load it: {type(error).__name__}: {_text(error)}"
        ) from error
    return module


def preprocessing(model_id: str, dataset: str, norm: str) -> Callable[[Any], torch.Tensor]:
    """Return a zoo model's own transform from a PIL image to (C, H, W) in [0, 1]."""
    enums = _import("robustbench.model_zoo.enums")
    transform: Callable[[Any], torch.Tensor] = _import("robustbench.data").get_preprocessing(
        enums.BenchmarkDataset(dataset), enums.ThreatModel(norm), model_id, None
    )
    return transform


def helper_file(name: str) -> str:
    """Return the text of one of the files that RobustBench keeps beside its loaders."""
    folder = importlib.resources.files(_import("robustbench")) / "helper_files"
    return (folder / name).read_text(encoding="utf-8")
