"""One root hash, whatever the engine, the number of workers, and the kills.

    python benchmarks/root.py --data FOLDER --tokenizer FOLDER_OR_FILE [--kills 10] [--json
    out.json]

Builds NeoBERT's recipe over RefinedWeb-shaped parquet inline, on Ray with one and with two
workers, and once more on Ray while the whole process group is killed (SIGKILL) at random moments;
then compares the roots.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenmill.shards.listing import read_listing

RECIPE = Path(__file__).parent.parent / "manifests" / "neobert.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    words = [sys.executable, "-m", "tokenmill", "build", str(RECIPE)]
    words += ["--set", f"sources.refinedweb.path={arguments.data}"]
    words += ["--set", f"tokenizer={arguments.tokenizer}"]
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        ways = {
            "inline": ["--engine", "inline"],
            "ray, 1 worker": ["--workers", "1"],
            "ray, 2 workers": ["--workers", "2"],
        }
        roots = {}
        for number, (name, options) in enumerate(ways.items()):
            started = time.perf_counter()
            subprocess.run([*words, "--out", str(top / str(number)), *options], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            seconds = time.perf_counter() - started
            roots[name] = read_listing(top / str(number)).root
            print(f"{name:32s} {roots[name]}  {seconds:.1f} s", flush=True)
        moments = []
        for number in range(arguments.kills):
            run = top / f"killed-{number}"
            moment = kill_at_random([*words, "--out", str(run)], seconds)
            moments.append(moment)
            name = f"ray, killed after {moment:.1f} s"
            roots[name] = read_listing(run).root
            print(f"{name:32s} {roots[name]}", flush=True)
    equal = len(set(roots.values())) == 1
    print("all equal" if equal else "NOT EQUAL")
    if arguments.json:
        arguments.json.write_text(json.dumps({"roots": roots, "kills": moments}, indent=1) + "\n")
    return 0 if equal else 1


def kill_at_random(command: list[str], seconds: float) -> float:
    """Start the command, kill it and all its processes at a random moment, then let it end."""
    while True:
        moment = random.uniform(0.1, 0.95) * seconds
        child = subprocess.Popen(command, start_new_session=True,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            child.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            break
        shutil.rmtree(command[command.index("--out") + 1])  # it was done before its moment
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return moment


if __name__ == "__main__":
    sys.exit(main())
