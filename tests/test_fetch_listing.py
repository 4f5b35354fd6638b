"""What a source consists of, asked of real servers: a folder, nginx, a hub, an S3 store."""

import gzip
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from fetch_servers import Hub, cutting_proxy, free_port, nginx, noise, wait_for_port, write
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.errors import RecipeError, SourceError
from tokenmill.pipeline.fetch import retry
from tokenmill.pipeline.fetch.download import download
from tokenmill.pipeline.fetch.limit import LimitConfig, parse_bytes
from tokenmill.pipeline.fetch.listing import list_source, store_of
from tokenmill.pipeline.fetch.store import drain
from tokenmill.pipeline.sources import Checksum, SourceConfig, SourceFile

__all__ = ["nginx"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.001)


def jsonl(path, **settings) -> SourceConfig:
    return SourceConfig(kind="web", path=str(path), format="jsonl", **settings)


def names(path, **settings) -> list[str]:
    return [file.name for file in list_source("s", jsonl(path, **settings))]


def content(file: SourceFile, folder, config: SourceConfig) -> bytes:
    store = store_of(file, config.storage_options)
    download(file, store, folder / "part.bytes", folder / "whole")
    return (folder / "whole").read_bytes()


TREE = {
    "README.md": b"read me",
    "data/a.jsonl": b'{"text": "a"}\n' * 10,
    "data/b.jsonl": b'{"text": "b"}\n' * 200,
    "data/deep/c.jsonl.gz": gzip.compress(b"{}", mtime=0),
    "other/d.jsonl": b"{}",
}

PATHS = {
    "": ["data/a.jsonl", "data/b.jsonl", "data/deep/c.jsonl.gz", "other/d.jsonl"],
    "data": ["a.jsonl", "b.jsonl", "deep/c.jsonl.gz"],
    "data/*.jsonl": ["a.jsonl", "b.jsonl"],
    "data/**/*.gz": ["deep/c.jsonl.gz"],
    "*/[ad].jsonl": ["data/a.jsonl", "other/d.jsonl"],
    "data/b.jsonl": ["b.jsonl"],
    "README.md": ["README.md"],
}
"""What a path below the top selects, wherever the tree is."""


@pytest.mark.parametrize("path", PATHS)
def test_a_folder_lists_what_a_path_selects(tmp_path, path):
    for name, data in TREE.items():
        write(tmp_path / name, data)
    assert names(f"{tmp_path}/{path}") == PATHS[path]


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    server = Hub()
    server.push(TREE)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with server.running():
        yield server


@pytest.mark.parametrize("path", PATHS)
def test_a_hub_lists_what_a_path_selects_page_by_page(hub, path):
    assert names(f"hf://datasets/ada/texts/{path}") == PATHS[path]
    assert names(f"hf://datasets/ada/texts@{hub.sha(0)}/{path}") == PATHS[path]
    assert names(f"hf://datasets/ada/texts@refs/convert/parquet/{path}") == PATHS[path]
    assert hub.page_size < len(TREE)


def test_a_hubs_files_have_their_checksums_and_a_pinned_commit(hub, tmp_path):
    config = jsonl("hf://datasets/ada/texts/data")
    small, large, _ = list_source("s", config)
    assert small.address == f"hf://datasets/ada/texts@{hub.sha(0)}/data/a.jsonl"
    assert (small.checksum.kind, large.checksum.kind) == ("git", "sha256")
    hub.push({**TREE, "data/a.jsonl": b"pushed in the middle", "data/b.jsonl": b""})
    assert content(small, tmp_path, config) == TREE["data/a.jsonl"]
    assert content(large, tmp_path, config) == TREE["data/b.jsonl"]


def test_a_token_opens_a_gated_hub_and_stays_with_it(hub, tmp_path, monkeypatch):
    hub.token = "hf_secret"
    config = jsonl("hf://datasets/ada/texts/data")
    with pytest.raises(SourceError, match=r"revision/main: the server refuses access \(401\)"):
        list_source("s", config)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SourceError, match="HF_TOKEN and the terms of a gated") as caught:
        list_source("s", config)
    assert "hf_wrong" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    _, large, _ = list_source("s", config)
    assert content(large, tmp_path, config) == TREE["data/b.jsonl"]
    of_cdn = [token for path, token in hub.seen if path.startswith("cdn")]
    assert of_cdn
    assert set(of_cdn) == {None}


def test_an_aged_signature_of_the_cdn_is_renewed(hub, tmp_path):
    config = jsonl("hf://datasets/ada/texts/data")
    _, large, _ = list_source("s", config)
    store = store_of(large, {})
    store.open(0, 10).close()
    hub.signature = "signature-2"
    assert store.final.endswith("signature-1")
    assert drain(store.open(10, 20)) == TREE["data/b.jsonl"][10:20]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://datasets/ada", "expected hf://datasets/OWNER/NAME"),
        ("hf://datasets/ada/none", r"none/revision/main: not there \(404\)"),
        ("hf://datasets/ada/texts@v9", r"revision/v9: not there \(404\)"),
        ("hf://datasets/ada/texts/nowhere", r"nowhere.*: not there \(404\)"),
        ("hf://datasets/ada/texts/data/*.xml", r"3 files, none named \*\.xml"),
    ],
)
def test_what_a_hub_does_not_have_is_one_clear_error(hub, path, message):
    with pytest.raises(SourceError, match=message) as caught:
        list_source("s", jsonl(path))
    assert "\n" not in str(caught.value)


def test_no_network_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    for path in ("hf://datasets/ada/texts", f"http://127.0.0.1:{free_port()}/x.jsonl?sig=secret"):
        with pytest.raises(SourceError, match=r"no answer \(.*refused.*tried 4 times") as caught:
            list_source("s", jsonl(path))
        assert "secret" not in str(caught.value)


def test_a_list_names_files_below_a_base_and_is_read_as_far_as_the_limit_asks(nginx, tmp_path):
    lines = [f"crawl/{n:03d}/part.jsonl" for n in range(200)]
    for n, line in enumerate(lines):
        write(nginx.root / line, noise(100, n))
    write(nginx.root / "paths.gz", gzip.compress("\n".join([*lines, ""]).encode()))
    files = list_source("s", jsonl(f"{nginx.url}/", file_list=f"{nginx.url}/paths.gz"))
    assert [file.name for file in files] == lines
    assert {file.bytes for file in files} == {100}
    before = len(nginx.log())
    limit = LimitConfig(bytes=1000)
    assert names(nginx.url, file_list=f"{nginx.url}/paths.gz", limit=limit) == lines[:10]
    assert len(nginx.log()) - before <= 65
    local = write(tmp_path / "list.txt", f"{nginx.url}/{lines[3]}\n\n{lines[4]}".encode())
    assert names(nginx.url, file_list=str(local)) == lines[3:5]
    assert names(nginx.root, file_list=f"{nginx.url}/paths.gz") == lines
    assert names(nginx.url, file_list=str(local), patterns=("004/*",)) == lines[4:5]


def test_a_list_that_is_cut_on_its_way_is_not_taken_for_the_whole(nginx):
    write(nginx.root / "list", b"".join(b"%04d.jsonl\n" % n for n in range(1000)))
    with (
        cutting_proxy(nginx.port, 2000) as proxy,
        pytest.raises(SourceError, match=r"bytes too early .tried 4 times"),
    ):
        list_source("s", jsonl(nginx.url, file_list=f"{proxy.url}/list"))


def test_a_list_that_cannot_be_used_is_one_clear_error(nginx, tmp_path):
    write(nginx.root / "a.jsonl", b"{}")
    write(nginx.root / "cut.gz", gzip.compress(noise(1000))[:500])
    for place, message in (
        (tmp_path / "none.txt", "none.txt: No such file or directory"),
        (f"{nginx.url}/none.gz", r"none.gz: not there \(404\)"),
        (f"{nginx.url}/cut.gz", "cut.gz: broken gzip"),
        (write(tmp_path / "empty.txt", b"\n"), "empty.txt: no name in it"),
        (write(tmp_path / "up.txt", b"../a.jsonl"), r"a file named '\.\./a\.jsonl'"),
        (write(tmp_path / "gone.txt", b"a.jsonl\nb.jsonl"), r"b\.jsonl: not there \(404\)"),
    ):
        with pytest.raises(SourceError, match=message):
            list_source("s", jsonl(nginx.url, file_list=str(place)))
    with pytest.raises(SourceError, match="a web server lists no files"):
        list_source("s", jsonl(f"{nginx.url}/*.jsonl"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory) -> Iterator[tuple[str, dict[str, str]]]:
    """moto's server with a user who may read, in a process of its own; (endpoint, environment)."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("s3") / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log
    )
    try:
        wait_for_port(port)
        yield endpoint, _fill(endpoint)
    finally:
        server.terminate()
        server.wait()
        log.close()


def _fill(endpoint: str) -> dict[str, str]:
    start = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
    store = boto3.client("s3", endpoint_url=endpoint, **start)
    store.create_bucket(Bucket="texts")
    for name, data in TREE.items():
        store.put_object(Bucket="texts", Key=name, Body=data)
    users = boto3.client("iam", endpoint_url=endpoint, **start)
    users.create_user(UserName="ada")
    allow = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    users.put_user_policy(UserName="ada", PolicyName="read", PolicyDocument=policy)
    key = users.create_access_key(UserName="ada")["AccessKey"]
    # From now on every request needs a signature of a known user.
    urllib.request.urlopen(
        urllib.request.Request(
            f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
        )
    ).close()
    for client in (store, users):
        client.close()
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def client(endpoint: str, keys: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def bucket(s3, monkeypatch) -> dict[str, object]:
    """The bucket's settings, with the right credentials in the environment."""
    endpoint, keys = s3
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    # fsspec keeps a store for each set of options; another test has other credentials.
    return {"storage_options": {"endpoint_url": endpoint, "skip_instance_cache": True}}


@pytest.mark.parametrize("path", PATHS)
def test_an_s3_bucket_lists_what_a_path_selects(bucket, path):
    assert names(f"s3://texts/{path}", **bucket) == PATHS[path]


def test_an_s3_object_comes_by_ranges_and_its_md5_is_compared(bucket, tmp_path):
    config = jsonl("s3://texts/data", **bucket)
    first, second, _ = list_source("s", config)
    assert first.checksum.kind == "md5"
    assert content(first, tmp_path, config) == TREE["data/a.jsonl"]
    wrong = replace(second, checksum=Checksum("md5", "0" * 32))
    with pytest.raises(SourceError, match="their md5 is"):
        content(wrong, tmp_path, config)


def test_wrong_credentials_of_s3_are_one_clear_error(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-this-one")
    with pytest.raises(SourceError, match=r"texts/data: the store refuses access .*AWS_") as caught:
        list_source("s", jsonl("s3://texts/data", **bucket))
    assert "not-this-one" not in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    with pytest.raises(SourceError, match="the store refuses access"):
        list_source("s", jsonl("s3://texts/data", **bucket))


def test_an_s3_object_that_changes_or_goes_is_one_clear_error(bucket, s3, tmp_path):
    store = client(*s3)
    store.put_object(Bucket="texts", Key="moving/a.jsonl", Body=noise(1000))
    config = jsonl("s3://texts/moving", **bucket)
    (file,) = list_source("s", config)
    unsure = replace(file, checksum=None)  # as of many parts
    store.put_object(Bucket="texts", Key="moving/a.jsonl", Body=noise(1000, 1))
    with pytest.raises(SourceError, match="changed since it was listed"):
        content(unsure, tmp_path, config)
    store.delete_object(Bucket="texts", Key="moving/a.jsonl")
    store.close()
    with pytest.raises(SourceError, match=r"moving/a\.jsonl: not there"):
        content(file, tmp_path, config)
    assert not (tmp_path / "whole").exists()


def test_an_etag_of_an_encrypted_object_is_not_taken_for_an_md5(bucket, s3, tmp_path):
    store = client(*s3)
    store.put_object(
        Bucket="texts", Key="kms/a.jsonl", Body=noise(1000), ServerSideEncryption="aws:kms"
    )
    store.close()
    config = jsonl("s3://texts/kms", **bucket)
    (file,) = list_source("s", config)
    assert content(replace(file, checksum=Checksum("md5", "0" * 32)), tmp_path, config) == noise(
        1000
    )


def test_a_bucket_that_is_not_there_and_a_store_that_nobody_knows(bucket):
    with pytest.raises(SourceError, match=r"s3://nowhere/x: not there|0 files"):
        list_source("s", jsonl("s3://nowhere/x", **bucket))
    with pytest.raises(SourceError, match=r"nosuch://a: no store for it"):
        list_source("s", jsonl("nosuch://a"))


SIZES = st.dictionaries(st.text("abc/", min_size=1), st.integers(0, 50), max_size=20)


@given(SIZES, st.integers(1, 300), st.none() | st.integers(0, 3))
def test_a_limit_of_bytes_takes_as_many_files_as_fit(sizes, most, seed):
    limit = LimitConfig(bytes=most, sample_seed=seed)
    order = limit.order(list(sizes))
    assert sorted(order) == sorted(sizes)
    taken = list(limit.take(SourceFile(name, name, sizes[name]) for name in order))
    assert [file.name for file in taken] == order[: len(taken)]
    assert sum(file.bytes for file in taken) <= most
    if len(taken) < len(order):
        assert sum(file.bytes for file in taken) + sizes[order[len(taken)]] > most


@given(st.sets(st.text("abc/", min_size=1)), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_share_adds_to_a_smaller_and_new_files_change_no_choice(found, one, other):
    small, large = sorted([one, other])
    of_small = LimitConfig(share=small, sample_seed=7).order(sorted(found))
    assert set(of_small) <= set(LimitConfig(share=large, sample_seed=7).order(sorted(found)))
    grown = LimitConfig(share=small, sample_seed=7).order(sorted(found | {"new"}))
    assert [name for name in grown if name != "new"] == [n for n in of_small if n != "new"]


def test_a_sample_is_about_its_share():
    found = [f"part-{n:05d}" for n in range(10_000)]
    assert 450 < len(LimitConfig(share=0.05, sample_seed=0).order(found)) < 550


@pytest.mark.parametrize(
    ("text", "number"),
    [(5, 5), ("100 GB", 10**11), ("1.5kb", 1500), ("20 GiB", 20 << 30), ("4096", 4096)],
)
def test_sizes_are_read_as_people_write_them(text, number):
    assert parse_bytes(text) == number


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": {"bytes": "many"}}, "'many' is no size"),
        ({"limit": {"share": 0.1}}, "which files"),
        ({"limit": {"share": 2.0, "sample_seed": 0}}, "at most 1, got 2.0"),
        ({"path": "https://ada:word@host/x"}, "https://host/x: a recipe holds no passwords"),
        ({"storage_options": {"secret": "s"}}, "storage_options.secret: a recipe holds no cred"),
        ({"storage_options": {"client_kwargs": {"aws_session_token": "s"}}}, "aws_session_token"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    limit = settings.pop("limit", None)
    path = settings.pop("path", "x")
    with pytest.raises(RecipeError, match=message) as caught:
        jsonl(path, limit=LimitConfig(**limit) if limit else None, **settings)
    assert "word@" not in str(caught.value)


def test_a_limit_below_the_first_file_says_so(tmp_path):
    write(tmp_path / "a.jsonl", bytes(100))
    with pytest.raises(SourceError, match="none of 1 files fits into it"):
        names(tmp_path, limit=LimitConfig(bytes=99))
    assert names(tmp_path, limit=LimitConfig(bytes=100)) == ["a.jsonl"]


def test_nothing_of_the_environment_is_needed_for_local_files(tmp_path):
    write(tmp_path / "a.jsonl", b"{}")
    (file,) = list_source("s", jsonl(tmp_path))
    assert (file.remote, file.bytes) == (False, 2)
    assert os.path.samefile(file.address, tmp_path / "a.jsonl")  # noqa: PTH121
