"""Who may ask: checks before any request is served, and headers on every answer."""

import asyncio
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ierf.errors import IerfError
from ierf.report.server.schemas import Limits

UPLOADS = "/api/photos"
COOKIE = "ierf_token"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_READING = ("GET", "HEAD")


@dataclass(frozen=True)
class Access:
    """The key to the server; without one only this machine's own names are answered."""

    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise IerfError("a token is 16 to 128 letters, digits, dashes or underscores; without one it is random")

    @classmethod
    def at(cls, host: str, token: str | None = None) -> "Access":
        """For a server bound to `host`: a random token where others can reach it."""
        return cls(token if token is not None or is_local(host) else secrets.token_urlsafe())

    def knows(self, name: str) -> bool:
        """Whether a request that calls the server by this name is meant for it.

        A page of another site can give its own name this machine's address (DNS rebinding). With a token that brings
        it nothing: the browser keeps the token for the name under which it was entered.
        """
        return self.token is not None or is_local(name)

    def admits(self, request: Request) -> bool:
        """Whether the request brings the token, as a cookie or as `Authorization: Bearer …`."""
        if self.token is None:
            return True
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")
        return secrets.compare_digest(given.encode(), self.token.encode())

    def is_key(self, query: str) -> bool:
        """Whether the address itself brings the token, as the printed one does."""
        given = parse_qs(query).get("token", [""])[0]
        return self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())


class AccessMiddleware:
    """The server behind its door."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, headers: Mapping[str, str]) -> None:
        self._app, self._access, self._limits, self._headers = app, access, limits, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        most = self._limits.upload if scope["path"] == UPLOADS else self._limits.request
        answer = self._answer(request, most)
        if answer is not None:
            await answer(scope, receive, sealed)
        else:
            await self._app(scope, _bounded(receive, most, self._limits.patience), sealed)

    def _answer(self, request: Request, most: int) -> Response | None:
        """A refusal or a redirection; None for a request to be served."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self._access.knows(_name(host)):
            return refusal(421, "this server does not answer to that name; open the address that it printed")
        reading = request.method in _READING
        foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if not reading and (foreign or request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")):
            return refusal(403, "this request comes from another site")
        query = request.scope["query_string"].decode("latin-1")
        if reading and request.scope["path"] == "/" and self._access.is_key(query):
            entered = RedirectResponse("/", status_code=303)
            entered.set_cookie(COOKIE, self._access.token or "", httponly=True, samesite="strict")
            return entered
        if not self._access.admits(request):
            return refusal(401, "the token is missing; open the address that the server printed")
        announced = request.headers.get("content-length", "0")
        return refusal(413, too_much(most)) if announced.isdecimal() and int(announced) > most else None


def is_local(host: str) -> bool:
    """Whether a name or address stands for this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


def too_much(most: int) -> str:
    return f"that is more than {most / 2**20:.3g} MiB; send less"


def _name(host: str) -> str:
    """A Host header without its port."""
    return re.sub(r":\d+$", "", host)


def _bounded(receive: Receive, most: int, patience: float) -> Receive:
    """The body as it comes: at most so many bytes, in at most so many seconds."""
    got, whole = 0, False
    until = asyncio.get_running_loop().time() + patience

    async def bounded() -> Message:
        nonlocal got, whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "the request took too long to arrive") from None
        got += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if got > most:
            raise HTTPException(413, too_much(most))
        return message

    return bounded
