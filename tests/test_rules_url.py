"""Addresses are judged as by datatrove's URLFilter, asked in lower case."""

import io
import tarfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import URLFilter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tokenmill.errors import RecipeError, RunError
from tokenmill.pipeline.rules import blocklist, url
from tokenmill.pipeline.rules.hosts import extractor
from tokenmill.pipeline.rules.url import UrlRule, lists_key, measure_urls
from tokenmill.shards.settings import read_settings

LISTED = ("bad.com", "worse.co.uk", "blog.shared.net", "www.only.org", "b\xfccher.de", "1.2.3.4")
LISTED_URLS = ("http://mill.org/one", "naked.org/two")
REASONS = {
    "domain": "listed_domain",
    "subdomain": "listed_subdomain",
    "url": "listed_url",
    "hard_blacklisted": "banned_word",
    "soft_blacklisted": "max_soft_words",
    "blacklisted_subword": "banned_subword",
}
WORDS = [url._lines(blocklist.assets() / name) for name in url.WORD_LISTS]

HOSTS = st.sampled_from(
    [
        *LISTED, "www.bad.com", "a.b.worse.co.uk", "shared.net", "only.org", "x.www.only.org",
        "co.uk", "WWW.Bad.COM", "bad.com.", "bad.com:80", "me:pw@bad.com", "www.ck", "a.www.ck",
        "a.b.ck", "ck", "city.kobe.jp", "a.kobe.jp", "a.b.kobe.jp", "localhost", "127.0.0.1",
        "[::1]", "a..com", "", ".bad.com", "..bad.com", "xn--bcher-kva.de", "www.B\xdcCHER.de",
        "bad\u3002com", "b_d.com", "bad.com ", "bad,com", "foo.xn--p1ai", "a.\u0440\u0444",
        "appspot.com", "me.appspot.com",
    ]
)  # fmt: skip
LABELS = st.sampled_from(
    [
        "a",
        "uk",
        "co",
        "ck",
        "www",
        "kobe",
        "jp",
        "*",
        "!www",
        "gov",
        "com",
        "xn--p1ai",
        "city",
        "er",
    ]
)
PATH_WORDS = st.sampled_from(
    ["news", "a-b", "A", "%20", "?q=", "#", "//", "\xe9", "\u4e2d", "_"]
) | (st.sampled_from([word for words in WORDS for word in words]).map(str))
SCHEMES = st.sampled_from(
    ["http://", "https://", "HTTP://", "//", "", "ht tp://", "a+b.c-1://", "/"]
)
URLS = st.builds(
    lambda scheme, host, words: f"{scheme}{host}/" + "/".join(words),
    SCHEMES, HOSTS, st.lists(PATH_WORDS, max_size=6),
) | st.sampled_from(LISTED_URLS) | st.text(alphabet="ab./:@?#[]-", max_size=12)  # fmt: skip


@pytest.fixture
def small_lists(monkeypatch):
    """The shipped words, and no shipped domains: unpacking those takes seconds."""
    nothing = blocklist.blocklist([])
    monkeypatch.setattr(url, "shipped_blocklists", lambda: {"domains": nothing, "urls": nothing})
    url._lists.cache_clear()
    yield UrlRule(extra_domains=LISTED, extra_urls=LISTED_URLS)
    url._lists.cache_clear()


@pytest.fixture(scope="module")
def datatrove_filter():
    made = URLFilter(
        extra_domains=LISTED, extra_urls=LISTED_URLS, banned_words=WORDS[0],
        soft_banned_words=WORDS[1], banned_subwords=WORDS[2], use_integrated_lists=False,
    )  # fmt: skip
    made.tldextractor = extractor()  # its own would ask the network
    return made


def reasons(urls: list[str | None], rule: UrlRule) -> list[str]:
    """The first check that each address breaks."""
    signals = measure_urls(pa.array(urls, pa.string()), rule)
    found = [""] * len(urls)
    for check in reversed(rule.checks):
        for row in np.flatnonzero(check.broken(signals, getattr(rule, check.setting))):
            found[row] = check.setting
    return found


def datatrove_reason(made: URLFilter, address: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # datatrove asks for registered_domain
        verdict = made.filter(Document(text="", id="", metadata={"url": address}))
    return "" if verdict is True else REASONS[verdict[1]]


def in_lower_case(address: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in address)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(URLS.filter(bool), min_size=1, max_size=5))
@example(["http://a.com//b", "a//b", "http:/bad.com", "http:///bad.com", "a@b@bad.com", "@", "://"])
def test_every_address_is_judged_as_datatrove_judges_it_in_lower_case(
    small_lists, datatrove_filter, urls
):
    wanted = [datatrove_reason(datatrove_filter, in_lower_case(address)) for address in urls]
    assert reasons(urls, small_lists) == wanted


@settings(max_examples=300, deadline=None)
@given(SCHEMES, HOSTS | st.lists(LABELS, max_size=5).map(".".join))
def test_domains_and_hosts_are_those_of_tldextract(scheme, host):
    address = f"{scheme}{host}"
    lists = url._Lists((), (), url._word_table([], []), url._automaton([]))
    hashes, _ = url._read(pa.array([address], pa.large_string()), lists)
    found = extractor()(address)
    wanted = [found.top_domain_under_public_suffix, found.fqdn]
    assert hashes[:2, 0].tolist() == [int(url._hash(name)) for name in wanted]


def test_every_public_suffix_is_read_as_tldextract_reads_it():
    suffixes = sorted(name.lstrip("*!.") for name in extractor().tlds)
    addresses = [f"http://{labels}{name}/" for name in suffixes for labels in ("", "a.", "b.a.")]
    lists = url._Lists((), (), url._word_table([], []), url._automaton([]))
    hashes, _ = url._read(pa.array(addresses, pa.large_string()), lists)
    for row, address in enumerate(addresses):
        found = extractor()(address)
        assert int(hashes[0, row]) == int(url._hash(found.top_domain_under_public_suffix)), address
        assert int(hashes[1, row]) == int(url._hash(found.fqdn)), address


@given(
    st.lists(st.text(alphabet="ab1", min_size=1, max_size=4), max_size=5),
    st.text(alphabet="abAB1-/", min_size=1, max_size=12),
)
def test_a_banned_word_is_found_inside_any_other(words, address):
    lists = url._Lists((), (), url._word_table([], []), url._automaton(words))
    _, found = url._read(pa.array([address], pa.large_string()), lists)
    letters = address.lower().replace("-", "").replace("/", "")
    assert found[0, 2] == any(word in letters for word in words)


def test_case_matters_to_datatrove_and_not_here(small_lists, datatrove_filter):
    """The one difference: datatrove's words are in lower case, its addresses as they come."""
    for address, reason in {
        "http://a.com/PORN/": "banned_word",
        "http://WWW.BAD.COM/": "listed_domain",
        "HTTP://mill.org/One": "listed_url",
    }.items():
        assert datatrove_reason(datatrove_filter, address) == ""
        assert datatrove_reason(datatrove_filter, address.lower()) == reason
        assert reasons([address], small_lists) == [reason]


def test_a_document_without_an_address_is_kept(small_lists):
    assert reasons([None, "", "http://bad.com"], small_lists) == ["", "", "listed_domain"]
    assert reasons([], small_lists) == []


def test_signals_say_how_much_of_what(small_lists):
    soft = WORDS[1][:2]
    address = f"http://www.bad.com/{soft[0]}/{soft[1]}/{soft[0].upper()}"
    signals = measure_urls(pa.array([address]), small_lists)
    assert {name: int(values[0]) for name, values in signals.items()} == {
        "url_listed_domain": 1,
        "url_listed_subdomain": 0,
        "url_listed_url": 0,
        "url_banned_word": 0,
        "url_soft_words": 2,
        "url_banned_subword": 0,
    }


def test_lists_come_from_files_too(tmp_path, small_lists):
    listed = tmp_path / "domains.txt"
    listed.write_text("# ours\nMill.org\n\n  other.org \n")
    rule = read_settings(UrlRule, {"extra_domains": str(listed), "extra_words": ["Grain-s"]}, "url")
    assert rule.extra_domains == Path(listed)
    urls = ["http://a.mill.org", "http://other.org", "http://x.org/GRAINS", "http://ours.org"]
    assert reasons(urls, rule) == ["listed_domain", "listed_domain", "banned_word", ""]
    with pytest.raises(RecipeError, match=r"absent\.txt: cannot read this list"):
        measure_urls(pa.array(["a"]), UrlRule(extra_urls=tmp_path / "absent.txt"))


def test_the_key_names_the_contents_of_the_lists(tmp_path):
    listed = tmp_path / "urls.txt"
    keys = set()
    for content in ("a.org", "b.org"):
        listed.write_text(content)
        keys.add(lists_key(UrlRule(extra_urls=listed)))
    keys |= {lists_key(UrlRule()), lists_key(UrlRule(shipped_lists=False))}
    assert len(keys) == 4
    assert lists_key(UrlRule()) == lists_key(UrlRule(max_soft_words=5))


@pytest.fixture
def small_asset(tmp_path, monkeypatch):
    """An asset of three domains, and an empty folder for what is compiled."""
    path = tmp_path / "url_filterblacklists.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, lines in (("domains", b"bad.com\nworse.com\nlast.com"), ("urls", b"a.org/b\n")):
            member = tarfile.TarInfo(name)
            member.size = len(lines)
            archive.addfile(member, io.BytesIO(lines))
    monkeypatch.setattr(blocklist, "_asset", lambda: path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    blocklist.asset_sha256.cache_clear()
    yield path
    blocklist.asset_sha256.cache_clear()


def test_the_lists_are_compiled_once_however_many_come_at_once(small_asset, monkeypatch):
    compiled = []
    compile_lists = blocklist._compile
    monkeypatch.setattr(
        blocklist, "_compile", lambda paths: (compiled.append(1), compile_lists(paths))
    )
    load = blocklist.shipped_blocklists.__wrapped__
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: load(), range(8)))
    assert compiled == [1]
    for lists in loaded:
        assert isinstance(lists["domains"].hashes.base, np.memmap)
        asked = blocklist.hash_lines(b"BAD.com\nlast.com\ngood.com")
        assert lists["domains"].holds(asked).tolist() == [True, True, False]
        assert lists["urls"].holds(blocklist.hash_lines(b"a.org/b")).tolist() == [True]


def test_a_folder_that_cannot_be_written_is_named(small_asset, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(RunError, match=r"file/tokenmill/blocklists: cannot keep .*XDG_CACHE_HOME"):
        blocklist.shipped_blocklists.__wrapped__()


def test_no_two_of_the_shipped_domains_share_a_hash():
    with tarfile.open(blocklist._asset()) as archive:
        lines = archive.extractfile("domains").read()
    hashes = blocklist.hash_lines(lines)
    assert len(hashes) == lines.count(b"\n") + (not lines.endswith(b"\n")) > 4_500_000
    assert len(np.unique(hashes)) == len(hashes)
