"""The command line: raw text to packed token shards, and a loop that trains on them.

    tokenmill build manifests/quickstart.yaml --out runs/quickstart
    tokenmill train runs/quickstart
    torchrun --nproc-per-node 8 -m tokenmill train runs/quickstart

Each command parses, calls one function, prints, and returns 0; 1 when something was lost or found
damaged (it says what), 2 for what the user can mend, in one line. Anything else is a bug and
keeps its traceback.

A command is named here (`run="tokenmill.build_commands:build"`) and imported when it is called:
what one needs takes seconds to import, for which --help and the others do not wait.
"""

import argparse
import errno
import os
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

from tokenmill import __version__
from tokenmill.errors import TokenmillError

DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOTDIR,
)  # fmt: skip
"""What a user or a disk causes; any other error of the system is a bug."""


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        run: Callable[[argparse.Namespace], int] = pkgutil.resolve_name(arguments.run)
        code = run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads the output has seen enough (`| head`); what is left has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell says of a program that a closed pipe has ended
    except TokenmillError as error:
        print(f"tokenmill {arguments.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        place = error.filename or "the disk"
        print(f"tokenmill {arguments.command}: {place}: {error.strerror}. Mend that, then run the "
              "same command again; what is done is kept.", file=sys.stderr)  # fmt: skip
        return 2
    except KeyboardInterrupt:
        print(f"tokenmill {arguments.command}: stopped; the same command goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tokenmill", description=__doc__.split("\n\n")[0])
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser

    build = add("build", help="fetch, mill, dedup, pack; goes on where it stopped")
    _build_arguments(build)
    part = build.add_mutually_exclusive_group()
    part.add_argument(
        "--grow",
        metavar="PHASE",
        help="files that came since the last build are read from this phase on; what earlier "
        "phases read stays as it is",
    )
    part.add_argument(
        "--sample",
        metavar="SHARE",
        help="build a sample, e.g. 0.1%%, in RUN/sample and forecast the whole run",
    )
    build.set_defaults(run="tokenmill.build_commands:build")

    plan = add("plan", help="what a build would do and why; disk needed")
    _recipe_arguments(plan)
    _scale_argument(plan)
    _run_argument(plan)
    plan.set_defaults(run="tokenmill.build_commands:plan")

    tokenizer = add("train-tokenizer", help="WordPiece or byte BPE from the recipe's sources")
    _recipe_arguments(tokenizer)
    tokenizer.add_argument("--out", type=Path, required=True, help="the tokenizer's folder")
    tokenizer.set_defaults(run="tokenmill.build_commands:train_tokenizer")

    mix = add("mix", help="the mixture as a table: tokens, epochs of each subset, first repeat")
    mix.add_argument("folder", type=Path, metavar="RUN")
    mix.add_argument("--phase", help="one phase (default: all)")
    mix.set_defaults(run="tokenmill.order_commands:mix")

    train = add("train", help="the bundled loop; goes on from its newest checkpoint")
    train.add_argument("folder", type=Path, metavar="RUN")
    train.add_argument("--phase", action="append", help="may be repeated (default: all, in order)")
    train.add_argument("--out", type=Path, help="checkpoints and log (default: RUN/training)")
    _device_arguments(train)
    _set_argument(train, "training.micro_batch_tokens=8192")
    train.set_defaults(run="tokenmill.training_commands:train")

    pretrain = add("pretrain", help="build what is not built yet, then train every phase")
    _build_arguments(pretrain)
    _device_arguments(pretrain)
    pretrain.set_defaults(run="tokenmill.training_commands:pretrain", sample=None, grow=None)

    export = add("export", help="a trained model as a folder that transformers loads")
    export.add_argument("folder", type=Path, metavar="TRAINING", help="e.g. RUN/training")
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    export.add_argument(
        "--step",
        type=_positive,
        action="append",
        default=[],
        help="a checkpoint; several are averaged (default: the newest)",
    )
    export.add_argument("--ema", action="store_true", help="the exponential mean of the weights")
    export.add_argument(
        "--run",
        type=Path,
        dest="build",
        help="the build that was trained on (default: the folder above TRAINING)",
    )
    export.set_defaults(run="tokenmill.training_commands:export")

    compare = add("compare", help="a small model trained on each of several builds")
    compare.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="the base first")
    compare.add_argument("--out", type=Path, required=True, help="where the trainings are kept")
    compare.add_argument("--phase", help="of each build (default: its first)")
    compare.add_argument(
        "--on",
        type=Path,
        action="append",
        metavar="RUN",
        help="judge on this build's held-out rows; may be repeated (default: those of all builds)",
    )
    _set_argument(compare, "seeds=5")
    compare.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    compare.add_argument("--threads", type=_positive, help="CPU threads")
    compare.set_defaults(run="tokenmill.training_commands:compare", ray=None)

    inspect = add("inspect", help="a run, a row as text, a step's documents, a document's fate")
    inspect.add_argument("folder", type=Path, metavar="RUN")
    inspect.add_argument("--phase", help="the phase whose rows or steps are meant (default: first)")
    what = inspect.add_mutually_exclusive_group()
    what.add_argument("--row", help="BUCKET:NUMBER, e.g. 1024-2047:0")
    what.add_argument("--step", type=_natural, help="the documents of one training step")
    what.add_argument("--document", type=_natural, help="what is known of a doc_id")
    inspect.add_argument("--world-size", type=_positive, help="say which of so many ranks")
    inspect.add_argument("--text", action="store_true", help="the whole text of a step's documents")
    inspect.set_defaults(run="tokenmill.run_commands:inspect")

    whatif = add("whatif", help="the waterfall that other thresholds would give, without building")
    whatif.add_argument("folder", type=Path, metavar="RUN")
    _set_argument(whatif, "filters.length.min_words=100", required=True)
    whatif.set_defaults(run="tokenmill.run_commands:whatif")

    why = add("why", help="each signal, threshold and the check that decided on a document")
    why.add_argument("folder", type=Path, metavar="RUN")
    why.add_argument("document", metavar="DOC", help="a doc_id, or the source's id or url")
    why.set_defaults(run="tokenmill.run_commands:why")

    when = add("when", help="the steps that did or will read a document")
    when.add_argument("folder", type=Path, metavar="RUN")
    when.add_argument("document", metavar="DOC", help="a doc_id, or the source's id or url")
    when.add_argument("--phase", help="one phase (default: all)")
    when.add_argument("--world-size", type=_positive, help="say which of so many ranks")
    _training_argument(when)
    when.set_defaults(run="tokenmill.order_commands:when")

    skip = add("skip", help="rows or steps that training is not to read")
    skip.add_argument("folder", type=Path, metavar="RUN")
    skip.add_argument("--phase", help="the phase whose rows or steps are meant (default: first)")
    skipped = skip.add_mutually_exclusive_group(required=True)
    skipped.add_argument("--rows", type=_rows, metavar="BUCKET:FIRST-LAST", help="damaged rows")
    skipped.add_argument(
        "--steps",
        type=_span,
        metavar="FIRST-LAST",
        help="steps to come; what follows moves up, so a second time skips others",
    )
    _from_step_argument(skip)
    skip.set_defaults(run="tokenmill.order_commands:skip")

    replay = add("replay", help="have training read past steps again, then go on")
    replay.add_argument("folder", type=Path, metavar="RUN")
    replay.add_argument("--phase", help="the phase whose steps are meant (default: first)")
    replay.add_argument("--steps", type=_span, required=True, metavar="FIRST-LAST")
    _from_step_argument(replay)
    replay.set_defaults(run="tokenmill.order_commands:replay")

    retract = add("retract", help="take documents back: training and later builds leave them out")
    retract.add_argument("folder", type=Path, metavar="RUN")
    given = retract.add_mutually_exclusive_group(required=True)
    given.add_argument("--ids", type=Path, help="doc_ids, or the source's ids or urls, one a line")
    given.add_argument("--texts", type=Path, help="jsonl with `text`, or a text a line")
    _from_step_argument(retract)
    retract.set_defaults(run="tokenmill.order_commands:retract")

    verify = add("verify", help="every checksum, the root hash last")
    verify.add_argument("folder", type=Path, metavar="RUN")
    verify.set_defaults(run="tokenmill.run_commands:verify")
    return parser


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a YAML file, e.g. manifests/neobert.yaml")
    _set_argument(parser, "packing.overlong=split")


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    _recipe_arguments(parser)
    _scale_argument(parser)
    _run_argument(parser)
    parser.add_argument("--engine", choices=("ray", "inline"), default="ray")
    parser.add_argument("--workers", type=_positive, help="tasks at once (default: all cores)")
    parser.add_argument("--address", help="a Ray cluster to join (default: this machine)")
    parser.add_argument(
        "--keep-downloads",
        choices=("all", "none"),
        help="none: a fetched file leaves when it is milled (default: downloads.keep)",
    )


def _device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--threads", type=_positive, help="CPU threads of each process")
    parser.add_argument("--ray", type=_positive, metavar="N", help="train with N Ray Train workers")


def _scale_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="S",
        help="the recipe at a reduced size: tokens times S, steps and layers times its root",
    )


def _set_argument(parser: argparse.ArgumentParser, example: str, required: bool = False) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        required=required,
        metavar="KEY=VALUE",
        help=f"change one setting, e.g. {example}; may be repeated",
    )


def _run_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder")


def _from_step_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from-step",
        type=_step_of_phase,
        metavar="PHASE:STEP",
        help="the first step that changes (default: that of the newest checkpoint)",
    )
    _training_argument(parser)


def _training_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--training",
        type=Path,
        metavar="OUT",
        help="where the run is trained (default: RUN/training)",
    )


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # argparse would name our function
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text}") from None


def _natural(text: str) -> int:
    number = _whole(text)
    if not 0 <= number < 1 << 64:
        raise argparse.ArgumentTypeError(f"expected 0 to 2**64 - 1, found {text}")
    return number


def _step_of_phase(text: str) -> tuple[str, int]:
    phase, colon, step = text.rpartition(":")
    if not colon or not step.isdecimal():
        raise argparse.ArgumentTypeError(f"expected PHASE:STEP, found {text}")
    return phase, int(step)


def _span(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and (last.isdecimal() if dash else not last)):
        raise argparse.ArgumentTypeError(f"expected FIRST-LAST, found {text}")
    return int(first), int(last or first)


def _rows(text: str) -> tuple[str, int, int]:
    bucket, _, rows = text.rpartition(":")
    if not bucket:
        raise argparse.ArgumentTypeError(f"expected BUCKET:FIRST-LAST, found {text}")
    return bucket, *_span(rows)


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return number
