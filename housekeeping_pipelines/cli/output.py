"""What the command prints: reports for people on standard output, or one JSON document."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import markup
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from housekeeping_pipelines import logs
from housekeeping_pipelines.execution.progress import LogObserver
from housekeeping_pipelines.execution.wording import counted
from housekeeping_pipelines.foreign_text import in_json, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from housekeeping_pipelines.execution.report import Line, Mark, Report

_MARK: dict[Mark, str] = {
    "done": "[green]✓[/]",
    "note": "[dim]·[/]",
    "notice": "[yellow]·[/]",
    "failure": "[red]✗[/]",
    "warning": "[yellow]![/]",
}
_STATUS_MARK = {"succeeded": _MARK["done"], "skipped": _MARK["notice"]}
_DIFF_STYLE = {"+": "green", "-": "red"}
# What fits a terminal beside the report; the whole is in the UI.
DIFFS, DIFF_LINES = 3, 8
_STYLE = {"succeeded": "green", "skipped": "yellow", "partial": "red", "refused": "red", "failed": "red"}


def escape(text: str) -> str:
    """Text from outside for a line of ours: neither markup nor anything that a terminal obeys."""
    return markup.escape(shown(text))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        stop_writing()


def console() -> Console:
    return _Console(highlight=False)


def stop_writing() -> None:
    """Go on although no one reads any more, like `head` after its lines: the exit code is that of what was done."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command() -> str:
    """How to call this command from here."""
    called = Path(sys.argv[0])
    by_its_path = called.name == "housekeeping" and "/" in sys.argv[0]
    # What a shell found on the PATH is called by its absolute path.
    if not by_its_path or (called.is_absolute() and shutil.which("housekeeping")):
        return "housekeeping"
    near = called.is_absolute() and called.is_relative_to(Path.cwd())
    return shlex.quote(str(called.relative_to(Path.cwd()) if near else called))


def echo(text: str = "") -> None:
    """One line for people, on standard output."""
    console().print(shown(text, lines=True, limit=None), soft_wrap=True)


def as_json(document: Any) -> None:
    """The one document of `--json`."""
    _print_json(document)


def _print_json(document: Any) -> None:
    # JSON has a form for what the output's encoding has not.
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    try:
        sys.stdout.write(in_json(json.dumps(document, indent=2, default=str, ensure_ascii=not is_unicode)) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        stop_writing()


def error(kind: str, message: str, hint: str | None, *, as_json: bool) -> None:
    """An error: a line on standard error and one with what to do, or the JSON document."""
    if as_json:
        document = {"error": {"type": kind, "message": message, "hint": hint}}
        _print_json(document)
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


def report(report: Report) -> None:
    """One task's report."""
    out = console()
    out.print(
        f"[bold]{report.task}[/]  [{_STYLE[report.status]}]{report.status}[/]"
        f"[dim]{' (dry run)' if report.dry_run else ''}  {report.duration_seconds:.1f} s[/]"
    )
    if report.message:
        out.print(f"  {_STATUS_MARK.get(report.status, _MARK['failure'])} {escape(report.message)}", soft_wrap=True)
    lines = list(report.lines())
    width = max((len(line.text) for line in lines if line.count is not None), default=0)
    for line in lines:
        if line.mark == "diff":
            continue
        count = "" if line.count is None else f" {line.count:>9,}  {line.of}".rstrip()
        text = line.text if line.count is None else f"{line.text:<{width}}"
        out.print(f"  {_MARK[line.mark]} {escape(text + count)}", soft_wrap=True)
    for line in [line for line in lines if line.mark == "diff"][:DIFFS]:
        _print_diff(out, line)


def _print_diff(out: Console, line: Line) -> None:
    out.print(f"\n    [bold]{escape(line.text)}[/]", soft_wrap=True)
    shown = line.block.splitlines()
    for each in shown[:DIFF_LINES]:
        out.print(f"    [{_DIFF_STYLE.get(each[:1], 'dim')}]{escape(each)}[/]", soft_wrap=True)
    if len(shown) > DIFF_LINES:
        out.print(f"    [dim]… {counted(len(shown) - DIFF_LINES, 'more line')}[/]")


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

    def on_start(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
        super().on_start(task, what, candidates, dry_run=dry_run)
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        self._dry_run = dry_run
        self._bar = self._progress.add_task(task, total=candidates)

    def on_progress(self, task: str, done: int, candidates: int, rows: int) -> None:
        super().on_progress(task, done, candidates, rows)
        if self._bar is not None:
            self._progress.update(self._bar, completed=done)

    def on_item(self, item: str) -> None:
        if self._dry_run and self._names:
            try:
                self._names.write(f"would delete {shown(item)}\n")
            except BrokenPipeError:
                # `| head` has read enough, which must not fail the run.
                self._names = None
