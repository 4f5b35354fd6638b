"""From a finished build to batches: order, mixture and masks as pure functions of a step."""

from tokenmill.loader.batch import Batch, TorchBatch
from tokenmill.loader.config import LoaderConfig
from tokenmill.loader.held_out import held_out_batches
from tokenmill.loader.loader import Loader
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.mixture_table import MixtureLine, MixtureTable, mixture_table

__all__ = [
    "Batch",
    "Loader",
    "LoaderConfig",
    "MaskingConfig",
    "MixtureLine",
    "MixtureTable",
    "TorchBatch",
    "held_out_batches",
    "mixture_table",
]
