"""The server's addresses: the page, photographs, jobs and what they found."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from ierf.errors import IerfError
from ierf.report.server.asked import Asked, Graph, Ierf, Maps
from ierf.report.server.graphs import graph
from ierf.report.server.guard import UPLOADS, Access, Guard, refusal
from ierf.report.server.ierfs import ierf
from ierf.report.server.interventions import intervention
from ierf.report.server.jobs import Job, Jobs, Work
from ierf.report.server.limits import Limits, RefusedError
from ierf.report.server.maps import maps
from ierf.report.server.memory import Memory, give_back
from ierf.report.server.pages import FRAMED, HEADERS, about, page, resources
from ierf.report.server.subject import Subject
from ierf.report.server.uploads import Arriving, Photo, name_of, opened
from ierf.report.server.words import without_paths


def create_app(subject: Subject, jobs: Jobs, access: Access, limits: Limits) -> ASGIApp:
    """The server as an ASGI application. Whoever made `jobs` closes them.

    | address | |
    |---|---|
    | `GET /` | the page |
    | `GET /api/model` | what can be asked for |
    | `POST /api/photos` | a photograph's bytes -> its id |
    | `GET /api/photos/{id}` | the part that the model sees |
    | `POST /api/jobs` | see `ierf.report.server.asked` -> a job |
    | `GET`, `DELETE /api/jobs/{id}` | how far it is, and what it found; stop it |
    | `GET /api/jobs/{id}/files/{name}` | a part of what it found |
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    photos: Memory[Photo] = Memory(limits.photos)
    arriving, decoding = Arriving(limits.arriving), asyncio.Semaphore(limits.decoding)
    shown, offered, parts = page(subject, limits), about(subject, limits), resources()

    def photo(name: str) -> Photo:
        found = photos.get(name)
        if found is None:
            raise RefusedError(404, "there is no such photograph, or it was forgotten; send it again")
        return found

    def work(asked: Asked) -> Work:
        picture = photo(asked.photo).picture
        if isinstance(asked, Maps):
            return maps(subject, picture, asked)
        if isinstance(asked, Ierf):
            return ierf(subject, picture, asked)
        if isinstance(asked, Graph):
            return graph(subject, picture, asked)
        made = None if asked.graph is None else jobs.get(asked.graph).result
        return intervention(subject, picture, asked, made)

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
                    sent = await run_in_threadpool(opened, subject.model, content, limits)
        photos.put(sent.id, sent, sent.size)
        await run_in_threadpool(give_back)
        return {"photo": sent.id, "width": sent.picture.width, "height": sent.picture.height}

    @app.get("/api/photos/{name}")
    def get_photo(name: str) -> Response:
        return Response(photo(name).view, media_type="image/png")

    @app.post("/api/jobs", status_code=202)
    def post_job(asked: Annotated[Asked, Field(discriminator="kind")]) -> dict[str, Any]:
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
        return refusal(422, without_paths(str(error)))

    @app.exception_handler(RequestValidationError)
    async def correct(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return refusal(422, without_paths(f"{where or 'the request'}: {first['msg']}"))

    @app.exception_handler(AnyHTTPException)
    async def state(request: Request, error: AnyHTTPException) -> JSONResponse:
        return refusal(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def give_up(request: Request, error: ClientDisconnect) -> JSONResponse:
        return refusal(400, "the request ended before its body did")

    @app.exception_handler(Exception)
    async def admit(request: Request, error: Exception) -> JSONResponse:
        return refusal(500, "the server met an error that it did not expect; its log says more")

    return Guard(app, access, limits, HEADERS)


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
