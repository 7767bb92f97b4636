"""What stands before every request: who may ask, from where, and what an answer may do in a browser.

- Host: a page elsewhere that makes its name point here (DNS rebinding) sends that name, which is not ours.
- Origin: a page elsewhere that posts to us says so itself.
- Token: asked for where the server listens wider than this machine; compared in constant time; handed over once in the
  address and kept as a cookie that scripts cannot read.
- Headers: nothing from elsewhere is loaded, nobody frames us, no type is guessed.
- Whatever goes wrong inside is one line in the log and a bare "500" outside.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "tubelet_token"
COOKIE_SECONDS = 30 * 86400
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}

log = logging.getLogger("tubelet.web")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use a server. `token` None: anyone on this machine; `public` is its address behind a proxy."""

    token: str | None = None
    wide: bool = False  # listens to more than this machine
    public: str | None = None  # scheme://host[:port]

    def knows_host(self, host: str) -> bool:
        """Whether a request's Host can be ours."""
        name = _hostname(host)
        if name is None:
            return False
        if name in LOCAL_NAMES or (self.public and name == urlsplit(self.public).hostname):
            return True
        # only names can be made to point elsewhere, so a bare address is safe
        return self.wide and (_is_address(name) or name in _own_names())

    def knows_origin(self, origin: str, scheme: str, host: str) -> bool:
        """Whether a page of this origin is ours."""
        return origin == f"{scheme}://{host}" or (self.public is not None and origin == self.public)

    def knows_token(self, given: str | None) -> bool:
        """Whether it is the token, in a time that does not depend on where they differ."""
        return self.token is None or secrets.compare_digest(self.token.encode(), (given or "").encode())


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope)
        if answer is not None:
            await answer(scope, receive, guarded)
            return
        try:
            await self.app(scope, receive, guarded)
        except Exception as error:
            # the kind of error and where it is from, for who runs the server; its text may hold what a browser sent
            log.error("%s %s: %s", scope["method"], scope["path"], type(error).__name__, exc_info=error)
            if not started:
                await PlainTextResponse("something went wrong in the server", 500)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.access.knows_host(host):
            return PlainTextResponse("this is not the address of this server", 421)
        if scope["method"] not in SAFE_METHODS and not self._is_ours(scope, headers, host):
            return PlainTextResponse("requests of other pages are refused", 403)
        if self.access.token is None:
            return None
        handed = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if scope["method"] == "GET" and "token" in handed and self.access.knows_token(handed["token"]):
            return self._welcome(scope, handed)
        if not self.access.knows_token(_carried(headers)):
            return PlainTextResponse(
                "open this page with the address that `tubelet serve` printed: it holds a key", 401
            )
        return None

    def _is_ours(self, scope: Scope, headers: Headers, host: str) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            return self.access.knows_origin(origin, scope["scheme"], host)
        return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")

    def _welcome(self, scope: Scope, handed: dict[str, str]) -> Response:
        """Keep the token as a cookie and take it out of the address, and so out of the browser's history."""
        rest = urlencode([(name, value) for name, value in handed.items() if name != "token"])
        path = "/" + scope["path"].lstrip("/\\")  # two slashes would lead to another host
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        secure = scope["scheme"] == "https" or (self.access.public or "").startswith("https:")
        answer.set_cookie(
            COOKIE, self.access.token or "", max_age=COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure
        )
        return answer


def _carried(headers: Headers) -> str | None:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return None
    held: Any = cookies.get(COOKIE)
    return held.value if held is not None else None


def _hostname(host: str) -> str | None:
    if not host or set(host) & set("/@?#\\"):
        return None
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname if parts.port != 0 else None  # asking for the port checks that it is one
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local"}
