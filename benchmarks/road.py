"""The whole road from servers: a crawl, web text, code and articles to shards, by one command.

    python benchmarks/road.py --data FOLDER [--kills 3] [--json out.json]

Serves FOLDER on loopback: its web archives and articles by nginx, its RefinedWeb-shaped parquet by
a hub, its code by an S3 server that wants credentials. Then builds
manifests/crawl-web-code-science.yaml twice, on Ray: once undisturbed, once killed (SIGKILL, the
whole process group) at random moments and started again; a third time from the folder itself,
inline. The three roots must be one. FOLDER has web/warc, refinedweb, code, science/jats, eval and
tokenizers/bert-base-uncased.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import s3fs

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fetch_servers import Hub, Nginx, free_port, wait_for_port

from tokenmill.shards.listing import read_listing

RECIPE = Path(__file__).parent.parent / "manifests" / "crawl-web-code-science.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        top = arguments.out or Path(temporary)
        with serving(Path(temporary), data) as (settings, environment):
            command = build_command(data, settings)
            print(" ".join(command), "--out RUN\n", flush=True)
            started = time.perf_counter()
            result = subprocess.run(
                [*command, "--out", str(top / "whole")], env=environment, stdout=subprocess.PIPE,
                text=True, check=False,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            print(result.stdout)
            moments = kill_at_random(
                [*command, "--out", str(top / "killed")], environment, arguments.kills, seconds
            )
        local = build_command(data, local_settings(data))
        subprocess.run([*local, "--engine", "inline", "--out", str(top / "local")],
                       stdout=subprocess.DEVNULL, check=False)  # fmt: skip
        roots = {name: read_listing(top / name).root for name in ("whole", "killed", "local")}
    ways = {
        "whole": f"from servers, Ray, {seconds:.0f} s",
        "killed": f"from servers, Ray, killed after {', '.join(f'{m:.0f} s' for m in moments)}",
        "local": "from the folder, inline",
    }
    for name, root in roots.items():
        print(f"{root}  {ways[name]}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": seconds, "roots": roots}, indent=1))
    return 0 if len(set(roots.values())) == 1 else 1


def build_command(data: Path, settings: dict[str, str]) -> list[str]:
    words = [sys.executable, "-m", "tokenmill", "build", str(RECIPE)]
    settings = {**settings, "tokenizer": str(data / "tokenizers" / "bert-base-uncased")}
    settings |= {
        f"decontamination.sets.{path.stem}.path": str(path)
        for path in sorted((data / "eval").glob("*.jsonl"))
        if path.stem in ("boolq", "arc_challenge", "openbookqa")
    }
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    return words


def local_settings(data: Path) -> dict[str, str]:
    return {
        "sources.crawl.path": str(data / "web" / "warc"),
        "sources.crawl.file_list": "",  # the shipped source has one
        "sources.web.path": str(data / "refinedweb"),
        "sources.code.path": str(data / "code"),
        "sources.science.path": str(data / "science" / "jats"),
    }


@contextlib.contextmanager
def serving(top: Path, data: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Settings that point at servers of the data, and the environment that may read them."""
    served = top / "served"
    served.mkdir()
    for name, folder in (("warc", data / "web" / "warc"), ("jats", data / "science" / "jats")):
        (served / name).symlink_to(folder)
        names = sorted(path.name for path in folder.iterdir())
        (served / f"{name}.paths").write_text("\n".join(names) + "\n")
    hub = Hub()
    hub.page_size = 1000
    hub.push({path.name: path.read_bytes() for path in (data / "refinedweb").glob("*.parquet")})
    with Nginx(top / "nginx", served).running() as web, hub.running(), s3_server(top) as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader's secret"}
        store = s3fs.S3FileSystem(
            key=keys["AWS_ACCESS_KEY_ID"], secret=keys["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=endpoint,
        )  # fmt: skip
        store.mkdir("code")
        for path in sorted((data / "code").glob("*.parquet")):
            store.put(str(path), f"code/stack/{path.name}")
        settings = {
            "sources.crawl.path": f"{web.url}/warc",
            "sources.crawl.file_list": f"{web.url}/warc.paths",
            "sources.web.path": "hf://datasets/ada/texts",
            "sources.code.path": "s3://code/stack",
            "sources.code.storage_options.endpoint_url": endpoint,
            "sources.science.path": f"{web.url}/jats",
            "sources.science.file_list": f"{web.url}/jats.paths",
        }
        yield settings, {**os.environ, **keys, "HF_ENDPOINT": hub.url}


@contextlib.contextmanager
def s3_server(top: Path) -> Iterator[str]:
    port = free_port()
    with (top / "s3.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log
        )
        try:
            wait_for_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def kill_at_random(
    command: list[str], environment: dict[str, str], kills: int, seconds: float
) -> list[float]:
    """Run a command, killed so many times, until it ends by itself; after how long each time."""
    rng = random.Random(kills)
    moments = []
    for _ in range(kills):
        moment = rng.uniform(0.2, 0.6) * seconds
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=environment, start_new_session=True, **silent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moment)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        moments.append(moment)
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    return moments


if __name__ == "__main__":
    sys.exit(main())
