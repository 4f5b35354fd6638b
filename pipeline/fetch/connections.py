"""Connections to web servers, kept and used again, by Python's own http.client.

Its answers read straight into a buffer of ours, which a layer above it would copy from. Proxies
are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), certificates those of the system
(SSL_CERT_FILE). A connection that its server has closed meanwhile is replaced without a word.
"""

import atexit
import base64
import http.client
import ssl
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

CONNECT_SECONDS, READ_SECONDS = 20.0, 60.0
MOST_IDLE = 32
"""Connections kept to one server."""


class Answer:
    """An answer whose body is still to be read; to be closed."""

    def __init__(
        self,
        place: tuple[str, str],
        link: http.client.HTTPConnection,
        raw: http.client.HTTPResponse,
    ) -> None:
        self.status, self.headers, self.readinto = raw.status, raw.headers, raw.readinto
        self._place, self._link, self._raw = place, link, raw

    def close(self) -> None:
        """Keep the connection if the body was read to its end; else it is of no more use."""
        whole = self._raw.isclosed()
        self._raw.close()
        with _lock:
            if whole and self._link.sock is not None and len(_idle[self._place]) < MOST_IDLE:
                _idle[self._place].append(self._link)
                return
        self._link.close()


def get(address: str, headers: Mapping[str, str]) -> Answer:
    """Ask for an address; redirects are not followed.

    Raises:
        OSError, http.client.HTTPException: no answer.
        ValueError: it is no address.
    """
    parts = urlsplit(address)
    place = parts.scheme, parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{parts.scheme}://{parts.netloc} is no web server")
    proxy = _proxy(*place)
    target = f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
    if proxy and parts.scheme == "http":
        target = f"http://{parts.netloc}{target}"
        headers = {**headers, **_login(proxy)}
    while True:
        with _lock:
            link = _idle[place].pop() if _idle[place] else None
        fresh = link is None
        link = link or _connect(place, proxy)
        try:
            link.request("GET", target, headers={"Accept-Encoding": "identity", **headers})
            return Answer(place, link, link.getresponse())
        except (ConnectionError, http.client.BadStatusLine):
            link.close()
            if fresh:
                raise
        except BaseException:
            link.close()
            raise


_lock = threading.Lock()
_idle: defaultdict[tuple[str, str], list[http.client.HTTPConnection]] = defaultdict(list)


@atexit.register
def close_idle() -> None:
    """Close the connections that nobody uses."""
    with _lock:
        for links in _idle.values():
            while links:
                links.pop().close()


def _connect(place: tuple[str, str], proxy: str | None) -> http.client.HTTPConnection:
    scheme, host = place
    first = urlsplit(proxy).netloc.rpartition("@")[2] if proxy else host
    link: http.client.HTTPConnection
    if scheme == "https":
        context = ssl.create_default_context()
        link = http.client.HTTPSConnection(first, timeout=CONNECT_SECONDS, context=context)
        if proxy:
            link.set_tunnel(host, headers=_login(proxy))
    else:
        link = http.client.HTTPConnection(first, timeout=CONNECT_SECONDS)
    link.connect()
    link.sock.settimeout(READ_SECONDS)
    return link


def _proxy(scheme: str, host: str) -> str | None:
    proxy = urllib.request.getproxies().get(scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _login(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    return {"Proxy-Authorization": basic(unquote(parts.username), unquote(parts.password or ""))}


def basic(user: str, password: str) -> str:
    """The value of an authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
