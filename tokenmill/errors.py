"""Everything Tokenmill raises for what a user, a disk or a store can cause.

    TokenmillError
    ├── RecipeError      a setting, a recipe or a command line says something that cannot be done
    ├── SourceError      an input as a whole cannot be read (a bad record is set aside instead)
    ├── TokenizerError   a tokenizer cannot be loaded, or gives another answer than its reference
    ├── FormatError      a shard, manifest or run on disk is damaged or of another version
    ├── RunError         the run's folder cannot be used: locked, unwritable, disk too small
    ├── ResumeError      a checkpoint or loader state does not belong to this run, code or data
    └── NonFiniteLossError    the loss of a training step is infinite or no number

A message says what was expected, what was found, where, and what to do. The command line prints
it as one line and exits with 2; every other exception is a bug and keeps its traceback.
"""


class TokenmillError(Exception):
    """The root of the tree; catch it to catch all of ours."""


class RecipeError(TokenmillError):
    """A setting, a recipe or a command line says something that cannot be done: correct it."""


class SourceError(TokenmillError):
    """An input as a whole cannot be read: repair it, replace it, or leave it out."""


class TokenizerError(TokenmillError):
    """A tokenizer cannot be loaded or trusted: use another file."""


class FormatError(TokenmillError):
    """A shard, manifest or run on disk is damaged or of another version: build it again."""


class RunError(TokenmillError):
    """The run's folder cannot be used now: free the disk, the lock or the permission."""


class ResumeError(TokenmillError):
    """A state belongs to other data, settings or code: start anew or bring the old ones back."""


class NonFiniteLossError(TokenmillError):
    """The loss became infinite or no number: lower the learning rate, or look at the documents."""
