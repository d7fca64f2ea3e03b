"""One reference system: every section of docs/guarantee.md that is cited exists, and so does every test it names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARANTEE = ROOT / "docs" / "guarantee.md"
KINDS = {".py", ".md", ".toml", ".jinja", ".yml", ".yaml", ".svg"}
PLACES = [
    *sorted(path for folder in ("src", "tests", "bench", "docs", "examples") for path in (ROOT / folder).rglob("*")),
    *sorted(ROOT.glob("*.md")),
    ROOT / "pyproject.toml",
]
# a section's number, and more of them after a comma, "and" or "to"
CITATION = re.compile(r"\bguarantee (\d+(?:\.\d+)?(?:(?:, | and | to |, and )\d+(?:\.\d+)?)*)")
HEADING = re.compile(r"^(#{2,3}) (\d+(?:\.\d+)?) \S", re.MULTILINE)
NAMED = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))?")


def texts():
    """Every text file of the project by its path, but this one and the picture data."""
    for path in PLACES:
        if path.is_file() and path.suffix in KINDS and path != Path(__file__) and "results" not in path.parts:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def cited(text):
    """The sections that a text cites."""
    # a citation may be broken over two lines of a comment or a docstring
    flat = re.sub(r"\s*\n\s*(?:#\s*)?", " ", text)
    return [number for match in CITATION.findall(flat) for number in re.findall(r"\d+(?:\.\d+)?", match)]


def headings():
    """The numbers of the headings with their depth, in order."""
    return [(number, len(marks)) for marks, number in HEADING.findall(GUARANTEE.read_text(encoding="utf-8"))]


def test_every_cited_section_exists():
    known = {number for number, _ in headings()}
    missing = [(str(path), number) for path, text in texts() for number in cited(text) if number not in known]
    assert missing == []


def test_there_are_citations_to_check():
    # the pattern finds what comments hold: without this an empty search would pass
    found = [number for path, text in texts() if path.parts[0] == "src" for number in cited(text)]
    assert len(found) > 80
    assert {"4.3", "5.2", "5.3", "7", "8"} <= set(found)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("(guarantee 5.3)", ["5.3"]),
        ("([Amin25]; guarantee 4.4, 5.1)", ["4.4", "5.1"]),
        ("(guarantee 2.3 to 2.5)", ["2.3", "2.5"]),
        ("(guarantee 1 and 4)", ["1", "4"]),
        ("# so it is (guarantee\n    # 99.9)", ["99.9"]),
        ("(guarantee 9, 10)", ["9", "10"]),
        ("the guarantee of 5 runs", []),
    ],
)
def test_citations_are_recognised(text, numbers):
    assert cited(text) == numbers


def test_headings_are_numbered_in_order_and_once():
    chapter = section = 0
    for number, depth in headings():
        if depth == 2:
            chapter, section = chapter + 1, 0
            assert number == str(chapter)
        else:
            section += 1
            assert number == f"{chapter}.{section}"
    assert chapter >= 11


def test_nothing_refers_to_a_document_that_is_not_here():
    assert [str(path) for path, text in texts() if re.search(r"\(spec\b|\bspec \d", text)] == []


def test_every_test_that_the_documents_name_exists():
    missing = []
    for path, text in texts():
        if path.suffix != ".md":
            continue
        for file, name in NAMED.findall(text):
            source = ROOT / file
            known = (
                {node.name for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.FunctionDef)}
                if source.is_file()
                else set()
            )
            if not source.is_file() or (name and name not in known):
                missing.append((str(path), file, name))
    assert missing == []


def test_every_section_with_a_claim_names_a_test():
    text = GUARANTEE.read_text(encoding="utf-8")
    places = [(match.start(), match.group(2)) for match in HEADING.finditer(text)]
    ends = [start for start, _ in places[1:]] + [text.index("\n## Sources")]
    bodies = {number: text[start:end] for (start, number), end in zip(places, ends, strict=True)}
    # a heading that only opens its subsections, claims nothing
    without = {number for number, body in bodies.items() if not NAMED.search(body)}
    assert without == {"2", "3", "4", "6", "8", "14"}
