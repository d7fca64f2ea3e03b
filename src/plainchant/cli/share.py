"""Commands for handing a release over: statement, view, push."""

import webbrowser
from pathlib import Path

import click

from plainchant.cli.console import Console
from plainchant.cli.options import HOLDER, NAME, command, formatted, option


@command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@NAME
@HOLDER
@option(
    "--ledger",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Guarantee",
    help="Ledger of the data set: the statement names what all its runs cost together.",
)
@formatted
def statement(console: Console, directory: Path, name: str | None, holder: str | None, ledger: Path | None) -> None:
    """Write one page about a release to sign: what it is, what is promised, what is not, answers to five questions.

    As Markdown and as a page to print. DIR/release gets the version to share; DIR/private gets the version to sign
    inside, with an audit's results. The checksums of the released files are on both, and a release that was changed
    is refused.
    """
    from plainchant.reporting.statement import statement as write_pages
    from plainchant.run.store import RunDirectory

    paths = write_pages(directory, name=name, holder=holder, ledger=ledger)
    if ledger is None and (noted := RunDirectory.open(directory).noted_ledger()) is not None:
        console.warn(f"the pages do not say what all releases cost together; --ledger {noted} adds it")
    console.table("", [("to share" if path.parent.name == "release" else "keep private", path) for path in paths])
    console.result({"pages": [str(path) for path in paths]}, str(paths[0]))


@command()
@click.argument("directories", metavar="DIR [DIR]", nargs=-1, required=True, type=click.Path(path_type=Path))
@option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Output",
    help="The page.  [default: DIR/view.html]",
)
@option("--open", "opened", is_flag=True, group="Output", help="Open the page in the browser.")
@option(
    "--private",
    is_flag=True,
    group="Data",
    help="Show the nearest real texts beside each synthetic one; the page is written to DIR/private.",
)
@option(
    "--real",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Data",
    help="With --private: the table that the run was made from.",
)
@formatted
def view(
    console: Console, directories: tuple[Path, ...], out: Path | None, opened: bool, private: bool, real: Path | None
) -> None:
    """Write a page to browse a release: search, filter by label and other columns, copy, compare two runs.

    \b
    plainchant view DIR --open
    plainchant view DIR OTHER
    plainchant view DIR --private --real FILE

    One file that needs no network. It holds released texts only, unless --private is given: then it shows real texts,
    is marked so, and lies in DIR/private, readable by its owner only.
    """
    from plainchant.evaluation.figures import NOTE
    from plainchant.reporting.view import view as write_page

    if private:
        console.warn(NOTE)
    with console.progress() as progress:
        path = write_page(
            *directories, out=out, private=private, real=real, progress=lambda share: progress.stage("comparing", share)
        )
    console.table("", [("keep private" if private else "written to", path)])
    if opened:
        webbrowser.open(path.absolute().as_uri())
    console.result({"page": str(path)}, str(path))


@command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@option("--public", is_flag=True, group="Output", help="Let everybody see the repository.  [default: only you]")
@formatted
def push(console: Console, directory: Path, repository: str, public: bool) -> None:
    """Upload a release to the Hugging Face Hub as a data set. Only on request, and never anything of DIR/private.

    The files go up as they were checked. Refused are a run that is not finished, a release that is not as the run wrote
    it, one without a guarantee, and one with planted canaries. Log in before with: hf auth login
    """
    from plainchant.reporting.push import push as upload

    address = upload(directory, repository, public=public)
    console.table("", [("uploaded to", address)])
    console.result({"address": address}, address)
