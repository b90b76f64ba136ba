"""What every request passes first: is it meant for this server, by a page of this server, from someone who may?"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs

COOKIE = "convscope"
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Answers requests with a foreign Host or Origin, or without the token, before anything of them is read.

    Args:
        app: The application behind.
        hosts: Host headers that mean this server; None: any, where a token is asked for.
        token: Asked for by every request, in a cookie, as `?token=`, or as `Authorization: Bearer`; "" for none.
    """

    def __init__(self, app: Any, hosts: frozenset[str] | None, token: str) -> None:
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, cookie = self._status(scope, headers), ""
        if not status and self.token and "token" in parse_qs(scope["query_string"].decode("latin-1")):
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = _HEADERS | ({"set-cookie": cookie} if cookie else {})
                message["headers"] = [*message.get("headers", []), *((key.encode(), value.encode()) for key, value in more.items())]
            await send(message)

        if status:
            body = {400: "unknown host", 403: "not from a page of this server", 401: "the token is missing"}[status].encode()
            start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
            await answer(start)
            await send({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, answer)

    def _status(self, scope: Any, headers: Mapping[str, str]) -> int:
        """The status to refuse with; 0 if the request is served."""
        host = headers.get("host", "")
        if self.hosts is not None and host.lower() not in self.hosts:
            return 400
        origin = headers.get("origin")
        foreign = origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}")
        if foreign or (headers.get("sec-fetch-site", "same-origin") == "cross-site" and scope["method"] not in ("GET", "HEAD")):
            return 403
        if self.token and not any(hmac.compare_digest(given.encode(), self.token.encode()) for given in _given(scope, headers)):
            return 401
        return 0


def _given(scope: Any, headers: Mapping[str, str]) -> list[str]:
    """The tokens that a request brings."""
    found = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        found.append(value)
    try:
        if COOKIE in (cookies := SimpleCookie(headers.get("cookie", ""))):
            found.append(cookies[COOKIE].value)
    except CookieError:
        pass
    return found
