"""How large is the page of a concept graph, how soon is it seen, and how quickly does it answer the pointer?

    python benchmarks/graph_page.py

Graphs are those of the tests: made up, with maps as rough as real ones. Needs Chromium and Playwright
(`pip install 'ierf[browser]'`). Times of the page's thread are the same however busy the machine is.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import sync_playwright

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from support.page_graphs import large  # noqa: E402

SCREEN = {"width": 1366, "height": 768}
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
COMPLETE = "performance.getEntriesByName('ready')[0]?.startTime"
READY = """new MutationObserver((_, watching) => {
    if (document.documentElement.dataset.ready === undefined) return;
    performance.mark("ready");
    watching.disconnect();
}).observe(document, { attributes: true, subtree: true });"""
WATCH = """window.answers = [];
document.addEventListener("pointermove", (event) => {
    const received = performance.now();
    requestAnimationFrame(() => {
        const after = new MessageChannel();
        after.port1.onmessage = () => {
            window.answers.push([performance.now() - event.timeStamp, performance.now() - received]);
        };
        after.port2.postMessage(0);
    });
}, { capture: true });"""
"""Milliseconds to when the next frame is drawn, from the pointer's move and from when the page is told of it."""


def opened(browser: Any, path: Path) -> tuple[Any, Callable[[], float]]:
    """The page, and how many milliseconds its thread has worked so far."""
    tab = browser.new_page(viewport=SCREEN)
    tab.add_init_script(READY)
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready]")
    tab.wait_for_function(PAINTED)
    return tab, busy


def first_picture(browser: Any, path: Path, runs: int) -> dict[str, float]:
    """Medians in milliseconds: until something is seen, until all is there, and what the page's thread works for it."""
    found = []
    for _ in range(runs):
        tab, busy = opened(browser, path)
        found.append((tab.evaluate(PAINTED), tab.evaluate(COMPLETE), busy()))
        tab.close()
    seen, whole, thread = zip(*found, strict=True)
    return {
        "first paint ms": round(median(seen)),
        "worst first paint ms": round(max(seen)),
        "complete ms": round(median(whole)),
        "thread ms": round(median(thread)),
    }


def sizes(path: Path) -> dict[str, float]:
    """Megabytes, of 10⁶ bytes."""
    text = path.read_text(encoding="utf-8")
    bare = len(re.sub(r"data:image/[^\"]*", "", text).encode())
    return {"without pictures MB": round(bare / 1e6, 2), "pictures MB": round((len(text.encode()) - bare) / 1e6, 2)}


def answers(browser: Any, path: Path, moves: int) -> dict[str, dict[str, float]]:
    """To pointing at nodes and at edges, from far apart, so that each move changes what is lit."""
    tab, busy = opened(browser, path)
    tab.evaluate(WATCH)

    def point(x: float, y: float) -> tuple[float, ...]:
        count, before = tab.evaluate("answers.length"), busy()
        tab.mouse.move(x, y)
        tab.wait_for_timeout(150)
        thread = busy() - before
        tab.wait_for_function(f"answers.length > {count}")
        return *tab.evaluate("answers.at(-1)"), thread

    def summed(found: list[tuple[float, ...]]) -> dict[str, float]:
        rows = zip(("from the move", "from the event", "thread"), zip(*found, strict=True), strict=True)
        return {
            f"{name}{worst} ms": round(of(values), 1)
            for name, values in rows
            for worst, of in (("", median), (", worst", max))
        }

    boxes = [tab.locator(".node.concept").nth(i).bounding_box() for i in range(80)]
    shown = [box for box in boxes if 160 < box["x"] < 900 and 130 < box["y"] < 650]
    found: dict[str, list[tuple[float, ...]]] = {"node": [], "edge": []}
    whole = dict.fromkeys(found, 0.0)
    for turn in range(moves):
        box, other = shown[7 * turn % len(shown)], shown[(7 * turn + 3) % len(shown)]
        places = {
            "node": (box["x"] + 20, box["y"] + 20),
            "edge": (other["x"] + other["width"] / 2 + turn % 3, other["y"] + other["height"] + 25),
        }
        for what, place in places.items():
            before = worked(browser)
            found[what].append(point(*place))
            whole[what] += worked(browser) - before
    tab.close()
    return {what: {**summed(of), "all processes ms": round(whole[what] / moves)} for what, of in found.items()}


def worked(browser: Any) -> float:
    """Milliseconds of processor time of all of the browser's processes."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return 1000 * sum(process["cpuTime"] for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of first pictures")
    parser.add_argument("--moves", type=int, default=30, help="of the pointer, each to a node and to an edge")
    given = parser.parse_args()
    with TemporaryDirectory() as folder, sync_playwright() as play:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        print("Chromium", browser.version)
        for name, shape in {"16 × 13, 1000 edges": (16, 13, 1000), "16 × 13, all edges": (16, 13, 99_999)}.items():
            graph = large(*shape)
            path = graph.save(Path(folder) / "deep.html")
            found = {"edges": len(graph.edges), **sizes(path), **first_picture(browser, path, given.runs)}
            print(name, json.dumps(found), flush=True)
        crowd = large(16, 25, 4000).save(Path(folder) / "crowd.html")
        print("400 nodes, 4000 edges", json.dumps(first_picture(browser, crowd, given.runs)), flush=True)
        for what, found in answers(browser, crowd, given.moves).items():
            print(f"pointing at a{'n' * (what == 'edge')} {what}", json.dumps(found), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
