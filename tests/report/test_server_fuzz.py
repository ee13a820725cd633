"""Requests that nobody should make: each gets the right status, tells nothing, and the server goes on."""

import json
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ierf

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from support.served import Answer, Client, encoded, served

from ierf.report.server import Access, Limits, ServedModel

ROOT = Path(__file__).resolve().parents[2]
SMALL = Limits(upload=300_000, pixels=1_000_000, request=4096, patience=1.0, queue=4)


@pytest.fixture(scope="module")
def subject(model: ierf.VisionModel) -> ServedModel:
    return ServedModel.of(model)


@pytest.fixture(scope="module")
def client(subject: ServedModel) -> Iterator[Client]:
    with served(subject, limits=SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def photo(client: Client) -> str:
    return client.upload(Image.new("RGB", (40, 30), "orange"))


def check(answer: Answer, status: int) -> None:
    """The status, one sentence, and nothing of the machine."""
    assert answer.status == status, answer
    said = answer.json["error"]
    assert 3 < len(said) < 700
    for secret in (str(ROOT), str(Path.home()), "site-packages", "Traceback", ".py"):
        assert secret.encode() not in answer.body
    sealed(answer)


def sealed(answer: Answer) -> None:
    for name in ("content-security-policy", "x-content-type-options", "cross-origin-resource-policy"):
        assert name in answer.headers, name
    assert answer.headers["cache-control"] == "no-store"


def png_of(width: int, height: int) -> bytes:
    """A small file that says it holds a large picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000) * 200))
        + chunk(b"IEND", b"")
    )


def noisy(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 415),
        (b"not an image", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
        (encoded(noisy(200))[:40_000], 422),
        (encoded(noisy(100), "JPEG")[:2_000], 422),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 415),
        (png_of(1_001, 1_000), 413),
        (png_of(60_000, 60_000), 413),
        (bytes(SMALL.upload + 1), 413),
    ],
    ids=["empty", "text", "svg", "eps", "cut png", "cut jpeg", "torn", "megapixels", "bomb", "oversized"],
)
def test_files_that_are_no_photographs(client: Client, content: bytes, status: int) -> None:
    check(client.ask("POST", "/api/photos", content), status)


def test_a_stream_without_a_length_is_cut_off(client: Client) -> None:
    chunks = (bytes(50_000) for _ in range(20))
    check(client.ask("POST", "/api/photos", chunks), 413)


def test_a_body_that_does_not_come_is_given_up(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as waiting:
        host = f"127.0.0.1:{client.port}".encode()
        waiting.sendall(b"POST /api/photos HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 408 " in waiting.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("picture", "form"),
    [
        (Image.new("CMYK", (50, 40), (9, 90, 200, 0)), "JPEG"),
        (Image.new("RGB", (1, 1), "red"), "PNG"),
        (Image.new("RGBA", (30, 500), (0, 0, 255, 90)), "WEBP"),
        (Image.new("I;16", (20, 20), 40_000), "PNG"),
        (Image.new("P", (33, 20)), "GIF"),
        (Image.new("1", (20, 20)), "TIFF"),
    ],
)
def test_unusual_photographs_are_explained(client: Client, picture: Image.Image, form: str) -> None:
    asked = {"kind": "maps", "photo": client.upload(picture, form), "classes": [0], "method": "gradient"}
    job = client.finished(asked)
    assert job["state"] == "done", job
    drawn = job["result"]["classes"][0]["maps"][0]
    assert np.isfinite(client.numbers(job, drawn["numbers"])).all()


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/static/../app.py",
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/serve.js%00.css",
        "/static/app.py",
        "/api/photos/..%2f..%2fetc%2fpasswd",
        "/api/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api/jobs/x/files/..%2f..%2fpasswd",
        "/docs",
        "/openapi.json",
        "/api",
    ],
)
def test_no_path_leads_to_a_file(client: Client, path: str) -> None:
    check(client.ask("GET", path), 404)


def test_files_of_a_job_are_only_its_own(client: Client, photo: str) -> None:
    job = client.finished({"kind": "maps", "photo": photo, "classes": [1], "method": "gradient"})
    drawn = job["result"]["classes"][0]["maps"][0]
    assert client.ask("GET", f"/api/jobs/{job['id']}/files/{drawn['picture']}").status == 200
    for name in (f"..%2f{drawn['picture']}", f".%2f{drawn['picture']}", "graph.json", "%2fetc%2fpasswd", "x" * 3000):
        check(client.ask("GET", f"/api/jobs/{job['id']}/files/{name}"), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("DELETE", "/"),
        ("GET", "/api/photos"),
        ("PUT", "/api/photos"),
        ("GET", "/api/jobs"),
        ("PATCH", "/api/jobs/x"),
        ("DELETE", "/static/serve.js"),
        ("BREW", "/api/model"),
    ],
)
def test_wrong_methods(client: Client, method: str, path: str) -> None:
    check(client.ask(method, path), 405)


@pytest.mark.parametrize(
    "asked",
    [
        None,
        7,
        [],
        "maps",
        {},
        {"kind": "maps"},
        {"kind": "delete everything", "photo": "PHOTO"},
        {"kind": "maps", "photo": 7},
        {"kind": "maps", "photo": "PHOTO", "classes": "tabby"},
        {"kind": "maps", "photo": "PHOTO", "classes": []},
        {"kind": "maps", "photo": "PHOTO", "classes": [True]},
        {"kind": "maps", "photo": "PHOTO", "classes": [-1]},
        {"kind": "maps", "photo": "PHOTO", "classes": [100]},
        {"kind": "maps", "photo": "PHOTO", "classes": [1e300]},
        {"kind": "maps", "photo": "PHOTO", "classes": [10**40]},
        {"kind": "maps", "photo": "PHOTO", "classes": ["no such class"]},
        {"kind": "maps", "photo": "PHOTO", "classes": ["9" * 150]},
        {"kind": "maps", "photo": "PHOTO", "classes": [{"a": 1}]},
        {"kind": "maps", "photo": "PHOTO", "classes": [0] * 9},
        {"kind": "maps", "photo": "PHOTO", "method": "__import__"},
        {"kind": "maps", "photo": "PHOTO", "resolution": "../../etc/passwd"},
        {"kind": "maps", "photo": "PHOTO", "resolution": "fc"},
        {"kind": "maps", "photo": "PHOTO", "<script>": "</script>"},
        {"kind": "ierf", "photo": "PHOTO", "layer": "layer9", "position": [0, 0]},
        {"kind": "ierf", "photo": "PHOTO", "layer": "layer4", "position": [4, 0]},
        {"kind": "ierf", "photo": "PHOTO", "layer": "layer4", "position": [-1, 0]},
        {"kind": "ierf", "photo": "PHOTO", "layer": "layer4", "position": [0]},
        {"kind": "ierf", "photo": "PHOTO", "layer": "layer4", "position": [0.5, 0]},
        {"kind": "ierf", "photo": "PHOTO", "layer": "layer4", "position": [0, 0], "method": "gradcam"},
        {"kind": "graph", "photo": "PHOTO"},
        {"kind": "graph", "photo": "PHOTO", "keep": 2},
        {"kind": "intervention", "photo": "PHOTO", "delete": ["layer4/0"]},
        {"kind": "intervention", "photo": "PHOTO", "delete": ["../../x/0"]},
        {"kind": "intervention", "photo": "PHOTO", "insert": {"layer4/0": float("nan")}},
        {"kind": "intervention", "photo": "PHOTO", "insert": {"layer4/0": 1e30}},
    ],
)
def test_requests_that_make_no_sense(client: Client, photo: str, asked: Any) -> None:
    if isinstance(asked, dict) and asked.get("photo") == "PHOTO":
        asked = {**asked, "photo": photo}
    check(client.send(asked), 422)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 422), (b"\xff\xfe", 422), (b"[" * 4000, 400), (b"kind=maps", 422), (b" " * 5000, 413)],
)
def test_bodies_that_are_no_requests(client: Client, body: bytes, status: int) -> None:
    check(client.ask("POST", "/api/jobs", body, {"content-type": "application/json"}), status)


def test_what_was_never_there(client: Client) -> None:
    check(client.send({"kind": "maps", "photo": "0" * 32}), 404)
    check(client.ask("GET", "/api/jobs/0"), 404)
    check(client.ask("DELETE", "/api/jobs/0"), 404)


def test_bytes_that_are_no_http(client: Client) -> None:
    for rubbish in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 200_000):
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as raw:
            try:
                raw.sendall(rubbish)
                raw.shutdown(socket.SHUT_WR)
                answer = raw.recv(4096)
            except OSError:
                continue
            assert b"Traceback" not in answer
    assert client.ask("GET", "/").status == 200


def test_the_page_fetches_nothing_from_elsewhere(client: Client) -> None:
    page = client.ask("GET", "/")
    sealed(page)
    assert page.status == 200
    assert "'unsafe" not in page.headers["content-security-policy"]
    for path in ("/", "/static/serve.js", "/static/serve.css"):
        body = client.ask("GET", path).body
        assert b"http://" not in body
        assert b"https://" not in body
        assert b"//cdn" not in body


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "192.168.0.9:80"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_other_sites_have_no_say(client: Client, headers: dict[str, str], status: int) -> None:
    check(client.ask("POST", "/api/photos", b"", headers), status)


def test_names_of_this_machine(client: Client) -> None:
    for host in ("localhost", f"localhost:{client.port}", "127.0.0.1:99", f"[::1]:{client.port}"):
        assert client.ask("GET", "/", headers={"host": host}).status == 200
    own = {"origin": client.url, "sec-fetch-site": "same-origin"}
    check(client.ask("POST", "/api/photos", b"", own), 415)


def test_a_token_opens_the_door(subject: ServedModel) -> None:
    token = "letmein-letmein-letmein"
    with served(subject, Access(token)) as client:
        for path in ("/", "/api/model", "/static/serve.js", "/?token=wrong", "/api/model?token=" + token):
            check(client.ask("GET", path), 401)
        check(client.ask("GET", "/", headers={"authorization": "Bearer " + token[:-1]}), 401)
        check(client.ask("GET", "/", headers={"cookie": "ierf_token=é"}), 401)
        entered = client.ask("GET", "/?token=" + token)
        assert entered.status == 303
        assert entered.headers["location"] == "/"
        cookie = entered.headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        for headers in ({"cookie": cookie.split(";")[0]}, {"authorization": "Bearer " + token}):
            assert client.ask("GET", "/", headers=headers).status == 200
            assert client.ask("GET", "/api/model", headers={**headers, "host": "gpu.example"}).status == 200
            foreign = {**headers, "origin": "http://evil.example"}
            check(client.ask("POST", "/api/photos", b"", foreign), 403)


def test_where_a_token_is_needed() -> None:
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert Access.at(host).token is None
    tokens = {Access.at(host).token for host in ("0.0.0.0", "192.168.1.2", "::", "gpu.example", "") for _ in range(3)}
    assert len(tokens) == 15
    assert all(token is not None and len(token) >= 40 for token in tokens)
    assert Access.at("127.0.0.1", "a" * 16).token == "a" * 16
    for bad in ("short", "a" * 20 + "&", ""):
        with pytest.raises(ierf.IerfError, match="token is 16"):
            Access.at("0.0.0.0", bad)


def test_200_requests_at_once(client: Client, photo: str) -> None:
    def ask(i: int) -> Answer:
        method = ("gradient", "gradient_x_input")[i // 100]
        return client.send({"kind": "maps", "photo": photo, "classes": [i % 100], "method": method})

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {202, 503}
    assert statuses[202] >= SMALL.queue
    for answer in answers:
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) > 0
            check(answer, 503)
        else:
            assert client.wait(answer.json["id"])["state"] == "done"


def test_200_photographs_at_once(client: Client) -> None:
    content = encoded(noisy(40))
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda i: client.ask("POST", "/api/photos", content if i % 2 else b"no"), range(200)))
    assert [answer.status for answer in answers] == [415, 201] * 100
    assert len({json.dumps(answer.json) for answer in answers[1::2]}) == 1
