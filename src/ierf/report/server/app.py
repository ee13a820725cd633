"""The server: its addresses, its page, and running it until it is stopped."""

import asyncio
import gc
import re
import socket
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from ierf.attribution import METHODS, RESOLUTIONS, RULES
from ierf.errors import IerfError
from ierf.report.components import document
from ierf.report.server.jobs import File, Job, Jobs, LRUCache, Work, give_back
from ierf.report.server.middleware import UPLOADS, Access, AccessMiddleware, refusal
from ierf.report.server.results import graph, ierf, intervention, maps
from ierf.report.server.schemas import (
    GraphRequest,
    IerfRequest,
    JobRequest,
    Limits,
    MapsRequest,
    RefusedError,
    redacted,
)
from ierf.report.server.served_model import Arriving, Photo, ServedModel, name_of, opened
from ierf.report.text import METHOD_NAMES


def create_app(served: ServedModel, jobs: Jobs, access: Access, limits: Limits) -> ASGIApp:
    """The server as an ASGI application. Whoever made `jobs` closes them.

    | address | |
    |---|---|
    | `GET /` | the page |
    | `GET /api/model` | what can be asked for |
    | `POST /api/photos` | a photograph's bytes -> its id |
    | `GET /api/photos/{id}` | the part that the model sees |
    | `POST /api/jobs` | see `ierf.report.server.schemas` -> a job |
    | `GET`, `DELETE /api/jobs/{id}` | how far it is, and what it found; stop it |
    | `GET /api/jobs/{id}/files/{name}` | a part of what it found |
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    photos: LRUCache[Photo] = LRUCache(limits.photos)
    arriving, decoding = Arriving(limits.arriving), asyncio.Semaphore(limits.decoding)
    shown, offered, parts = page(served, limits), about(served, limits), resources()

    def photo(name: str) -> Photo:
        found = photos.get(name)
        if found is None:
            raise RefusedError(404, "there is no such photograph, or it was forgotten; send it again")
        return found

    def work(asked: JobRequest) -> Work:
        picture = photo(asked.photo).picture
        if isinstance(asked, MapsRequest):
            return maps(served, picture, asked)
        if isinstance(asked, IerfRequest):
            return ierf(served, picture, asked)
        if isinstance(asked, GraphRequest):
            return graph(served, picture, asked)
        made = None if asked.graph is None else jobs.get(asked.graph).result
        return intervention(served, picture, asked, made)

    @app.get("/")
    def get_page() -> Response:
        return Response(shown, media_type="text/html; charset=utf-8")

    @app.get("/static/{name}")
    def get_resource(name: str) -> Response:
        if name not in parts:
            raise HTTPException(404)
        return Response(parts[name].content, media_type=parts[name].media_type)

    @app.get("/favicon.ico", status_code=204)
    def get_icon() -> None:
        """None: browsers ask for it unasked."""

    @app.get("/api/model")
    def get_model() -> dict[str, Any]:
        return offered

    @app.post(UPLOADS, status_code=201)
    async def post_photo(request: Request) -> dict[str, Any]:
        announced = request.headers.get("content-length", "")
        with arriving.upload(int(announced) if announced.isdecimal() else limits.upload):
            content = await request.body()
            async with decoding:
                sent = photos.get(name_of(content))
                if sent is None:
                    sent = await run_in_threadpool(opened, served.model, content, limits)
        photos.put(sent.id, sent, sent.size)
        await run_in_threadpool(give_back)
        return {"photo": sent.id, "width": sent.picture.width, "height": sent.picture.height}

    @app.get("/api/photos/{name}")
    def get_photo(name: str) -> Response:
        return Response(photo(name).view, media_type="image/png")

    @app.post("/api/jobs", status_code=202)
    def post_job(asked: Annotated[JobRequest, Field(discriminator="kind")]) -> dict[str, Any]:
        return _said(jobs, jobs.submit(asked.model_dump_json(), work(asked)))

    @app.get("/api/jobs/{name}")
    def get_job(name: str) -> dict[str, Any]:
        return _said(jobs, jobs.get(name))

    @app.delete("/api/jobs/{name}")
    def delete_job(name: str) -> dict[str, Any]:
        return _said(jobs, jobs.cancel(name))

    @app.get("/api/jobs/{name}/files/{part}")
    def get_file(name: str, part: str) -> Response:
        result = jobs.get(name).result
        if result is None or part not in result.files:
            raise HTTPException(404)
        file = result.files[part]
        headers = FRAMED if file.media_type.startswith("text/html") else None
        return Response(file.content, media_type=file.media_type, headers=headers)

    @app.exception_handler(IerfError)
    async def explain(request: Request, error: IerfError) -> JSONResponse:
        if isinstance(error, RefusedError):
            waits = None if error.retry_after is None else {"retry-after": str(error.retry_after)}
            return refusal(error.status, str(error), waits)
        return refusal(422, redacted(str(error)))

    @app.exception_handler(RequestValidationError)
    async def correct(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return refusal(422, redacted(f"{where or 'the request'}: {first['msg']}"))

    @app.exception_handler(AnyHTTPException)
    async def state(request: Request, error: AnyHTTPException) -> JSONResponse:
        return refusal(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def give_up(request: Request, error: ClientDisconnect) -> JSONResponse:
        return refusal(400, "the request ended before its body did")

    @app.exception_handler(Exception)
    async def admit(request: Request, error: Exception) -> JSONResponse:
        return refusal(500, "the server met an error that it did not expect; its log says more")

    return AccessMiddleware(app, access, limits, HEADERS)


def _said(jobs: Jobs, job: Job) -> dict[str, Any]:
    """A job as a browser sees it."""
    return {
        "id": job.id,
        "state": job.state,
        "ahead": jobs.place(job),
        "stage": job.progress.stage,
        "done": job.progress.done,
        "total": job.progress.total,
        "operations": job.progress.interruptible.operations,
        "seconds": round(job.elapsed, 2),
        "error": job.error or None,
        "result": job.result.content if job.result is not None and job.state == "done" else None,
    }


_TYPES = {"serve.css": "text/css; charset=utf-8", "serve.js": "text/javascript; charset=utf-8"}


def page(served: ServedModel, limits: Limits) -> str:
    """The page as HTML; the rest is fetched from this server."""
    height, width = served.model.preprocess.size
    body = Template(_text("serve.html")).substitute(
        model=escape(served.model.name),
        size=f"{width} × {height}",
        upload=f"{limits.upload / 2**20:g} MiB",
        concepts="" if served.bank is not None else "hidden",
        no_concepts="hidden" if served.bank is not None else "",
    )
    return document(f"ierf: {served.model.name}", body)


def about(served: ServedModel, limits: Limits) -> dict[str, Any]:
    """What the page offers to choose from."""
    return {
        "name": served.model.name,
        "labels": [served.model.label(index) for index in range(served.n_classes)],
        "methods": [
            {"name": name, "title": METHOD_NAMES.get(name, name.replace("_", " ")), "rules": name in RULES}
            for name in METHODS
        ],
        "usual": served.usual,
        "resolutions": RESOLUTIONS,
        "layers": [layer._asdict() for layer in served.layers],
        "bank": None if served.bank is None else served.bank.layers,
        "upload": limits.upload,
    }


def resources() -> dict[str, File]:
    """The page's script and style."""
    return {name: File(kind, _text(name).encode()) for name, kind in _TYPES.items()}


def _text(name: str) -> str:
    return files("ierf.report.server").joinpath(name).read_text(encoding="utf-8")


def _styles_of_the_page() -> str:
    """The hash by which a browser knows the style that is written in every report's page."""
    (style,) = re.findall("<style>(.*?)</style>", document("", ""), re.DOTALL)
    return f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"


HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' {_styles_of_the_page()}; img-src 'self' blob:; "
        "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer: nothing comes from elsewhere, nothing goes elsewhere, nobody frames the page."""

FRAMED = {
    "content-security-policy": (
        "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
}
"""Of a graph's page: its own script runs, but as a stranger that cannot reach this server."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address; port 0 takes any free one.

    Raises `IerfError` where the port is taken or not allowed, and for an address that is not this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        raise IerfError(
            f"cannot listen at port {port} of {host!r}: {error.strerror or error}; choose another --port or --host"
        ) from None
    return bound


def address(bound: socket.socket, host: str, token: str | None) -> str:
    """What to open in a browser; for a server that listens on all addresses, by this machine's name."""
    everywhere = host in ("0.0.0.0", "::")
    name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}/" + (f"?token={token}" if token else "")


def server(app: ASGIApp) -> uvicorn.Server:
    """The HTTP server of an application, not yet running."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=2,
        )
    )


def run(app: ASGIApp, bound: socket.socket) -> None:
    """Serve until the process is interrupted.

    What there is by then stays, so it is looked at no more when garbage is collected between two jobs.
    """
    gc.freeze()
    with bound, suppress(KeyboardInterrupt):
        server(app).run(sockets=[bound])
