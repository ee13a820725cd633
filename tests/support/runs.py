"""Runs of experiments: photographs that need no file from elsewhere, and Ctrl-C at a chosen moment."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_photographs(folder: Path, count: int = 4) -> Path:
    """Coloured noise with a bright square, and a table that has the square's box under class 30; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,label,x0,y0,x1,y1"]
    for i in range(count):
        random = np.random.default_rng(i)
        pixels = random.integers(0, 128, (64, 64, 3), dtype=np.uint8)
        row, column = random.integers(0, 40, 2)
        pixels[row : row + 24, column : column + 24] += 120
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{30 + i},{column},{row},{column + 23},{row + 23}")
    table = folder / "boxes.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def in_a_process(arguments: list[str]) -> subprocess.Popen[bytes]:
    """`ierf` with these arguments, running."""
    command = [sys.executable, "-c", "from ierf.cli import main; main()", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stop_after(count: int) -> Any:
    """Progress that is interrupted behind so many units."""

    def progress(stage: str, done: int, total: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return progress
