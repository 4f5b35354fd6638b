"""From a finished build to batches: order, mixture and masks as pure functions of a step."""

from tokenmill.loader.batch import Batch, TorchBatch
from tokenmill.loader.config import BatchWarmup, LoaderConfig, MixtureChange
from tokenmill.loader.held_out import held_out_batches
from tokenmill.loader.loader import Loader
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.mixture_table import MixtureLine, MixtureTable, mixture_tables
from tokenmill.loader.padded import PaddedBatch

__all__ = [
    "Batch",
    "BatchWarmup",
    "Loader",
    "LoaderConfig",
    "MaskingConfig",
    "MixtureChange",
    "MixtureLine",
    "MixtureTable",
    "PaddedBatch",
    "TorchBatch",
    "held_out_batches",
    "mixture_tables",
]
