"""The ledger as a table."""

from rich import box
from rich.table import Table
from rich.text import Text

from ierf.attribution import Entry, Ledger
from ierf.report.text import percent


def ledger_table(ledger: Ledger) -> Table:
    """One row per stretch of the network, from the start to the pixels: what arrived, went on, leaked, and where."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer", overflow="fold")
    for heading in ("relevance in", "out", "leaked", "of total"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("operation", overflow="fold")
    for entry in ledger.entries:
        share = entry.leaked / ledger.relevance_in if ledger.relevance_in else 0.0
        numbers = (f"{entry.relevance_in:.6g}", f"{entry.relevance_out:.6g}", f"{entry.leaked:.2g}", percent(share))
        table.add_row(Text(entry.layer), *numbers, Text(_largest_leak(entry, ledger.relevance_in)))
    return table


def _largest_leak(entry: Entry, total: float) -> str:
    """The operation that lost the most, where that is more than rounding."""
    if not entry.leaks or abs(entry.leaks[0].amount) <= 1e-6 * abs(total):
        return ""
    leak = entry.leaks[0]
    return f"{leak.operation} in {leak.module}" if leak.module else leak.operation
