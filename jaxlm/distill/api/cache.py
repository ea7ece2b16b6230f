"""Answers that were paid for, and every request that was made for them, in one file of SQLite.

A request is written down before it is sent, with the most that it can cost; what comes of it is written when it is
known, in one transaction. Killed at any moment, the file holds all answers that arrived, and the requests in flight
count at their most. Replies that are no answers are kept as requests that failed, never among the answers.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure
from jaxlm.distill.request import Choice, Reply

VERSION = 1
TABLES = """
CREATE TABLE requests (
  id INTEGER PRIMARY KEY, keys TEXT NOT NULL, model TEXT NOT NULL, began REAL NOT NULL, ended REAL,
  state TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, dollars TEXT,
  problem TEXT, raw BLOB, origin TEXT
);
CREATE TABLE answers (
  key TEXT PRIMARY KEY, request INTEGER NOT NULL, choice INTEGER NOT NULL,
  text TEXT NOT NULL, finish_reason TEXT NOT NULL, logprobs TEXT, more TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX open_requests ON requests(state) WHERE state = 'open';
"""
RAW = 4000
"""Bytes that are kept of a reply that is no answer."""


class Cache:
    """One process at a time has it open; its threads share it. Raises Failure for what goes wrong with the file."""

    def __init__(self, path: str):
        self.path, self.lock = path, threading.Lock()
        if not Path(path).absolute().parent.is_dir():
            raise Failure(f"cannot write {path}: there is no directory {Path(path).absolute().parent}")
        try:
            self.file = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
            self.file.execute("PRAGMA locking_mode=EXCLUSIVE")
            self.file.execute("PRAGMA synchronous=FULL")
            self.file.execute("BEGIN EXCLUSIVE")
            version = self.file.execute("PRAGMA user_version").fetchone()[0]
            tables = self.file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                for one in TABLES.split(";"):
                    self.file.execute(one)
                self.file.execute(f"PRAGMA user_version={VERSION}")
            elif version != VERSION:
                raise Failure(f"{path} is no cache of this version: it has number {version}, not {VERSION}")
            ended = self.file.execute("UPDATE requests SET state = 'lost' WHERE state = 'open'")
            self.lost = ended.rowcount
            """Requests that were in flight when an earlier process died."""
            self.file.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise Failure(_said(path, error)) from None

    def close(self) -> None:
        """Leaves the file to others."""
        self.file.close()

    def known(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that have an answer."""
        with self.lock:
            found = self._all("SELECT key FROM answers")
        return {key for (key,) in found} & set(keys)

    def spent(self) -> list[tuple[Decimal | None, int, int]]:
        """(Dollars, prompt tokens, completion tokens) of every request that cost something, or may have; dollars
        are None where no price was known.
        """
        with self.lock:
            names = "dollars, prompt_tokens, completion_tokens"
            found = self._all(f"SELECT {names} FROM requests WHERE state NOT IN ('refused', 'open')")
        return [(None if dollars is None else Decimal(dollars), *tokens) for dollars, *tokens in found]

    def begin(
        self, keys: Sequence[str], model: str, now: float, most: tuple[int, int], dollars: Decimal | None
    ) -> int:
        """Writes a request down before it is sent, and what it can cost at most. Returns its number."""
        row = (json.dumps(list(keys)), model, now, "open", *most, _text(dollars))
        names = "keys, model, began, state, prompt_tokens, completion_tokens, dollars"
        with self.lock:
            return self._do(f"INSERT INTO requests ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", row).lastrowid

    def answered(
        self, number: int, now: float, reply: Reply, usage: tuple[int, int], dollars: Decimal | None, origin: Any
    ) -> None:
        """Keeps the answers of a request, all or none."""
        with self.lock:
            self._do("BEGIN IMMEDIATE")
            keys = json.loads(self._all("SELECT keys FROM requests WHERE id = ?", (number,))[0][0])
            for place, (key, choice) in enumerate(zip(keys, reply.choices, strict=True)):
                told = None if choice.logprobs is None else json.dumps(choice.logprobs)
                more = json.dumps(choice.more)
                row = (key, number, place, choice.text, choice.finish_reason, told, more)
                self._do("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            row = (now, *usage, _text(dollars), json.dumps(origin), number)
            self._do(
                "UPDATE requests SET state = 'answered', ended = ?, prompt_tokens = ?, completion_tokens = ?, "
                "dollars = ?, origin = ? WHERE id = ?",
                row,
            )
            self._do("COMMIT")

    def failed(
        self,
        number: int,
        now: float,
        state: str,
        problem: str,
        usage: tuple[int, int],
        dollars: Decimal | None,
        raw: bytes = b"",
    ) -> None:
        """Writes down what became of a request without an answer: 'refused' cost nothing, 'lost' may have cost its
        most, 'rubbish' cost what it says.
        """
        row = (state, now, problem, *usage, _text(dollars), raw[:RAW], number)
        with self.lock:
            self._do(
                "UPDATE requests SET state = ?, ended = ?, problem = ?, prompt_tokens = ?, completion_tokens = ?, "
                "dollars = ?, raw = ? WHERE id = ?",
                row,
            )

    def answer(self, key: str) -> tuple[Choice, dict[str, Any]] | None:
        """An answer and where it comes from, which of its request's it is included, if it is here."""
        with self.lock:
            found = self._all(
                "SELECT text, finish_reason, logprobs, more, choice, origin FROM answers "
                "JOIN requests ON id = request WHERE key = ?",
                (key,),
            )
        if not found:
            return None
        text, reason, logprobs, more, choice, origin = found[0]
        told = None if logprobs is None else json.loads(logprobs)
        return Choice(text, reason, told, json.loads(more)), json.loads(origin) | {"choice": choice}

    def _do(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self.file.execute(statement, values)
        except sqlite3.Error as error:
            raise Failure(_said(self.path, error)) from None

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self.file.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise Failure(_said(self.path, error)) from None


def _text(dollars: Decimal | None) -> str | None:
    return None if dollars is None else str(dollars)


def _said(path: str, error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return f"{path} is in use: another process asks the teacher with this cache"
    return f"cannot use {path} as a cache of answers: {error}"
