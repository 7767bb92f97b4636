"""Check every request before it reaches the application, and set the security headers of every response.

- Host: must be a name of this server. A foreign site that makes its name resolve to this machine (DNS rebinding) sends
  its own name.
- Origin: requests that change something must come from our own page.
- Token: required if the server listens to other machines. Compared in constant time; given once in the address, then
  stored as a cookie that scripts cannot read.
- Rates: too many requests of a user or an address, or too many wrong tokens of an address, are answered with 429.
- Headers: the browser loads nothing from other sites, shows the page in no frame and guesses no content type.
- Unexpected exceptions are logged; the client gets a plain 500 without details.
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
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tubelet.apps.web.rates import Rates, retry_after
from tubelet.apps.web.shares import address
from tubelet.apps.web.users import EVERYONE, User, user_of
from tubelet.apps.web.visitors import KEY

COOKIE = "tubelet_token"
COOKIE_SECONDS = 30 * 86400
YEAR = 365 * 86400
GUESSES = 10  # a minute
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
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}

log = logging.getLogger("tubelet.web")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use a server."""

    token: str | None = None  # of a server without users; None: no token is required
    users: tuple[User, ...] = ()  # each has a token of their own
    wide: bool = False  # whether the server listens to other machines
    public: str | None = None  # its address behind a proxy: scheme://host[:port]

    def knows_host(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name = _hostname(host)
        if name is None:
            return False
        if name in LOCAL_NAMES:
            return True
        if self.public and name == urlsplit(self.public).hostname:
            return True
        # DNS rebinding needs a name, so an IP address is safe
        return self.wide and (_is_address(name) or name in _machine_names())

    def knows_origin(self, origin: str, scheme: str, host: str) -> bool:
        """Whether an Origin header names our own page; `scheme` and `host` are the request's."""
        return origin == f"{scheme}://{host}" or (self.public is not None and origin == self.public)

    @property
    def asks_for_token(self) -> bool:
        """Whether a request needs a token."""
        return self.token is not None or bool(self.users)

    def user_of(self, given: str | None) -> User | None:
        """The user of a token, compared in constant time; None if it is nobody's."""
        if self.users:
            return user_of(given or "", self.users)
        if self.token is None or secrets.compare_digest(self.token.encode(), (given or "").encode()):
            return EVERYONE
        return None


class Guard:
    """ASGI middleware that refuses requests which `access` does not allow, and sets HEADERS on every response."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        rates: Rates | None = None,
        public: tuple[str, ...] = (),
        secret: tuple[str, ...] = (),
    ) -> None:
        self.app = app
        self.access = access
        self.rates = rates or Rates(0, GUESSES)
        self.public = public  # starts of paths that anybody may read
        self.secret = secret  # of those, the ones that go on with a word to be guessed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] == 404 and scope["path"].startswith(self.secret):
                    self.rates.guesses.note(address(HTTPConnection(scope)), scope["path"])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if (self.access.public or "").startswith("https:"):
                    headers.setdefault("Strict-Transport-Security", f"max-age={YEAR}")
            await send(message)

        early_response = self._check(scope)
        if early_response is not None:
            await early_response(scope, receive, send_with_headers)
            return

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            # the first line has no text of the error: that may contain what a browser sent
            log.error("%s %s: %s", scope["method"], scope["path"], type(error).__name__, exc_info=error)
            if not started:
                response = PlainTextResponse("something went wrong in the server", 500)
                await response(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> Response | None:
        """The response that refuses or redirects a request; None if the application may answer it."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        client = address(HTTPConnection(scope))
        wait = self.rates.addresses.wait(client)
        if wait:
            return _too_many("requests", wait)
        if not self.access.knows_host(host):
            return PlainTextResponse("this is not the address of this server", 421)
        if scope["method"] not in SAFE_METHODS and not self._is_ours(scope, headers, host):
            return PlainTextResponse("requests of other pages are refused", 403)

        wait = self.rates.guesses.wait(client)
        if wait:
            return _too_many("wrong tokens", wait)
        if scope["path"].startswith(self.public) and scope["method"] in ("GET", "HEAD"):
            return None
        return self._log_in(scope, headers, client)

    def _log_in(self, scope: Scope, headers: Headers, client: str) -> Response | None:
        """Find the user of a request's token."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"))) if self.access.asks_for_token else {}
        if scope["method"] == "GET" and "token" in query:
            user = self.access.user_of(query["token"])
            if user is not None:
                scope[KEY] = user
                return self._set_cookie(scope, query)
            self.rates.guesses.note(client, query["token"])
        given = _token_of(headers)
        user = self.access.user_of(given)
        if user is None:
            if given is not None:
                self.rates.guesses.note(client, given)
            return PlainTextResponse("open this page with an address that holds your key (?token=...)", 401)
        scope[KEY] = user
        wait = self.rates.users.wait(user.name) if user.name else 0.0
        return _too_many("requests", wait) if wait else None

    def _is_ours(self, scope: Scope, headers: Headers, host: str) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            return self.access.knows_origin(origin, scope["scheme"], host)
        return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")

    def _set_cookie(self, scope: Scope, query: dict[str, str]) -> Response:
        """Store the token as a cookie and redirect to the address without it, so that no history contains it."""
        other_parameters = [(name, value) for name, value in query.items() if name != "token"]
        url = "/" + scope["path"].lstrip("/\\")  # two slashes would lead to another host
        if other_parameters:
            url += f"?{urlencode(other_parameters)}"

        response = RedirectResponse(url, 303)
        is_https = scope["scheme"] == "https" or (self.access.public or "").startswith("https:")
        response.set_cookie(
            COOKIE,
            query["token"],
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=is_https,
        )
        return response


def _too_many(what: str, wait: float) -> Response:
    return JSONResponse({"error": f"too many {what}; try again in a while"}, 429, retry_after(wait))


def _token_of(headers: Headers) -> str | None:
    """The token in the Authorization header, or else in the cookie."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()

    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return None
    cookie: Any = cookies.get(COOKIE)
    return cookie.value if cookie is not None else None


def _hostname(host: str) -> str | None:
    """The name in a Host header, without the port; None if the header is malformed."""
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


def _machine_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local"}
