"""Training on a finished build: models, the loop, checkpoints, the log and its curve.

    from tokenmill.training.loop import train
    from tokenmill.training.model import build_model

The settings are at hand here without torch, which takes seconds to import; the rest stands where
it is defined.
"""

from tokenmill.training.config import ScheduleConfig, TrainingConfig

__all__ = ["ScheduleConfig", "TrainingConfig"]
