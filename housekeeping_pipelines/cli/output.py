"""What the command prints: reports for people on standard output, or one JSON document."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape as escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from housekeeping_pipelines import logs
from housekeeping_pipelines.execution.progress import LogObserver
from housekeeping_pipelines.execution.report import SKIP_REASONS
from housekeeping_pipelines.execution.wording import SYNC_COUNTS, counted, in_units, missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

# Entries of a report's counts that are files of a store; the others are rows of a table.
STORES = ("uploads", "media", "bucket")

_MARK = {"succeeded": "[green]✓[/]", "skipped": "[yellow]·[/]"}
_DIFF_STYLE = {"+": "green", "-": "red"}
# What fits a terminal beside the report; the whole is in the UI.
DIFFS, DIFF_LINES = 3, 8
_STYLE = {"succeeded": "green", "skipped": "yellow", "partial": "red", "refused": "red", "failed": "red"}


def console() -> Console:
    return Console(highlight=False)


def command() -> str:
    """How to call this command from here."""
    called = Path(sys.argv[0])
    by_its_path = called.name == "housekeeping" and "/" in sys.argv[0]
    # What a shell found on the PATH is called by its absolute path.
    if not by_its_path or (called.is_absolute() and shutil.which("housekeeping")):
        return "housekeeping"
    near = called.is_absolute() and called.is_relative_to(Path.cwd())
    return shlex.quote(str(called.relative_to(Path.cwd()) if near else called))


def say(text: str = "") -> None:
    """One line for people, on standard output."""
    console().print(text, soft_wrap=True)


def as_json(document: Any) -> None:
    """The one document of `--json`."""
    sys.stdout.write(json.dumps(document, indent=2, default=str, ensure_ascii=False) + "\n")


def error(kind: str, message: str, hint: str | None, *, as_json: bool) -> None:
    """An error: a line on standard error and one with what to do, or the JSON document."""
    if as_json:
        document = {"error": {"type": kind, "message": message, "hint": hint}}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    err = Console(stderr=True, highlight=False)
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        err.print(f"[dim] hint:[/] {escape(hint)}", soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """A table that fits the terminal's width."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold dim")
    for name in columns:
        number = all(row[len(grid.columns)].replace(",", "").isdigit() for row in rows)
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    console().print(grid)


def report(document: Mapping[str, Any]) -> None:
    """One task's report."""
    status = document["status"]
    out = console()
    out.print(
        f"[bold]{document['task']}[/]  [{_STYLE[status]}]{status}[/]"
        f"[dim]{' (dry run)' if document['dry_run'] else ''}  {document['duration_seconds']:.1f} s[/]"
    )
    for mark, text in _lines(document):
        out.print(f"  {mark} {escape(text)}", soft_wrap=True)
    for each in document.get("diffs", [])[:DIFFS]:
        out.print(f"\n    [bold]{escape(each['document'])}[/]", soft_wrap=True)
        lines = each["diff"].splitlines()
        for line in lines[:DIFF_LINES]:
            out.print(f"    [{_DIFF_STYLE.get(line[:1], 'dim')}]{escape(line)}[/]", soft_wrap=True)
        if len(lines) > DIFF_LINES:
            out.print(f"    [dim]… {counted(len(lines) - DIFF_LINES, 'more line')}[/]")


def _lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    if document["message"]:
        lines.append((_MARK.get(document["status"], "[red]✗[/]"), document["message"]))
    verb, counts = (
        ("would delete", document["would_delete"]) if document["dry_run"] else ("deleted", document["deleted"])
    )
    first = document["table"]
    ordered = sorted(counts.items(), key=lambda entry: (entry[0] in STORES, entry[0] != first))
    lines += [("[green]✓[/]", f"{verb} {count:>9,}  {_what(name, count)}") for name, count in ordered]
    if size := document["deleted_bytes"] or document.get("would_delete_bytes"):
        lines.append(("[dim]·[/]", f"{'would free' if document['dry_run'] else 'freed'} {in_units(size)}"))
    lines += [
        ("[green]✓[/]", f"restored {count:>9,}  {_what(name, count)}")
        for name, count in sorted(document.get("restored", {}).items(), key=lambda entry: entry[0] in STORES)
    ]
    stats = document.get("stats") or {}
    totals_first = sorted(stats.items(), key=lambda entry: entry[0].startswith("recent"))
    lines += [("[dim]·[/]", f"{name.replace('_', ' '):<26} {count:>9,}") for name, count in totals_first]
    kept = [f"{count:,} {SKIP_REASONS[reason]}" for reason, count in document["skipped"].items() if count]
    if kept:
        lines.append(("[dim]·[/]", "kept " + ", ".join(kept)))
    if document["dry_run"]:
        large = [each for each in document.get("largest", []) if each["bytes"]][:3]
        lines += [("[dim]·[/]", f"largest {in_units(each['bytes']):>10}  {each['item']}") for each in large]
    if said := missing(document):
        lines.append(("[dim]·[/]", said))
    if document["stopped_reason"]:
        lines.append(("[yellow]·[/]", f"stopped by {document['stopped_reason']}; the next run goes on"))
    synced = _synced(document)
    lines += synced
    if not (counts or stats or synced or document["message"] or document.get("restored") or document["failed_count"]):
        lines.append(("[dim]·[/]", "nothing to do"))
    lines += [("[red]✗[/]", f"{item['item']}: {item['reason']}") for item in document["failed"][:10]]
    if document["failed_count"] > 10:
        lines.append(("[red]✗[/]", f"and {document['failed_count'] - 10:,} more"))
    lines += [("[yellow]![/]", warning) for warning in document["warnings"]]
    return lines


def _what(name: str, count: int) -> str:
    if name == "vectors":
        return "documents' vectors"
    return f"{'file' if count == 1 else 'files'} of {name}" if name in STORES else name


def _synced(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a sync of watched documents did; empty for any other task."""
    if "updated" not in document:
        return []
    verb = "would_update" if document["dry_run"] else "updated"
    done = [verb, "unchanged", "gone", "held_for_review"]
    lines = [
        (
            "[green]✓[/]" if name == verb else "[dim]·[/]",
            f"{SYNC_COUNTS[name]:<15} {document[name]:>9,}  {'document' if document[name] == 1 else 'documents'}",
        )
        for name in done
        if document[name]
    ]
    chunks = [f"{counted(document[f'chunks_{what}'], 'chunk')} {what}" for what in ("embedded", "reused")]
    if document["updated"]:
        lines.append(("[dim]·[/]", ", ".join(chunks)))
    if document["fetched_bytes"]:
        lines.append(("[dim]·[/]", f"fetched {in_units(document['fetched_bytes'])}"))
    return lines


class ProgressBar(LogObserver):
    """Logs as any observer does, draws a bar where standard error is a terminal, and names what a dry run takes."""

    def __init__(self, *, names: bool) -> None:
        super().__init__()
        self._names = logs.unredirected(sys.stdout) if names else None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=logs.unredirected(sys.stderr)),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._bar: TaskID | None = None
        self._dry_run = False

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def planned(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
        super().planned(task, what, candidates, dry_run=dry_run)
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        self._dry_run = dry_run
        self._bar = self._progress.add_task(task, total=candidates)

    def advanced(self, task: str, done: int, candidates: int, rows: int) -> None:
        super().advanced(task, done, candidates, rows)
        if self._bar is not None:
            self._progress.update(self._bar, completed=done)

    def took(self, item: str) -> None:
        if self._dry_run and self._names:
            try:
                self._names.write(f"would delete {item}\n")
            except BrokenPipeError:
                # `| head` has read enough; that is no reason to fail the run.
                self._names = None
