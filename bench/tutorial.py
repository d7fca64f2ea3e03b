"""The outputs in docs/tutorial.md, made by running its commands.

    python bench/tutorial.py run       every command of the page in an empty folder, in order: about ten minutes
    python bench/tutorial.py page      the outputs into docs/tutorial.md and README.md, from bench/tutorial/outputs.json

A block with `title="NAME"` is a file, and a block of `console` holds commands, each after a dollar sign. What follows a
command is what it wrote to the terminal, without the progress.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
OUTPUTS = ROOT / "bench" / "tutorial" / "outputs.json"
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<file>[\w.]+)")?\n(?P<body>.*?)^```$', re.MULTILINE | re.DOTALL)
COLUMNS = 90


def commands_of(body):
    """The commands of a console block, without what they wrote."""
    return [line.removeprefix("$ ") for line in body.splitlines() if line.startswith("$ ")]


def steps(text):
    """What a reader does, in order: ("file", name, content) or ("command", line, "")."""
    for block in BLOCK.finditer(text):
        if block["file"]:
            yield "file", block["file"], block["body"]
        elif block["language"] == "console":
            yield from (("command", line, "") for line in commands_of(block["body"]))


def with_outputs(text, outputs):
    """The page with what each command wrote, from `outputs` (command: lines)."""

    def filled(block):
        if block["language"] != "console":
            return block[0]
        lines = [part for line in commands_of(block["body"]) for part in (f"$ {line}", *outputs[line])]
        return "```console\n" + "\n".join(lines) + "\n```"

    return BLOCK.sub(filled, text)


def shown_in(readme, outputs):
    """The README with the texts of the tutorial's run, and what it said at its end."""
    texts, said = (
        next(outputs[line] for line in outputs if line.startswith(name)) for name in ("head", "plainchant run")
    )
    block = "\n".join(["```text", *texts, "", *said[said.index("Done") :], "```"])
    before, _, rest = readme.partition("<!-- output -->")
    return f"{before}<!-- output -->\n{block}\n<!-- end of output -->{rest.partition('<!-- end of output -->')[2]}"


def shown(line, done):
    """The lines that a command left on the terminal: what it wrote, and what it warned of or named as the next step."""
    if done.returncode:
        raise SystemExit(f"{line} ended with exit code {done.returncode}:\n{done.stderr}")
    # a line of progress tells how far something is
    said = [text for text in done.stderr.splitlines() if text and not re.search(r"\d+ ?%|\d+ of \d+", text)]
    return [text.rstrip() for text in (*done.stdout.rstrip().splitlines(), *said)]


def run(options):
    """Every command in a new folder, or in --folder from the --begin-th on; the outputs are kept after each."""
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    # where no output goes to a terminal, the number of columns is taken from here
    environment = os.environ | {"COLUMNS": str(COLUMNS), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    outputs = json.loads(OUTPUTS.read_text()) if OUTPUTS.exists() else {}
    number = 0
    for kind, line, content in steps(PAGE.read_text(encoding="utf-8")):
        if kind == "file":
            (folder / line).write_text(content, encoding="utf-8")
            continue
        number += 1
        if number < options.begin:
            continue
        print(f"{number}: {line}", flush=True)
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        outputs[line] = shown(line, done)
        OUTPUTS.parent.mkdir(exist_ok=True)
        OUTPUTS.write_text(json.dumps(outputs, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def page(options):
    """Page and README with the outputs; those of commands that the page no longer has are forgotten."""
    text = PAGE.read_text(encoding="utf-8")
    outputs = json.loads(OUTPUTS.read_text(encoding="utf-8"))
    kept = {line: outputs[line] for kind, line, _ in steps(text) if kind == "command"}
    OUTPUTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(with_outputs(text, kept), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(shown_in(readme.read_text(encoding="utf-8"), kept), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, function in (("run", run), ("page", page)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        if name == "run":
            command.add_argument("--folder", type=Path, help="where to run; unset: a new folder")
            command.add_argument("--begin", type=int, default=1, help="number of the first command to run")
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
