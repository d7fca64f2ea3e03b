"""The fault kit: a table of situations, each with a command, its exit code and what it must say.

A new situation is a line in a table below. Whatever happens, nothing private shows, no traceback and no "unexpected"
(see `check`), and no half of a run stays behind. Words that stand for many: RUN starts a run in the folder "new" and
ON resumes it, GO resumes the one in "half", which was interrupted after a text, and PAY the one in "paid", which
"ledger.json" has paid for. "done" is a finished run. Streams of `test_terminal`, models of `test_broken_models` and
fields of `test_bad_input` are not said again here.
"""

import errno
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from doubles.faults import (
    HERE,
    Fault,
    Place,
    busy,
    copied,
    cut,
    database,
    does,
    fifo,
    folder,
    full,
    gone,
    hard_link,
    held,
    interrupted,
    largest_file,
    link,
    locks,
    overwritten,
    put,
    refuse,
    replaced,
    table,
    umask,
    unreadable,
)  # fmt: skip
from doubles.quick import make_quick
from doubles.tables import MARKER, OPTIONS, rows, write

from plainchant.cli.main import main
from plainchant.run.store import RunDirectory

CASES = Path(__file__).parents[3] / "shared" / "cases"
LEAST = 120
DONE, FAILED, USAGE, PRIVACY, INTERRUPTED = 0, 1, 2, 3, 130

_SMALL = [*OPTIONS, "--texts", "3", "--epsilon", "40", "--rows", "64", "--threads", "1", "--model", "tiny"]
WORDS = {
    "RUN": ["run", *_SMALL, "--data", "private.jsonl", "--out", "new"],
    "CHAT": ["run", "chat.toml", *_SMALL, "--data", "private.jsonl", "--out", "new"],
    "ON": ["run", "--resume", "--data", "private.jsonl", "--out", "new", "--rows", "64"],
    "GO": ["run", "--resume", "--data", "private.jsonl", "--out", "half", "--rows", "64"],
    "PAY": ["run", "--resume", "--data", "private.jsonl", "--out", "paid", "--rows", "64", "--ledger", "ledger.json"],
    "CENTRES": ["--clusters", "public-centres", "--public-corpus", "public.jsonl", "--centres", "2"],
    "BOOK": ["account", "--ledger", "ledger.json"],
}
GO, PAY = "GO", "PAY"


@dataclass(frozen=True)
class S:
    """A situation.

    Attributes:
        name: what is wrong.
        command: the words after "plainchant".
        code: its exit code.
        shows: what its output has, line breaks and spaces aside.
        faults: what is done before.
        then: a command that must work once the faults are gone; it shows that nothing was lost.
        env: environment variables.
        leaves: what must hold of the folder afterwards.
    """

    name: str
    command: str
    code: int
    shows: str = ""
    faults: tuple[Fault, ...] = ()
    then: str = ""
    env: dict[str, str] = field(default_factory=dict)
    leaves: Callable[[Path], object] = lambda _: True

    def __str__(self) -> str:
        return self.name


def words(command: str) -> list[str]:
    return [word for part in shlex.split(command) for word in WORDS.get(part, [part])]


# What a system call is refused with, and what the message says.
SPACE, RIGHTS, READ_ONLY, BROKEN = errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO
ALL = "*"
PARQUET = b"PAR1" + bytes(40) + b"PAR1"
LEDGER = '{"epsilon": 100.0, "delta": 0.001, "runs": []}'


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _own(*names: str) -> Callable[[Path], object]:
    """Nobody but the owner may write there."""
    return lambda where: all(not _mode(where / name) & 0o022 for name in names)


def _shut(*names: str) -> Callable[[Path], object]:
    """Nobody but the owner may look there."""
    return lambda where: all(not _mode(where / name) & 0o077 for name in names)


def _no_new(where: Path) -> bool:
    return not (where / "new").exists()


# fmt: off
FILES = (
    S("data is not there", "RUN --data none.jsonl", USAGE, "none.jsonl"),
    S("data is a folder", "RUN --data box", USAGE, "is a directory", (folder("box"),)),
    S("data is a pipe", "RUN --data pipe.jsonl", USAGE, "pipe.jsonl", (fifo("pipe.jsonl"),)),
    S("data is empty", "RUN --data a.jsonl", USAGE, "has no rows", (put("a.jsonl", ""),)),
    S("data is blank lines", "RUN --data a.jsonl", USAGE, "a.jsonl", (put("a.jsonl", "\n\n\n"),)),
    S("data is an empty CSV", "RUN --data a.csv", USAGE, "has no rows", (put("a.csv", ""),)),
    S("data is a header alone", "RUN --data a.csv", USAGE, "a.csv", (put("a.csv", "text,label\n"),)),
    S("data is an empty Parquet", "RUN --data a.parquet", USAGE, "Parquet", (put("a.parquet", b""),)),
    S("data is a broken Parquet", "RUN --data a.parquet", USAGE, "Parquet", (put("a.parquet", PARQUET),)),
    S("data is a broken Arrow", "RUN --data a.arrow", USAGE, "Arrow", (put("a.arrow", b"ARROW1" + bytes(20)),)),
    S("data is a broken gzip", "RUN --data a.jsonl.gz", USAGE, "decompress", (put("a.jsonl.gz", b"\x1f\x8bno"),)),
    S("data is no gzip", "RUN --data a.jsonl.gz", USAGE, "decompress", (copied("private.jsonl", "a.jsonl.gz"),)),
    S("data is a broken zstd", "RUN --data a.csv.zst", USAGE, "decompress", (put("a.csv.zst", b"nothing"),)),
    S("data is a link to nothing", "RUN --data a.jsonl", USAGE, "a.jsonl", (link("a.jsonl", "none"),)),
    S("data is a link to itself", "RUN --data a.jsonl", USAGE, "a.jsonl", (link("a.jsonl", "a.jsonl"),)),
    S("data is of no kind", "RUN --data a.docx", USAGE, ".jsonl", (copied("private.jsonl", "a.docx"),)),
    S("data is nothing but zero bytes", "RUN --data a.jsonl", USAGE, "a.jsonl", (put("a.jsonl", bytes(4000)),)),
    S("data is a picture", "RUN --data a.csv", USAGE, "a.csv", (put("a.csv", b"\x89PNG\r\n\x1a\n\xff\xfe\xff" * 90),)),
    S("data has another encoding", "RUN --data a.csv", USAGE, "--encoding",
      (table("a.csv", "Straße {marker} {n},{label}", head="text,label\n", encoding="cp1252"),)),
    S("data named with its encoding", "RUN --data a.csv --encoding cp1252", DONE, "",
      (table("a.csv", "Straße {marker} {n},{label}", head="text,label\n", encoding="cp1252"),)),
    S("an unknown encoding", "RUN --encoding klingon", USAGE, "encoding = 'klingon'"),
    S("UTF-16 with semicolons", "RUN --data a.csv", DONE, "separator ';'",
      (table("a.csv", "{marker} {n};{label}", head="text;label\n", encoding="utf-16"),)),
    S("old Macintosh line ends", "RUN --data a.csv", USAGE, "header row",
      (table("a.csv", "{marker} {n},{label}", head="text,label\r", end="\r"),)),
    S("data with another label column", "RUN --label-column kind", USAGE, "label_column"),
    S("data with another text column", "RUN --text-column words", USAGE, "text_column"),
    S("data with another unit column", "RUN --unit-column customer", USAGE, "unit_column"),
    S("labels that nobody has", "RUN --labels up,down", USAGE, "labels = up, down"),
    S("labels with escapes", "RUN --labels 'red,\x1b[31mblue\x07'", DONE, "", then="status new"),
    S("no labels but commas", "RUN --labels ' , '", USAGE, "labels"),
    S("data refused by the system", "RUN", USAGE, "Permission denied", (unreadable("private.jsonl"),)),
    S("data and configuration swapped", "plan private.jsonl", USAGE, "not valid TOML"),
    S("centres that are not there", "RUN CENTRES --centres none.npz", USAGE, "no such file"),
    S("centres that are none", "RUN CENTRES --centres a.npz", USAGE, "not a file of centres", (put("a.npz", "no"),)),
    S("centres that are a folder", "RUN CENTRES --centres a.npz", USAGE, "not a file of centres", (folder("a.npz"),)),
    S("more centres than public texts", "RUN CENTRES --centres 500", DONE),
    S("a public corpus that is not there", "RUN CENTRES --public-corpus none.jsonl", USAGE, "none.jsonl"),
    S("a public corpus that is empty", "RUN CENTRES --public-corpus a.txt", USAGE, "no text", (put("a.txt", ""),)),
    S("the private table as public corpus", "RUN CENTRES --public-corpus private.jsonl", PRIVACY, "public_corpus"),
    S("a private table by another name", "RUN CENTRES --public-corpus a.jsonl", PRIVACY, "public_corpus",
      (copied("private.jsonl", "a.jsonl"),)),
    S("a private table by a link", "RUN CENTRES --public-corpus a.jsonl", PRIVACY, "public_corpus",
      (link("a.jsonl", "private.jsonl"),)),
)

COMMANDS = (
    S("an unknown command", "sing", USAGE, "No such command"),
    S("an unknown option", "RUN --epsilom 3", USAGE, "--epsilom"),
    S("an option that was renamed", "RUN --public public.jsonl", USAGE, "--public"),
    S("an option without its value", "run --out", USAGE, "--out"),
    S("a command without its option", "run --data private.jsonl", USAGE, "--out"),
    S("an argument too many", "status done done", USAGE, "unexpected extra argument"),
    S("no argument", "status", USAGE, "DIR"),
    S("no data", "run --model tiny --out new", USAGE, "--data"),
    S("nothing to compare", "compare --real private.jsonl", USAGE, "DIR"),
    S("a configuration that is not there", "run none.toml --data private.jsonl --out new", USAGE, "plainchant init"),
    S("a configuration that is a folder", "plan box", USAGE, "box", (folder("box"),)),
    S("a configuration that is no text", "plan a.toml", USAGE, "not UTF-8", (put("a.toml", b"\xff\xfe\x00"),)),
    S("a configuration that is empty", "plan a.toml", DONE, "ε = 8", (put("a.toml", ""),)),
    S("a configuration with a mark", "plan a.toml", DONE, "ε = 4", (put("a.toml", b"\xef\xbb\xbfepsilon = 4.0\n"),)),
    S("a configuration nested without end", "plan a.toml", USAGE, "TOML", (put("a.toml", "x = " + "[" * 9000),)),
    S("an unknown field", "plan a.toml", USAGE, "did you mean epsilon", (put("a.toml", "epsilom = 3"),)),
    S("epsilon in the environment is a word", "plan", USAGE, "--epsilon", env={"PLAINCHANT_EPSILON": "many"}),
    S("epsilon in the environment is negative", "plan", USAGE, "epsilon = -1", env={"PLAINCHANT_EPSILON": "-1"}),
    S("a method in the environment that is none", "plan", USAGE, "--method", env={"PLAINCHANT_METHOD": "chant"}),
    S("texts in the environment are half", "plan", USAGE, "--texts", env={"PLAINCHANT_TEXTS": "1.5"}),
    S("a device in the environment that is none", "RUN", USAGE, "device", env={"PLAINCHANT_DEVICE": "abacus"}),
    S("memory in the environment is negative", "RUN", USAGE, "--memory", env={"PLAINCHANT_MEMORY": "-2"}),
    S("a switch in the environment is a word", "plan", USAGE, "malformed", env={"PLAINCHANT_ALLOW_MALFORMED": "hm"}),
    S("the environment is replaced", "plan --epsilon 4", DONE, "ε = 4", env={"PLAINCHANT_EPSILON": "6"}),
    S("too little memory for a batch", "RUN --memory 1e-9", USAGE, "memory = 1e-09"),
    S("a graphics card that is not there", "RUN --device cuda:7", USAGE, "device"),
    S("a HOME that is not there", "RUN", DONE, "", env={"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}),
    S("no HOME", "plan", DONE, "", env={"HOME": ""}),
    S("no such model", "RUN --model nobody/nothing", FAILED, "model = "),
    S("a model that is a pipe", "RUN --model pipe", FAILED, "model = ", (fifo("pipe"),)),
    S("a model that is a table", "RUN --model private.jsonl", FAILED, "is a file"),
    S("a model of no name", "RUN --model ''", FAILED, "model = "),
    S("an embedder that is not there", "RUN CENTRES --embedder nobody/nothing", FAILED, "embedder = "),
    S("a file stands where init writes", "init private.jsonl", USAGE, "exists already"),
    S("init in a folder that is not there", "init none/a.toml", USAGE, "cannot be written"),
    S("init on a full disk", "init a.toml", USAGE, "No space left", (full("*a.toml*"),)),
    S("init where nobody may write", "init a.toml", USAGE, "Permission denied", (refuse("open", "*a.toml*", RIGHTS),)),
)

OUT = (
    S("out is a file", "RUN --out a", USAGE, "out = a: a is a file", (put("a", "x"),)),
    S("out is under a file", "RUN --out a/new", USAGE, "is a file", (put("a", "x"),)),
    S("out is a link to nothing", "RUN --out a", USAGE, "leads nowhere", (link("a", "none"),)),
    S("out is a pipe", "RUN --out a", USAGE, "out = a", (fifo("a"),)),
    S("out holds something", "RUN --out a", USAGE, "is not empty", (put("a/b", "x"),)),
    S("out holds a run", "RUN --out done", USAGE, "holds a run"),
    S("out has too long a name", f"RUN --out {'n' * 300}", USAGE, "cannot be made"),
    S("out is empty", "RUN --out ''", USAGE, "out"),
    S("out is below many folders", "RUN --out a/b/c/new", DONE),
    S("out on a read-only disk", "RUN", USAGE, "Read-only", (refuse("mkdir", "*new*", READ_ONLY),), leaves=_no_new),
    S("out where nobody may write", "RUN", USAGE, "Permission", (refuse("mkdir", "*new*", RIGHTS),), leaves=_no_new),
    S("no room for the folder", "RUN", USAGE, "No space", (refuse("mkdir", "*new*", SPACE),), "RUN", leaves=_no_new),
    S("no room for config.toml", "RUN", USAGE, "No space", (full("*config.toml*"),), "RUN", leaves=_no_new),
    S("no room for plan.json", "RUN", USAGE, "No space", (full("*plan.json*"),), leaves=_no_new),
    S("config.toml is not flushed", "RUN", USAGE, "cannot be made", (refuse("fsync", "*config.toml*", BROKEN),)),
    S("plan.json is not renamed", "RUN", USAGE, "cannot be made", (refuse("replace", "*plan.json*", SPACE),)),
    S("the folder is not renamed", "RUN", USAGE, "cannot be made",
      (refuse("rename", "*new*", BROKEN),), leaves=_no_new),
    S("no room for the database", "RUN", FAILED, "new/private/run.sqlite: the run's database cannot be written, since "
      "the disk is full", (database("BEGIN", "full"),), "RUN", leaves=_no_new),
    S("no room for begun-in.json", "RUN", USAGE, "No space", (full("*begun-in*"),), "RUN", leaves=_no_new),
    S("no locks for a new run", "RUN", FAILED, "new: cannot be locked", (locks(errno.ENOLCK),), leaves=_no_new),
    S("locks are not supported", "RUN", FAILED, "new: cannot be locked", (locks(errno.ENOSYS),), leaves=_no_new),
    S("old filelock without locks", "RUN", FAILED, "new: cannot be locked", (locks(None),), leaves=_no_new),
    S("umask of nobody's care", "RUN", DONE, "", (umask(0),), leaves=_own(
      "new", "new/config.toml", "new/plan.json", "new/private", "new/release", "new/release/synthetic.jsonl")),
    S("umask 000 keeps what is private", "RUN", DONE, "", (umask(0),), leaves=_shut(
      "new/private", "new/private/run.sqlite", "new/private/costs.json")),
    S("umask of a careful one", "RUN", DONE, "", (umask(0o077),), "report new", leaves=_shut("new/private")),
    S("umask 777", "RUN", DONE, "", (umask(0o777),), "status new"),
)

RESUMED = (
    S("nothing to resume", "run --resume --data private.jsonl --out none", USAGE, "is not a run directory"),
    S("a file to resume", "run --resume --data private.jsonl --out private.jsonl", USAGE, "is not a run directory"),
    S("no data to resume with", "run --resume --out half", USAGE, "--data"),
    S("other data", "GO --data public.jsonl", USAGE, "label_column"),
    S("another field", "GO --max-tokens 9", USAGE, "max_tokens differ"),
    S("data that lost a row", "GO --data a.jsonl", USAGE, "not the data",
      (does(lambda where: write(where / "a.jsonl", rows(79))),)),
    S("no config.toml", GO, USAGE, "config.toml", (gone("half/config.toml"),)),
    S("config.toml is broken", GO, USAGE, "TOML", (put("half/config.toml", "epsilon = = 1"),)),
    S("config.toml is no text", GO, USAGE, "UTF-8", (put("half/config.toml", b"\xff\xff"),)),
    S("config.toml is a folder", GO, USAGE, "config.toml", (folder("half/config.toml"),)),
    S("config.toml was changed", GO, FAILED, "another plan", (replaced("half/config.toml", "texts = 3", "texts = 4"),)),
    S("no plan.json", GO, FAILED, "plan.json", (gone("half/plan.json"),)),
    S("plan.json is broken", GO, FAILED, "plan.json", (put("half/plan.json", "{"),)),
    S("plan.json is empty", GO, FAILED, "plan.json", (put("half/plan.json", ""),)),
    S("plan.json is a list", GO, FAILED, "plan.json", (put("half/plan.json", "[]"),)),
    S("plan.json lacks its guarantee", GO, FAILED, "plan.json", (put("half/plan.json", "{}"),)),
    S("plan.json was changed", GO, FAILED, "another plan",
      (replaced("half/plan.json", '"rho_batch": [^,]*', '"rho_batch": 9'),)),
    S("plan.json of another version", GO, FAILED, "use that version",
      (replaced("half/plan.json", '"version": "[^"]*"', '"version": "0.0.1"'),)),
    S("no database", GO, USAGE, "is not a run directory", (gone("half/private/run.sqlite"),)),
    S("no private folder", GO, USAGE, "is not a run directory", (gone("half/private"),)),
    S("the database is empty", GO, FAILED, "run.sqlite", (put("half/private/run.sqlite", b""),)),
    S("the database is another file", GO, FAILED, "is damaged", (put("half/private/run.sqlite", b"nothing" * 999),)),
    S("the database is cut", GO, FAILED, "is damaged", (cut("half/private/run.sqlite", 9000),)),
    S("a page of the database is spoilt", GO, FAILED, "is damaged",
      (overwritten("half/private/run.sqlite", 4096, b"\xff" * 40000),)),
    S("the database is a folder", GO, FAILED, "cannot be opened", (folder("half/private/run.sqlite"),)),
    S("the database is held", GO, FAILED, "locked by another program", (held("half/private/run.sqlite"),), GO),
    S("no room for a text", GO, FAILED, "disk is full", (database("INSERT INTO texts", "full"),), GO),
    S("no room for the journal", GO, FAILED, "input/output error", (largest_file(600),), GO),
    S("the database is read-only", GO, FAILED, "may not be written", (database("INSERT INTO texts", "read-only"),), GO),
    S("no room for batches", "RUN", FAILED, "disk is full", (database("INSERT INTO members", "full"),),
      "ON"),
    S("begun-in.json is broken", GO, FAILED, "begun-in.json", (put("half/private/begun-in.json", "{"),)),
    S("begun-in.json is a list", GO, FAILED, "begun-in.json", (put("half/private/begun-in.json", "[]"),)),
    S("another process works there", GO, FAILED, "another process", (busy("half"),), GO),
    S("no locks any more", GO, FAILED, "half: cannot be locked", (locks(errno.ENOLCK),), GO),
    S("locks that fail", GO, FAILED, "half: cannot be locked", (locks(BROKEN),), GO),
    S("the lock may not be opened", GO, FAILED, "half: cannot be locked", (refuse("open", "*/lock", READ_ONLY),), GO),
    S("release is a link", GO, USAGE, "is a link", (link("half/release", ".."),)),
    S("release is a file", GO, FAILED, "File exists", (put("half/release", "x"),)),
    S("a file of the release is a link", GO, USAGE, "is a link",
      (folder("half/release"), link("half/release/README.md", "/etc/hosts"))),
    S("a file of the release is a folder", GO, FAILED, "guarantee.json", (folder("half/release/guarantee.json"),)),
    S("no room for costs", GO, FAILED, "costs.json: No space", (full("*costs.json*"),), GO),
    S("no room for the lines", GO, FAILED, "synthetic.jsonl: No space", (full("*synthetic.jsonl*"),), GO),
    S("no room for the table", GO, FAILED, "synthetic.parquet: No space", (full("*synthetic.parquet*"),), GO),
    S("no room for the promise", GO, FAILED, "guarantee.json: No space", (full("*guarantee.json*"),), GO),
    S("no room for the card", GO, FAILED, "README.md: No space", (full("*README.md*"),), GO),
    S("the release is not flushed", GO, FAILED, "synthetic.jsonl: Input/output",
      (refuse("fsync", "*synthetic.jsonl*", BROKEN),), GO),
    S("the release is not renamed", GO, FAILED, "README.md: Read-only",
      (refuse("replace", "*README.md*", READ_ONLY),), GO),
    S("the folder of the release is not made", GO, FAILED, "release: Permission",
      (refuse("mkdir", "*release", RIGHTS),), GO),
    S("too many open files", GO, FAILED, "ulimit", (refuse("open", "*costs.json*", errno.EMFILE),), GO),
    S("a quota", GO, FAILED, "free some space", (refuse("open", "*costs.json*", errno.EDQUOT),), GO),
    S("a network disk that is gone", GO, FAILED, "network disk", (refuse("open", "*costs.json*", errno.ESTALE),), GO),
    S("room for embeddings, and none", "RUN CENTRES", FAILED, "embeddings.npy: No space", (full("*embeddings*"),),
      "ON"),
    S("no room for centres", "RUN CENTRES", FAILED, "centres.npz: No space", (full("*centres.npz*"),),
      "ON"),
    S("a run resumed from elsewhere", "run --resume --data ../private.jsonl --out ../half --rows 64", DONE, "",
      (folder("else"), does(lambda where: os.chdir(where / "else")))),
    S("a run that was moved", "GO --out moved", DONE, "",
      (copied("half", "moved"), gone("half"))),
)

LEDGERS = (
    S("a ledger that is not there", "RUN --ledger none", USAGE, "there is none", leaves=_no_new),
    S("a ledger that is a folder", "RUN --ledger box", USAGE, "ledger", (folder("box"),), leaves=_no_new),
    S("a ledger that is empty", "RUN --ledger a", USAGE, "not a ledger", (put("a", ""),), leaves=_no_new),
    S("a ledger that is a list", "RUN --ledger a", USAGE, "not a ledger", (put("a", "[]"),), leaves=_no_new),
    S("a ledger without a cap", "RUN --ledger a", USAGE, "not a ledger", (put("a", '{"runs": []}'),)),
    S("a ledger with a cap of NaN", "RUN --ledger a", USAGE, "not a ledger",
      (put("a", '{"epsilon": NaN, "delta": 0.1, "runs": []}'),)),
    S("a ledger whose entry costs nothing", "RUN --ledger a", USAGE, "not a ledger",
      (put("a", LEDGER.replace("[]", '[{"run": "x", "rho": -1}]')),)),
    S("a ledger that is cut", PAY, USAGE, "not a ledger", (cut("ledger.json", 40),)),
    S("a ledger with two names", PAY, PRIVACY, "hard links", (hard_link("a", "ledger.json"),)),
    S("a ledger behind a link", "PAY --ledger a", DONE, "", (link("a", "ledger.json"),),
      leaves=lambda where: (where / "a").is_symlink()),
    S("a ledger behind a link to itself", "PAY --ledger a", USAGE, "ledger", (link("a", "a"),)),
    S("a cap that is too low", "RUN --ledger a", PRIVACY, "left of its cap",
      (put("a", LEDGER.replace("100.0", "1.0")),), leaves=_no_new),
    S("a ledger is left out", "run --resume --data private.jsonl --out paid", PRIVACY, "--ledger"),
    S("another ledger", "PAY --ledger a", PRIVACY, "no entry", (put("a", LEDGER),)),
    S("a ledger that was restored", PAY, PRIVACY, "copy",
      (replaced("ledger.json", '"mark": "[^"]*"', '"mark": "0123456789abcdef"'),)),
    S("an entry that was changed", PAY, PRIVACY, "entered with",
      (replaced("ledger.json", '"rho": [^,]*', '"rho": 0.5'),)),
    S("a copy after the run went on", "PAY --out other", PRIVACY, "copy",
      (copied("paid", "other"), does(lambda where: _quietly(where, PAY)))),
    S("a copy without a ledger goes on", "GO --out other", DONE, "",
      (copied("half", "other"),)),
    S("a ledger without locks", "RUN --ledger ledger.json", FAILED, "cannot be locked", (locks(errno.ENOSYS),)),
    S("a new ledger without locks", "account --ledger a --epsilon 5", USAGE, "cannot be locked", (locks(None),)),
    S("a new ledger whose lock may not be made", "account --ledger a --epsilon 5", USAGE, "cannot be locked",
      (refuse("open", "*a.lock", READ_ONLY),)),
    S("no room for a new ledger", "account --ledger a --epsilon 5", USAGE, "cannot be written", (full("*.a.*"),)),
    S("a new ledger in no folder", "account --ledger none/a --epsilon 5", DONE),
    S("a ledger that exists", "BOOK --epsilon 5", USAGE, "exists already"),
    S("a ledger with an impossible cap", "account --ledger a --epsilon -1", USAGE, "epsilon"),
    S("no room for an entry", PAY, USAGE, "nothing was released", (full("*ledger.json*"),), PAY),
    S("an entry that is not renamed", PAY, USAGE, "nothing was released",
      (refuse("replace", "*ledger.json*", READ_ONLY),), PAY),
    S("an entry that is not flushed", PAY, USAGE, "nothing was released",
      (refuse("fsync", "*ledger.json*", BROKEN),), PAY),
    S("no room for the mark", PAY, FAILED, "disk is full", (database("INSERT INTO marks", "full"),), PAY),
    S("umask 000 keeps a ledger", "account --ledger a --epsilon 5", DONE, "", (umask(0),), leaves=_own("a", "a.lock")),
    S("nothing to convert", "account", USAGE, "exactly one"),
    S("an impossible rho", "account --rho -1", USAGE, "rho"),
)

FINISHED = (
    S("a run that is none", "status private.jsonl", USAGE, "is not a run directory"),
    S("a folder of files", "evaluate box --real private.jsonl", USAGE, "is not a run directory", (folder("box"),)),
    S("status of a broken database", "status done", FAILED, "is damaged",
      (put("done/private/run.sqlite", b"no" * 999),)),
    S("status without a configuration", "status done", FAILED, "config.toml", (gone("done/config.toml"),)),
    S("resume on a broken database keeps the release", "GO --out done", FAILED, "is damaged",
      (put("done/private/run.sqlite", b"no" * 999),), leaves=lambda where: (where / "done/release/README.md").exists()),
    S("evaluate what is not finished", "evaluate half --real private.jsonl", USAGE, "has no release yet"),
    S("report what is not finished", "report half", USAGE, "has no release yet"),
    S("evaluate against nothing", "evaluate done --real none.jsonl", USAGE, "none.jsonl"),
    S("evaluate against another table", "evaluate done --real a.jsonl", USAGE, "text_column",
      (put("a.jsonl", '{"b": "c"}'),)),
    S("evaluate without centres", "evaluate done --real private.jsonl", USAGE, "centres",
      (put("done/centres.npz", "no"),)),
    S("evaluate broken embeddings", "evaluate done --real private.jsonl", FAILED, "embeddings.npy: cannot be read",
      (put("done/private/embeddings.npy", b"no"),)),
    S("evaluate cut embeddings", "evaluate done --real private.jsonl", FAILED, "embeddings.npy: cannot be read",
      (cut("done/private/embeddings.npy", 300),)),
    S("evaluate empty embeddings", "evaluate done --real private.jsonl", FAILED, "embeddings.npy: cannot be read",
      (put("done/private/embeddings.npy", b""),)),
    S("evaluate without embeddings", "evaluate done --real private.jsonl", DONE, "0.625",
      (gone("done/private/embeddings.npy"),)),
    S("evaluate a broken release", "evaluate done --real private.jsonl", FAILED, "synthetic.jsonl: is not as it was",
      (put("done/release/synthetic.jsonl", '{"text": '),)),
    S("evaluate a release of lists", "evaluate done --real private.jsonl", FAILED, "synthetic.jsonl: is not as it was",
      (put("done/release/synthetic.jsonl", '["a"]\n'),)),
    S("evaluate a release in no text", "evaluate done --real private.jsonl", FAILED,
      "synthetic.jsonl: is not as it was",
      (put("done/release/synthetic.jsonl", b"\xff\xff"),)),
    S("no room for figures", "evaluate done --real private.jsonl", FAILED,
      "evaluation.json: cannot be written (No space",
      (full("*evaluation.json*"),)),
    S("figures are shown all the same", "evaluate done --real private.jsonl", FAILED, "0.625", (full("*evaluation*"),)),
    S("figures where nobody may write", "evaluate done --real private.jsonl", FAILED, "Read-only",
      (refuse("open", "*evaluation.json*", READ_ONLY),)),
    S("a gate that fails", "evaluate done --real private.jsonl --min-mauve 0.9", 4, "--min-mauve 0.9"),
    S("a gate that is a word", "evaluate done --real private.jsonl --min-mauve high", USAGE, "--min-mauve"),
    S("no room for an audit", "audit done --real private.jsonl --no-replay", FAILED,
      "audit.json: cannot be written (No",
      (full("*audit.json*"),)),
    S("audit of other data", "audit done --real a.jsonl --no-replay", USAGE, "not the table",
      (does(lambda where: write(where / "a.jsonl", rows(70))),)),
    S("audit of broken canaries", "audit done --real private.jsonl --no-replay", FAILED, "canaries.json",
      (put("done/private/canaries.json", "{"),)),
    S("audit of empty canaries", "audit done --real private.jsonl --no-replay", FAILED, "canaries.json",
      (put("done/private/canaries.json", "{}"),)),
    S("audit of canaries in a list", "audit done --real private.jsonl --no-replay", FAILED, "canaries.json",
      (put("done/private/canaries.json", "[1]"),)),
    S("audit of nothing", "audit none --real private.jsonl", USAGE, "does not exist"),
    S("audit with no place for its run", "audit a.toml --real private.jsonl", USAGE, "--out", (put("a.toml", ""),)),
    S("audit without its release", "audit done --real private.jsonl --no-replay", USAGE, "has no release",
      (gone("done/release"),)),
    S("compare with nothing", "compare done none --real private.jsonl", USAGE, "is not a run directory"),
    S("no room for a comparison", "compare done --real private.jsonl", USAGE, "cannot be written (No space",
      (full("*comparison.md*"),)),
    S("a comparison on a file", "compare done --real private.jsonl --out a", USAGE, "cannot be written",
      (put("a", ""),)),
    S("a comparison where nobody may write", "compare done --real private.jsonl --out /proc/none", USAGE,
      "cannot be written"),
    S("a comparison is kept private", "compare done --real private.jsonl", DONE, "0.625", (umask(0),),
      leaves=_shut("done/private/comparison", "done/private/comparison/comparison.json")),
    S("no room for the page", "report done", FAILED, "report.html: No space", (full("*report.html*"),), "report done"),
    S("a page where nobody may write", "report done", FAILED, "report.html: Permission",
      (refuse("open", "*report.html*", RIGHTS),)),
    S("a page that is a link", "report done", USAGE, "is a link", (link("done/release/report.html", "/etc/hosts"),)),
    S("a page in a release that is a link", "report done", USAGE, "is a link",
      (copied("done/release", "other"), link("done/release", "../other"))),
    S("a page of broken figures", "report done", FAILED, "evaluation.json",
      (put("done/private/evaluation.json", "{"),)),
    S("a page of empty figures", "report done", DONE, "", (put("done/private/evaluation.json", "{}"),)),
    S("a page of broken costs", "report done", FAILED, "costs.json", (put("done/private/costs.json", "[]"),)),
    S("a page of a broken audit", "report done", FAILED, "audit.json",
      (put("done/private/audit.json", '{"groups": 3}'),)),
    S("a page without centres", "report done", DONE, "", (gone("done/centres.npz"),)),
    S("figures of broken centres", "evaluate done --real private.jsonl", USAGE, "centres",
      (put("done/centres.npz", b"PK\x03\x04"),)),
    S("a page without a plan", "report done", FAILED, "plan.json", (gone("done/plan.json"),)),
    S("doctor without a model", "doctor --model none", FAILED, "model cannot be used"),
)

CONTROL_C = (
    S("while the plan is made", "RUN", INTERRUPTED, "interrupted",
      (interrupted("plainchant.cli.run.make_plan"),), leaves=_no_new),
    S("while data is read", "RUN", INTERRUPTED, "nothing was written yet",
      (interrupted("plainchant.run.preparation.read_table"),), "RUN", leaves=_no_new),
    S("while the model is loaded", "RUN", INTERRUPTED, "nothing was written yet",
      (interrupted("plainchant.run.preparation.loaded_model"),), leaves=_no_new),
    S("while the folder is made", "RUN", INTERRUPTED, "nothing was written yet",
      (interrupted("plainchant.run.store.RunDirectory._fill"),), "RUN", leaves=_no_new),
    S("before batches are drawn", "RUN", INTERRUPTED, "--out new",
      (interrupted("plainchant.run.synthesis.form_batches"),),
      "ON"),
    S("while batches are kept", "RUN", INTERRUPTED, "--out new",
      (interrupted("plainchant.run.store.RunDirectory.save_batches"),),
      "ON"),
    S("while a text is kept", GO, INTERRUPTED, "texts are saved",
      (interrupted("plainchant.run.store.RunDirectory.commit"),), GO),
    S("while the release is written", GO, INTERRUPTED, "--resume",
      (interrupted("plainchant.run.store.write_parquet"),), GO),
    S("while the ledger is written", PAY, INTERRUPTED, "--ledger",
      (interrupted("plainchant.run.ledger.write_json"),), PAY),
    S("on another run's place", "RUN --out done", INTERRUPTED, "interrupted",
      (interrupted("plainchant.run.preparation.promised"),),
      leaves=lambda where: (where / "done/release").is_dir()),
    S("while figures are made", "evaluate done --real private.jsonl", INTERRUPTED, "interrupted",
      (interrupted("plainchant.evaluation.runs.measure"),)),
    S("while the page is written", "report done", INTERRUPTED, "interrupted",
      (interrupted("plainchant.reporting.runs.write_report"),)),
)

SHARED_CASES = (
    S("binary units", "RUN --data cases/binary_unit.parquet --unit-column customer --batch-size 40",
      PRIVACY, "too small"),
    S("integer units", "RUN --data cases/int_unit.parquet --unit-column customer --batch-size 40",
      PRIVACY, "too small"),
    S("private public corpus", "RUN --data cases/base.jsonl CENTRES --public-corpus cases/base.jsonl", PRIVACY,
      "public_corpus"),
    S("labels by case", "RUN --data cases/label_case.jsonl", DONE),
    S("labels that are booleans", "RUN --data cases/label_bool.jsonl --labels true,false", DONE),
    S("labels with names", "RUN --data cases/classlabel", DONE),
    S("two labels that are one", "plan cases/nf.toml", USAGE, "labels"),
    S("an empty label", "plan cases/el.toml", USAGE, "labels"),
    S("an array of lines", "RUN --data cases/array_lines.jsonl", DONE),
    S("texts that are structs", "RUN --data cases/struct_text.parquet", USAGE, "of type struct"),
    S("Windows letters", "RUN --data cases/cp1252.csv", USAGE, "--encoding"),
    S("Japanese letters", "RUN --data cases/sjis.csv", USAGE, "--encoding"),
    S("two bytes a letter", "RUN --data cases/utf16.csv --batch-size 40", PRIVACY, "byte order mark"),
    S("semicolons", "RUN --data cases/semi.csv --batch-size 40", PRIVACY, "separator ';'"),
    S("a byte order mark", "plan cases/bom.toml", DONE, "ε = 4"),
    S("a record of spaces", "RUN --data cases/padded.jsonl", DONE),
    *(S(f"its {name}", f"RUN --data cases/base.jsonl --model cases/{name}", FAILED, shows) for name, shows in (
        ("model_orig_mod_prefix", "'_orig_mod.'"), ("model_module_prefix", "'module.'"),
        ("model_missingkey", "missing: model.layers.2"), ("model_no_lmhead", "missing: lm_head.weight"),
        ("model_fp8real", "weight_scale_inv"), ("model_shape", "of another shape"),
        ("model_trunc", "broken or incomplete"), ("model_lfs_weights", "Git LFS pointer"), ("model_bin", "is pickled"),
        ("model_tok_bigger", "tokenizer has ids up to 258"), ("model_arch_mamba", "not supported, because"))),
    S("a model of NaN costs nothing", "RUN --data cases/base.jsonl --model cases/model_nan_all --ledger a", FAILED,
      "not finite", (put("a", LEDGER),), leaves=lambda where: (where / "a").read_text() == LEDGER),
    *(S(f"its {name}", f"CHAT --data cases/base.jsonl --model cases/{name}", FAILED, shows,
        (put("chat.toml", '[prompt]\nform = "chat"\n'),)) for name, shows in (
        ("model_chat_needs_system", "A system message is required"), ("model_chat_syntax", "fails in line 1"),
        ("model_chat_tojson", "does not show"))),
)
# fmt: on


@dataclass(frozen=True)
class P:
    """A situation that needs a process of its own: a signal at a moment, or odd streams.

    Attributes:
        name, command, code, shows, then: as of `S`; a code below 0 is a signal.
        at: the function, as module:name, that sends the signal when it is called.
        extra: more of the order (see `doubles.host`).
    """

    name: str
    command: str
    code: int
    shows: str = ""
    at: str = ""
    then: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


KILLED, AGAIN = -signal.SIGKILL, "ON"
KILL: dict[str, Any] = {"signal": signal.SIGKILL}
AFTER: dict[str, Any] = {**KILL, "after": True}
PRESS: dict[str, Any] = {"signal": signal.SIGINT}
STORE, RUN = "plainchant.run.store", "plainchant.run.synthesis"

# fmt: off
PROCESSES = (
    P("killed while the folder is made", "RUN", KILLED, "", f"{STORE}:RunDirectory._fill", "RUN", AFTER),
    P("killed before batches are drawn", "RUN", KILLED, "", f"{STORE}:RunDirectory.save_batches", AGAIN, KILL),
    P("killed after batches are drawn", "RUN", KILLED, "", f"{STORE}:RunDirectory.save_batches", AGAIN, AFTER),
    P("killed before the second text", GO, KILLED, "", f"{STORE}:RunDirectory.commit", GO, KILL),
    P("killed after the second text", GO, KILLED, "", f"{STORE}:RunDirectory.commit", GO, AFTER),
    P("killed before the release", GO, KILLED, "", f"{STORE}:RunDirectory.write_release", GO, KILL),
    P("killed in the middle of the release", GO, KILLED, "", f"{STORE}:write_parquet", GO, KILL),
    P("killed while a file is flushed", GO, KILLED, "", "os:fsync", GO, KILL),
    P("killed before the ledger is written", PAY, KILLED, "", "plainchant.run.ledger:write_json", PAY, KILL),
    P("killed after the ledger is written", PAY, KILLED, "", "plainchant.run.ledger:write_json", PAY, AFTER),
    P("killed between mark and ledger", PAY, KILLED, "", f"{STORE}:RunDirectory.save_marks", PAY, AFTER),
    P("killed after the last mark", PAY, KILLED, "", f"{STORE}:RunDirectory.save_marks", PAY, {**AFTER, "skip": 1}),
    P("Ctrl-C in a text", GO, INTERRUPTED, "Continue with", f"{STORE}:RunDirectory.commit", GO, PRESS),
    P("Ctrl-C twice", GO, INTERRUPTED, "interrupted again", f"{STORE}:RunDirectory.commit", GO, {**PRESS,
      "twice": True}),
    P("Ctrl-C in the folder", "RUN", INTERRUPTED, "nothing was written", f"{STORE}:RunDirectory._fill", "RUN", PRESS),
    P("Ctrl-C twice in the folder", "RUN", INTERRUPTED, "again", f"{STORE}:RunDirectory._fill", "RUN",
      {**PRESS, "twice": True}),
    P("Ctrl-C at the ledger", PAY, INTERRUPTED, "Continue with", "plainchant.run.ledger:write_json", PAY, PRESS),
    P("terminated", GO, INTERRUPTED, "Continue with", f"{STORE}:RunDirectory.commit", GO, {"signal": signal.SIGTERM}),
    P("the terminal is closed", GO, -signal.SIGHUP, "", f"{STORE}:RunDirectory.commit", GO, {"signal": signal.SIGHUP}),
    P("results to a full disk", GO, FAILED, "standard output: cannot be written", "", GO, {"stdout": "/dev/full"}),
    P("results to nobody", GO, FAILED, "", "", GO, {"stdout": "pipe"}),
    P("talk to a full disk", GO, DONE, "", "", "report half", {"stderr": "/dev/full"}),
    P("talk to nobody", GO, DONE, "", "", "report half", {"stderr": "pipe"}),
    P("status to a full disk", "status done", FAILED, "standard output: cannot be written", "", "",
      {"stdout": "/dev/full"}),
    P("a report to a full disk", "report done", FAILED, "standard output", "", "", {"stdout": "/dev/full"}),
    P("a ledger to a full disk", "BOOK", FAILED, "standard output", "", "", {"stdout": "/dev/full"}),
    P("status in ASCII", "status done", DONE, "texts", "", "", {"encoding": "ascii"}),
    P("a run in Latin-1", GO, DONE, "Done", "", "", {"encoding": "latin-1"}),
    P("an error in ASCII", "RUN --labels 'rot,gr\u00fcn'", USAGE, "labels", "", "", {"encoding": "ascii"}),
    P("hardly any open files", GO, USAGE, "Too many open files", "", GO, {"files": 3}),
)
# fmt: on
TABLES = {
    "files": FILES,
    "commands": COMMANDS,
    "out": OUT,
    "resumed": RESUMED,
    "ledgers": LEDGERS,
    "finished": FINISHED,
    "control-c": CONTROL_C,
    "shared": SHARED_CASES,
}  # fmt: skip


def _invoke(command: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(main, words(command), env=env)


def _quietly(where: Path, command: str) -> None:
    done = _invoke(command)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def quick(model: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, model)
        yield


@pytest.fixture(scope="module")
def store(quick: None, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, the tiny model, and runs: finished, half done, and half done with a ledger."""
    where = tmp_path_factory.mktemp("store")
    (where / "tiny").symlink_to(model)
    write(where / "private.jsonl", rows())
    write(where / "public.jsonl", [{"text": f"a public text of number {n}"} for n in range(30)])
    commit = RunDirectory.commit

    def once(self: RunDirectory, text: Any) -> None:
        if self.texts():
            raise KeyboardInterrupt
        commit(self, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        _quietly(where, "RUN CENTRES --out done")
        _quietly(where, "BOOK --epsilon 500 --delta 1e-3")
        patch.setattr(RunDirectory, "commit", once)
        assert _invoke("RUN --out half").exit_code == INTERRUPTED
        assert _invoke("RUN --out paid --ledger ledger.json").exit_code == INTERRUPTED
    return where


@pytest.fixture
def here(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Copies the store into a folder of its own, and goes there."""

    def go() -> Path:
        for source in store.iterdir():
            if source.is_symlink() or source.suffix == ".jsonl":
                (tmp_path / source.name).symlink_to(source.resolve())
            elif source.is_dir():
                shutil.copytree(source, tmp_path / source.name)
            else:
                shutil.copy(source, tmp_path / source.name)
        if CASES.is_dir():
            (tmp_path / "cases").symlink_to(CASES)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return go


def check(name: str, output: str) -> None:
    """What no situation may show."""
    for word in (MARKER, "Traceback", "unexpected", "its message is not shown"):
        shown = output.replace("unexpected extra argument", "")  # click's own words
        assert word not in shown, f"{name} shows {word}: {output}"
    assert not set(output) & set("\x1b\x07\x9b"), f"{name} shows control characters: {output!r}"


def close(output: str, shows: str) -> bool:
    """Whether an output has these words, wherever its lines break."""
    return "".join(shows.split()) in "".join(output.split())


@pytest.mark.parametrize("situation", [pytest.param(s, id=f"{t}: {s}") for t, own in TABLES.items() for s in own])
def test_a_situation(situation: S, here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if "cases/" in situation.command and not CASES.is_dir():
        pytest.skip("needs the shared cases beside the repository: ../shared/cases")
    where = here()
    with ExitStack() as undone, monkeypatch.context() as patch:
        place = Place(where, patch)
        undone.callback(lambda: [undo() for undo in reversed(place.undo)])
        for fault in situation.faults:
            fault(place)
        done = _invoke(situation.command, situation.env)
    check(situation.name, done.output)
    assert done.exit_code == situation.code, done.output
    assert close(done.output, situation.shows), done.output
    if situation.code:
        told = [line for line in done.stderr.splitlines() if line.lower().startswith("error:")]
        assert len(told) == 1 or situation.command.startswith("doctor"), done.stderr
    assert situation.leaves(where), f"{situation} leaves something else"
    leftovers = [path.name for path in where.rglob(".*") if ".unfinished-" in path.name or path.suffix == ".tmp"]
    assert not leftovers
    if situation.then:
        again = _invoke(situation.then)
        check(situation.name, again.output)
        assert again.exit_code == DONE, again.output


@pytest.fixture(scope="module")
def host(model: Path) -> Iterator[Callable[[dict[str, Any]], int]]:
    """Obeys an order in a forked process (see `doubles.host`)."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-m", "doubles.host", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers = process.stdin, process.stdout

        def obey(order: dict[str, Any]) -> int:
            asks.write(json.dumps(order) + "\n")
            asks.flush()
            return int(answers.readline())

        yield obey
        asks.close()


@pytest.mark.skipif(not HERE, reason="forks, /dev/full and signals as on Linux")
@pytest.mark.parametrize("situation", PROCESSES, ids=str)
def test_a_process(situation: P, here: Any, host: Any) -> None:
    where = here()
    order = {
        "words": words(situation.command),
        "folder": str(where),
        "environment": {},
        "stdout": "out",
        "stderr": "err",
    }
    code = host(order | ({"at": situation.at} if situation.at else {}) | situation.extra)
    output = "".join(
        path.read_text(encoding=situation.extra.get("encoding", "utf-8"))
        for path in (where / "out", where / "err")
        if path.exists()
    )
    check(situation.name, output)
    assert code == situation.code, output
    assert close(output, situation.shows), output
    if situation.then:
        again = _invoke(situation.then)
        check(situation.name, again.output)
        assert again.exit_code == DONE, again.output
        leftovers = [path.name for path in where.glob(".*") if ".unfinished-" in path.name]
        assert not leftovers


def test_the_kit_is_large_and_every_situation_has_its_name() -> None:
    names = [f"{table}: {situation}" for table, own in TABLES.items() for situation in own] + [
        str(p) for p in PROCESSES
    ]
    assert len(set(names)) == len(names)
    own = len(names) - len(SHARED_CASES)
    assert own >= LEAST, f"{own} situations besides the shared cases"
