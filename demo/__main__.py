"""The whole road on this machine: corpus, tokenizer, shards, two phases of training, a kill and a
resume.

    make demo        or, in an environment with tokenmill:  python -m demo

Everything is done by the same commands that a user would type; they are printed before they run.
The training process is killed (SIGKILL) at a random step and started again: the steps that it
repeats must have the same losses, to the bit. No network is needed.
"""

import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from demo.corpus import write_corpus
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import read_run
from tokenmill.training.evaluate import unigram_entropy

TOP = Path("runs/quickstart")
RECIPE = Path("manifests/quickstart.yaml")
STEPS_AFTER_CHECKPOINT = 5
MUST_LEARN_NATS = 0.3


def main() -> int:
    started = time.monotonic()
    if not RECIPE.exists():
        print(f"{RECIPE}: no such file. Run the demo from the top of the repository.")
        return 2
    step("corpus from the text of this machine")
    write_corpus(TOP / "corpus")
    tokenmill("train-tokenizer", RECIPE, "--out", TOP / "tokenizer")
    tokenmill("build", RECIPE, "--out", TOP / "run")
    tokenmill("mix", TOP / "run")
    tokenmill("verify", TOP / "run")
    equal = train_with_a_kill()
    if not equal:
        return 1
    learnt = show_results()
    print(f"\n{time.monotonic() - started:.0f} seconds in all")
    return 0 if learnt else 1


def train_with_a_kill() -> bool:
    """Train; kill the process at a random step; train on; compare the steps that came twice."""
    log = TOP / "run" / "training" / "log.jsonl"
    shutil.rmtree(log.parent, ignore_errors=True)  # of an earlier demo
    every = read_run(TOP / "run").training["checkpoint_every_steps"]
    target = random.randint(1, 4) * every + random.randint(STEPS_AFTER_CHECKPOINT, every - 1)
    arguments = command("train", TOP / "run")
    step(f"{shlex.join(arguments)}    (to be killed after step {target})")
    child = subprocess.Popen(arguments)
    while child.poll() is None and last_step(log) < target:
        time.sleep(0.02)
    if child.poll() is not None:
        print(f"the training ended by itself with {child.returncode} before step {target}")
        return False
    child.send_signal(signal.SIGKILL)
    child.wait()
    print(f"killed with SIGKILL after step {last_step(log)}; the same command again:")
    tokenmill("train", TOP / "run")
    return compare_repeated(log)


def compare_repeated(log: Path) -> bool:
    """Print the losses of the steps that were done twice; whether all are equal to the bit."""
    losses: dict[tuple[str, int], list[float]] = {}
    for event in read_log(log):
        if event["event"] == "step":
            losses.setdefault((event["phase"], event["step"]), []).append(event["loss"])
    repeated = {place: values for place, values in losses.items() if len(values) > 1}
    print("\nsteps done twice, before and after the kill:")
    for (phase, number), values in repeated.items():
        same = "equal" if len(set(values)) == 1 else "DIFFERENT"
        print(f"  {phase} step {number:4d}  " + "  ".join(v.hex() for v in values) + f"  {same}")
    equal = bool(repeated) and all(len(set(values)) == 1 for values in repeated.values())
    print(f"{len(repeated)} repeated losses, {'all equal to the bit' if equal else 'NOT EQUAL'}")
    return equal


def show_results() -> bool:
    """Where everything is, and what the model has learnt."""
    run = TOP / "run"
    info = read_run(run)
    last_phase = list(info.phases)[-1]
    print("\nwhat there is now:")
    for name, phase in info.phases.items():
        folder = run / "shards" / phase.pack
        rows = int(read_manifest(folder).shards.column("rows").sum())
        print(f"  shards of {name}   {folder} ({rows:,} rows)")
        print(f"  manifest           {folder / 'manifest.json'}")
    print(f"  loss curve         {run / 'training' / 'loss.svg'}")
    losses = [
        event for event in read_log(run / "training" / "log.jsonl") if is_final(event, last_phase)
    ]
    loss, entropy = losses[-1]["loss"], unigram_entropy(run, last_phase)
    print(f"  held-out loss      {loss:.3f} nat a masked token")
    print(f"  unigram entropy    {entropy:.3f} nat a token of the held-out text")
    print(f"  learnt             {entropy - loss:.3f} nat (asked: {MUST_LEARN_NATS})")
    return bool(entropy - loss >= MUST_LEARN_NATS)


def is_final(event: dict[str, object], phase: str) -> bool:
    return (event["event"], event["phase"], event.get("subset")) == ("held_out", phase, "all")


def read_log(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


def last_step(log: Path) -> int:
    """The last step in the log, counted over phases; -1 before the first."""
    steps = [event for event in read_log(log) if event["event"] == "step"] if log.exists() else []
    return len({(event["phase"], event["step"]) for event in steps}) - 1


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "tokenmill", *map(str, words)]


def tokenmill(*words: object) -> None:
    arguments = command(*words)
    step(shlex.join(["tokenmill", *arguments[3:]]))
    done = subprocess.run(arguments)
    if done.returncode:
        sys.exit(f"the command failed with exit code {done.returncode}")


def step(text: str) -> None:
    print(f"\n>>> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
