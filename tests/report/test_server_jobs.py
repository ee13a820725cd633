"""The queue, the memory and the words of the server, without a network."""

from threading import Event
from time import monotonic, sleep

import pytest
import torch

from ierf.errors import IerfError

pytest.importorskip("fastapi")

from ierf.report.server.jobs import Cancelled, File, Interruptible, Job, JobProgress, Jobs, LRUCache, Result
from ierf.report.server.schemas import LONGEST, Limits, RefusedError, redacted

NOTHING = Result({}, {})


def until_finished(job: Job) -> Job:
    end = monotonic() + 20
    while job.state in ("queued", "running"):
        assert monotonic() < end
        sleep(0.005)
    return job


def test_a_memory_forgets_what_was_not_used_for_longest() -> None:
    memory: LRUCache[str] = LRUCache(10)
    memory.put("a", "A", 4)
    memory.put("b", "B", 4)
    assert memory.get("a") == "A"
    memory.put("c", "C", 4)
    assert [memory.get(name) for name in "abc"] == ["A", None, "C"]
    memory.put("a", "A2", 1)
    memory.put("d", "D", 5)
    assert [memory.get(name) for name in "acd"] == ["A2", "C", "D"]
    memory.put("e", "larger than all", 99)
    assert [memory.get(name) for name in "acde"] == [None, None, None, "larger than all"]


def test_jobs_come_one_after_the_other_and_too_many_are_refused() -> None:
    go, order = Event(), []

    def work(name: str) -> Job:
        def run(progress: JobProgress) -> Result:
            go.wait(10)
            order.append(name)
            return Result({"name": name}, {})

        return jobs.submit(name, run)

    jobs = Jobs(Limits(queue=2))
    first = work("first")
    while first.state == "queued":
        sleep(0.001)
    second, third = work("second"), work("third")
    assert [jobs.place(job) for job in (first, second, third)] == [0, 1, 2]
    assert work("second") is second
    with pytest.raises(RefusedError) as refused:
        work("fourth")
    assert refused.value.status == 503
    assert refused.value.retry_after
    assert jobs.cancel(second.id).state == "cancelled"
    fourth = work("fourth")
    go.set()
    for job in (first, third, fourth):
        assert until_finished(job).state == "done"
    assert order == ["first", "third", "fourth"]
    assert jobs.cancel(third.id).state == "done"
    assert work("third") is third
    again = work("second")
    assert again is not second
    assert until_finished(again).result is not None
    assert jobs.get(second.id) is again
    jobs.close()


def test_a_job_that_computes_is_stopped_between_operations() -> None:
    jobs, begun = Jobs(Limits()), Event()

    def endless(progress: JobProgress) -> Result:
        x = torch.zeros(3)
        while True:
            x = x + 1
            begun.set()

    job = jobs.submit("endless", endless)
    begun.wait(10)
    jobs.cancel(job.id)
    replaced = jobs.submit("endless", lambda progress: NOTHING)
    assert replaced is not job
    assert until_finished(job).state == "cancelled"
    assert job.progress.interruptible.operations > 0
    assert until_finished(replaced).state == "done"
    assert jobs.get(job.id) is replaced
    jobs.close()


def test_what_a_stopped_job_changed_is_put_back() -> None:
    """Contexts are left by operations too: those that put things back have to run, else later jobs suffer."""
    jobs, begun, put_back = Jobs(Limits()), Event(), []

    def endless(progress: JobProgress) -> Result:
        weight = torch.ones(3)
        try:
            with torch.no_grad():
                while True:
                    weight.mul_(1.0)
                    begun.set()
        finally:
            put_back.append(weight.mul_(2).sum().item())

    job = jobs.submit("endless", endless)
    begun.wait(10)
    jobs.cancel(job.id)
    assert until_finished(job).state == "cancelled"
    assert put_back == [6.0]
    after = until_finished(jobs.submit("after", lambda progress: Result({"grad": torch.is_grad_enabled()}, {})))
    assert after.result is not None
    assert after.result.content == {"grad": True}
    jobs.close()


def test_gradients_are_on_again_where_a_context_ends_right_after_the_stop() -> None:
    stop = Event()
    with Interruptible(stop):
        with torch.no_grad():
            stop.set()
        assert torch.is_grad_enabled()
        with pytest.raises(Cancelled):
            torch.ones(3)


def test_failures_are_told_without_paths_and_may_be_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Jobs(Limits())

    def mistaken(progress: JobProgress) -> Result:
        raise IerfError("there is no store at '/home/me/secret/store.zarr'; layer3.1/512 is fine")

    def broken(progress: JobProgress) -> Result:
        raise RuntimeError("/home/me/secret is broken")

    told = until_finished(jobs.submit("mistaken", mistaken))
    assert told.state == "failed"
    assert told.error == "there is no store at '…'; layer3.1/512 is fine"
    hidden = until_finished(jobs.submit("broken", broken))
    assert hidden.state == "failed"
    assert "secret" not in hidden.error
    assert "secret is broken" in caplog.text
    again = until_finished(jobs.submit("broken", lambda progress: NOTHING))
    assert again.state == "done"
    jobs.close()


def test_results_are_forgotten_when_newer_ones_need_the_room() -> None:
    jobs = Jobs(Limits(results=100_000))
    large = Result({}, {"file": File("text/plain", bytes(60_000))})
    first = until_finished(jobs.submit("first", lambda progress: large))
    assert jobs.get(first.id) is first
    until_finished(jobs.submit("second", lambda progress: large))
    with pytest.raises(RefusedError, match="forgotten") as refused:
        jobs.get(first.id)
    assert refused.value.status == 404
    jobs.close()


def test_closing_stops_what_runs_and_what_waits() -> None:
    jobs = Jobs(Limits())

    def endless(progress: JobProgress) -> Result:
        while True:
            progress.at("still at it")
            sleep(0.001)

    running = jobs.submit("a", endless)
    waiting = jobs.submit("b", endless)
    while running.state == "queued":
        sleep(0.001)
    jobs.close()
    assert running.state == "cancelled"
    assert waiting.result is None


def test_operations_are_counted_and_their_results_are_the_same() -> None:
    torch.manual_seed(0)
    x, stop = torch.randn(4, 3, requires_grad=True), Event()
    expected = torch.nn.functional.gelu(x @ x.T).sum()
    with Interruptible(stop) as watched:
        found = torch.nn.functional.gelu(x @ x.T).sum()
        assert watched.operations >= 3
        stop.set()
        with pytest.raises(Cancelled):
            torch.ones(2) + 1
    assert torch.equal(found, expected)
    assert float(torch.ones(2).sum()) == 2


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("cannot read '/tmp/a b/c.png': gone", "cannot read '… b/c.png': gone"),
        ("cannot read '/tmp/a/c.png': gone", "cannot read '…': gone"),
        (r"cannot read C:\Users\me\x.zarr, so", "cannot read …, so"),
        ("concept layer3.1/512 of 8 × 8, and/or none", "concept layer3.1/512 of 8 × 8, and/or none"),
        ("at /srv/x.\nIt is gone", "at …. It is gone"),
    ],
)
def test_no_absolute_path_leaves_the_machine(message: str, told: str) -> None:
    assert redacted(message) == told


def test_messages_are_not_endless() -> None:
    assert redacted("x" * 5000) == "x" * (LONGEST - 1) + "…"
