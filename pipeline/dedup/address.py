"""When two addresses are one: what is the same page for nearly every server is taken off.

    HTTP://Example.org:80/a/?utm_source=x&id=3#top   ->   example.org/a?id=3

- the scheme; http and https are one, and a default port
- upper case in the host
- a fragment, unless it begins with `!` and so names a page
- slashes at the end of the path
- parameters that only tell where a reader came from: TRACKING, and all that begin with `utm_`

Nothing else: `www.`, the order of parameters, `index.html` and upper case in the path stay.
"""

TRACKING = frozenset(
    ("fbclid", "gclid", "dclid", "gbraid", "wbraid", "msclkid", "yclid", "igshid", "mc_cid",
     "mc_eid", "_ga", "_gl")
)  # fmt: skip
"""Parameters that advertisers and mailing lists add to a link."""
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "": ":80"}


def normal_address(url: str) -> str:
    """One spelling of an address; empty for an empty one."""
    url = url.strip()
    scheme, has_scheme, rest = url.partition("://")
    if not has_scheme:
        scheme, rest = "", url
    rest, _, fragment = rest.partition("#")
    place, _, query = rest.partition("?")
    host, slash, path = place.partition("/")
    host = host.lower().removesuffix(_DEFAULT_PORTS.get(scheme.lower(), ""))
    address = (host + slash + path).rstrip("/")
    if scheme.lower() not in ("", "http", "https"):
        address = f"{scheme.lower()}://{address}"
    if query and (kept := [part for part in query.split("&") if not _is_tracking(part)]):
        address += "?" + "&".join(kept)
    return address + ("#" + fragment if fragment.startswith("!") else "")


def _is_tracking(parameter: str) -> bool:
    name = parameter.partition("=")[0].lower()
    return not name or name.startswith("utm_") or name in TRACKING
