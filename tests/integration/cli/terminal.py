"""Somebody who types commands."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from typer.testing import CliRunner, Result

from keeper.cli import app


@dataclass
class Terminal:
    """Somebody's shell with settings of its own."""

    environment: dict[str, str]
    _runner: CliRunner = field(default_factory=CliRunner)

    def run(self, *arguments: str, typed: str | None = None, **settings: str) -> Result:
        """What the command printed and ended with."""
        return self._runner.invoke(app, list(arguments), input=typed, env=self.environment | settings)

    def ask(self, *arguments: str, typed: str | None = None, **settings: str) -> Any:
        """The JSON of a command that must succeed."""
        result = self.run(*arguments, "--json", typed=typed, **settings)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return json.loads(result.stdout)

    @contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The command as a process, killed at the end if it still runs."""
        command = [sys.executable, "-m", "keeper", *arguments]
        with subprocess.Popen(
            command, env=os.environ | self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as started:
            try:
                yield started
            finally:
                started.kill()


def lines_of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
