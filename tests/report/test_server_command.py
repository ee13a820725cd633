"""`ierf serve` as a command."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ierf.cli import main

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from support.served import Client

from ierf.report.server import address, listening


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve", *(str(argument) for argument in arguments)])


def explained(result: Result, words: str) -> None:
    """One sentence, status 2."""
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_mistakes_are_explained_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        explained(run("--port", taken.getsockname()[1]), "Address already in use")
    assert run("--port", 70_000).exit_code == 2
    explained(run("--host", "192.0.2.1", "--port", 0), "cannot listen")
    explained(run("--token", "short", "--port", 0), "16 to 128")
    explained(run("--bank", tmp_path, "--port", 0), "no concept bank")
    explained(run("--model", "bundled:no-such", "--port", 0), "no-such")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    explained(run("--port", 0), "pip install 'ierf[serve]'")


def test_the_address_to_open() -> None:
    with listening("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert address(bound, "127.0.0.1", None) == f"http://127.0.0.1:{port}/"
        assert address(bound, "::1", "abc") == f"http://[::1]:{port}/?token=abc"
        assert address(bound, "0.0.0.0", "abc") == f"http://{socket.gethostname()}:{port}/?token=abc"


@pytest.mark.skipif(os.name == "nt", reason="interrupts are sent otherwise there")
def test_an_interrupt_ends_it_cleanly_in_the_middle_of_a_job() -> None:
    command = [sys.executable, "-c", "from ierf.cli import main; main()", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/ ", process.stdout.readline())
        assert found is not None
        client = Client(int(found[1]))
        photo = client.upload(Image.new("RGB", (70, 90), "teal"))
        long = client.send({"kind": "maps", "photo": photo, "method": "kernel_shap"}).json
        while json.loads(client.ask("GET", f"/api/jobs/{long['id']}").body)["operations"] == 0:
            pass
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == "stopped\n"
    assert errors == ""
