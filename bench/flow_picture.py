"""The picture of README and docs: the way of a private table to a release.

    python bench/flow_picture.py docs/flow.svg

The colours follow the reader's light or dark scheme. The picture has a ground of its own, so any page can show it.
"""

import argparse
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, BOX, GAP, TALL = 1020, 330, 24, 76, 172, 28, 150
STYLE = """
  .ground { fill: #ffffff; stroke: #d0d7de } .box { fill: #f6f8fa }
  .box, .arrow { stroke-width: 2 } .arrow { fill: none }
  .private { stroke: #9e2a2b } .shared { stroke: #1a7f37 } .arrow { stroke: #57606a } .tip { fill: #57606a }
  .head, .line { fill: #1f2328 } .note { fill: #57606a } .red { fill: #9e2a2b } .green { fill: #1a7f37 }
  .head { font-size: 16px; font-weight: 600 } .line { font-size: 14px } .note { font-size: 15px }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #30363d } .box { fill: #161b22 }
    .private { stroke: #ff7b72 } .shared { stroke: #56d364 } .arrow { stroke: #a8b1bb } .tip { fill: #a8b1bb }
    .head, .line { fill: #e6edf3 } .note { fill: #a8b1bb } .red { fill: #ff7b72 } .green { fill: #56d364 }
  }
"""
SAID = (
    "From a private table to a release: similar records are grouped, the model writes word by word while the influence "
    "of each record is limited, the records vote with noise, and texts are released with a guarantee."
)
# title, lines; all but the last are private
STEPS = (
    ("Your table", "text, label, customer", "stays with you"),
    ("Similar records", "sorted into groups", "of about 16, around", "public landmarks"),
    (
        "Word by word", "the model reads one", "record per prompt;", "each one's influence", "is limited; a word is",
        "drawn from all",
    ),
    ("A noisy vote", "records vote on", "candidates that the", "model wrote alone;", "noise hides each vote"),
    ("release/", "synthetic texts", "with your labels,", "card, report and", "the guarantee"),
)  # fmt: skip
BELOW = (
    "One privacy budget (ε, δ) for everything: you set it before the run, and no record can spend more.",
    "The language model is used as it is, on your own machine: nothing is trained.",
)


def words(kind, x, y, said, anchor="start"):
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(said)}</text>'


def picture():
    """The picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title" font-family="system-ui, sans-serif">',
        f'<title id="title">{escape(SAID)}</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="12"/>',
        words("note red", LEFT, 46, "private: stays on your machine"),
        words("note green", LEFT + (len(STEPS) - 1) * (BOX + GAP), 46, "yours to share"),
    ]
    for place, (title, *lines) in enumerate(STEPS):
        x, kind = LEFT + place * (BOX + GAP), "shared" if place == len(STEPS) - 1 else "private"
        parts.append(f'<rect class="box {kind}" x="{x}" y="{TOP}" width="{BOX}" height="{TALL}" rx="8"/>')
        parts.append(words("head", x + 14, TOP + 30, title))
        parts += [words("line", x + 14, TOP + 55 + 20 * row, line) for row, line in enumerate(lines)]
        if place:
            y = TOP + TALL // 2
            parts.append(f'<path class="arrow" d="M{x - GAP + 4} {y}H{x - 9}"/>')
            parts.append(f'<path class="tip" d="M{x - 11} {y - 6}l9 6l-9 6z"/>')
    y = TOP + TALL + 34
    parts.append(f'<path class="arrow" d="M{LEFT} {y - 18}v8H{WIDTH - LEFT}v-8"/>')
    parts += [words("note", WIDTH // 2, y + 18 + 26 * row, line, "middle") for row, line in enumerate(BELOW)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
