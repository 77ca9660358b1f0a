"""Images and labels: named data sets, torchvision's data sets, image folders and .npz files."""

from bench.data.dataset import Dataset
from bench.data.loading import default_data_dir, load, load_source, missing
from bench.data.registry import (
    DatasetName,
    NamedDataset,
    image_shape,
    named_dataset,
    named_datasets,
    register_dataset,
)
from bench.data.request import Request, Split
from bench.data.source import DataSource

__all__ = [
    "DataSource",
    "Dataset",
    "DatasetName",
    "NamedDataset",
    "Request",
    "Split",
    "default_data_dir",
    "image_shape",
    "load",
    "load_source",
    "missing",
    "named_dataset",
    "named_datasets",
    "register_dataset",
]
