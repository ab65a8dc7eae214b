"""Who may call the server: keys and sessions, names and origins, and how often."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from enclap.errors import UsageError

ANONYMOUS = "anonymous"
SESSION_COOKIE = "enclap_session"
SESSION_SECONDS = 12 * 3600.0
MOST_SESSIONS = 10_000
MOST_CLIENTS = 10_000  # whose rate is remembered
DEFAULT_PORTS = {"http": 80, "https": 443}


class KeyRing:
    """The keys that are accepted, and the sessions of the page that were opened with one.

    An owner is a hash of a key: whatever is kept for a client carries it, the key itself is kept nowhere.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._hashes = [_hash(key) for key in keys]
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()  # hash of the token -> owner, end

    def owner(self, authorization: str | None, session: str | None) -> str | None:
        """Whose request it is, by its Authorization header or its cookie; None when neither opens the server."""
        if not self._hashes:
            return ANONYMOUS
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and (owner := self._known(key.strip())):
            return owner
        found = self._sessions.get(_hash(session)) if session else None
        return found[0] if found and found[1] > time.monotonic() else None

    def open_session(self, key: str) -> str | None:
        """The token of a new session; None for a wrong key."""
        owner = self._known(key)
        if owner is None:
            return None
        token = secrets.token_urlsafe(32)
        self._sessions[_hash(token)] = (owner, time.monotonic() + SESSION_SECONDS)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def _known(self, key: str) -> str | None:
        """The owner that the key stands for; takes the same time for every wrong key."""
        given = _hash(key)
        matches = [known for known in self._hashes if hmac.compare_digest(known, given)]
        return matches[0][:32] if matches else None


class RateLimit:
    """At most `rate` requests a minute from each client, any number when it is None (token bucket)."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens left, when

    def wait(self, client: str | None) -> int:
        """0 when the client may go on, else the seconds after which it may try again."""
        if self._rate is None:
            return 0
        now = time.monotonic()
        tokens, since = self._levels.pop(client or "", (float(self._rate), now))
        tokens = min(float(self._rate), tokens + (now - since) * self._rate / 60)
        allowed = tokens >= 1
        self._levels[client or ""] = (tokens - allowed, now)
        while len(self._levels) > MOST_CLIENTS:
            self._levels.popitem(last=False)
        return 0 if allowed else math.ceil((1 - tokens) * 60 / self._rate)


def host_is_allowed(host: str, names: tuple[str, ...]) -> bool:
    """Whether a Host header names this server: an address, localhost, or one of `names`.

    An address is always right: an attack by DNS rebinding needs a name.
    """
    name = (urlsplit(f"//{host}").hostname or "") if _is_netloc(host) else ""
    return name == "localhost" or _is_address(name) or name in {item.lower() for item in names}


def origin_is_allowed(origin: str, host: str, others: tuple[str, ...]) -> bool:
    """Whether a page of `origin` may call the server that was reached as `host`."""
    if origin in others:
        return True
    parts = urlsplit(origin) if _is_netloc(origin.partition("://")[2]) else None
    if parts is None or parts.scheme not in DEFAULT_PORTS:
        return False
    default = DEFAULT_PORTS[parts.scheme]
    return _endpoint(parts.netloc, default) == _endpoint(host, default)


def is_loopback(host: str) -> bool:
    """Whether a server that listens there is reached from this machine alone."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def check_exposure(host: str, has_keys: bool, allow_anonymous: bool) -> None:
    """Raises UsageError when anybody on the network could use the server without a key."""
    if not is_loopback(host) and not has_keys and not allow_anonymous:
        advice = "add --api-key-file FILE, or --allow-anonymous if everybody may use it"
        raise UsageError(f"--host {host}: reached from other machines, and no key is asked for; {advice}")


def _endpoint(netloc: str, default: int) -> tuple[str | None, int]:
    parts = urlsplit(f"//{netloc}")
    return parts.hostname, parts.port or default


def _is_netloc(text: str) -> bool:
    """Whether the text is a host with or without a port, and nothing more."""
    try:
        parts = urlsplit(f"//{text}")
        port_is_number = parts.port is None or parts.port >= 0
    except ValueError:
        return False
    return port_is_number and parts.netloc == text and "@" not in text and bool(parts.hostname)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
