"""A prompt: the public part first, the record's own part a function of that record alone."""

import re
import time
from typing import Any

import pytest
from doubles import forms
from doubles.models import Letters

from plainchant.config import Example, PromptForm, SynthesisConfig
from plainchant.data.tables import Record
from plainchant.errors import ConfigError
from plainchant.generation.prompting import TURNS, Prompts, Templates, _without_stop, choose_examples
from plainchant.run.rounds import context_of


def prompts(model=None, labels=(), **prompt):
    config = SynthesisConfig(
        method="clustered-mean",
        labels=labels,
        label_column="label" if labels else None,
        max_record_tokens=12,
        prompt=prompt,
        max_tokens=9,
    )
    return Prompts(config, model or Letters())


LINES = {"example": "Text: {text}\n\n"}
FORMS = sorted(forms.FORMS.items())


def shown(text, **changes):
    """The record's part of a prompt whose records are cut nowhere."""
    made = Prompts(SynthesisConfig(method="clustered-mean", max_record_tokens=300, **changes), Letters(2_000))
    return Letters().read(made.record(text, None))


def parts(made, text, label=None):
    return [Letters().read(tokens) for tokens in (made.prefix(label), made.record(text, label), made.start(label))]


def test_default_prompt_is_a_list_that_the_model_continues():
    made = prompts()
    assert parts(made, "one") == ["<s>Different texts of one kind:\n\n", "Text: one\n\n", "Text:"]
    assert made.stop == "\nText:"


def test_default_prompt_with_labels_names_them():
    made = prompts(labels=("x", "y"))
    assert parts(made, "one", "y")[1:] == ["Label: y\nText: one\n\n", "Label: y\nText:"]
    assert made.stop == "\nLabel:"


def test_prompts_show_a_label_as_it_is_described():
    own = {"descriptions": {"oos": "cannot be done"}, "examples": [{"text": "E1", "label": "oos"}]}
    config = SynthesisConfig(method="clustered-mean", labels=("oos", "pto"), label_column="l", max_tokens=9, prompt=own)
    made = Prompts(config, Letters())
    shown = "Label: cannot be done\nText:"
    assert parts(made, "one", "oos")[1:] == [f"{shown} one\n\n", shown]
    assert f"{shown} E1" in parts(made, "one", "oos")[0]
    assert parts(made, "one", "pto")[2] == "Label: pto\nText:"
    # a model that is sent messages is told the same
    for form in (PromptForm.EXAMPLES, PromptForm.CHAT):
        message = Templates(config, form).public_prompt("oos")
        assert "cannot be done" in message
        assert "oos" not in message


@pytest.mark.parametrize(
    ("examples", "stop"), [(["E1", " E2\n"], "\n"), (["E1", "E2\nmore"], "\nText:"), ([], "\nText:")]
)
def test_line_breaks_are_kept_unless_all_examples_are_single_lines(examples, stop):
    assert prompts(examples=[{"text": example} for example in examples]).stop == stop


@pytest.mark.parametrize(
    ("after", "stop"),
    [
        ("\n\n", "\n"), ("\n---\n\n", "\n---"), ("\n\n ~~ \n", "\n~~"), ("\nLabel: {label}\n", "\nLabel:"),
        ("\n{label}\n", "\n"), ("</text>\n", "</text>\n"), (" ({label})\n", " ("), ("", None),
    ],
)  # fmt: skip
def test_a_text_ends_at_what_follows_it_in_the_template(after, stop):
    assert prompts(example="Text: {text}" + after, labels=("x",)).stop == stop


@pytest.mark.parametrize(("name", "text"), FORMS)
def test_a_records_form_arrives_in_the_prompt_unchanged(name, text):
    assert shown(text) == f"Text: {text}\n\n"
    assert shown(text, prompt={"form": "chat", "chat": "Like {text}"}) == text


@pytest.mark.parametrize("mark", ["###", "a.b*", "(x"])
@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ("one\n# two", "one\ntwo"), ("one\n\n## two\n#", "one\n\ntwo"), ("one\n### two", "one\ntwo"), ("# one", "one"),
        (" \n# #\n  # one\n  two # # x#", "one\n  two # # x#"), ("one #\n #\ntwo", "one #\n #\ntwo"), ("#\n#", ""),
    ],
)  # fmt: skip
def test_a_mark_in_a_record_ends_no_entry_and_all_else_stays(mark, record, kept):
    record, kept = record.replace("#", mark), kept.replace("#", mark)
    example = f"Text:\n{{text}}\n{mark}\n\n"
    found = shown(record, prompt={"example": example})
    assert found == example.replace("{text}", kept)
    # one end, that of the entry, and none at the start of the text
    assert len(re.findall(rf"\n{re.escape(mark)}", found)) == 1


def test_a_record_does_not_look_like_several_entries():
    assert shown("Text: one\n\nText: two\nin Text: three") == "Text: one\n\ntwo\nin Text: three\n\n"


def test_public_examples_come_before_the_record_those_of_the_label_if_any():
    examples = [{"text": "E1", "label": "x"}, {"text": "E2", "label": "y"}, {"text": "E3", "label": "y"}]
    made = prompts(labels=("x", "y", "z"), header="", example="{label}: {text}\n", examples=examples)
    assert [parts(made, "", label)[0] for label in "xyz"] == [
        "<s>x: E1\n", "<s>y: E2\ny: E3\n", "<s>x: E1\ny: E2\ny: E3\n",
    ]  # fmt: skip


MANY = [{"text": f"{label}{number}", "label": label} for label in "xy" for number in range(4)]


def test_a_turn_shows_other_examples_in_another_order_and_its_own_last():
    made = prompts(labels=("x", "y", "z"), header="", example="{label}: {text}\n", examples=MANY)

    def shown(label, turn):
        return Letters().read(made.prefix(label, ("R",), turn)).removeprefix("<s>").split("\n")[:-1]

    assert shown("x", 0) == ["x: x0", "x: x1", "x: x2", "x: x3", "x: R"]
    turns = [shown("x", turn) for turn in range(1, TURNS)]
    for own in turns:
        assert [line[0] for line in own] == ["y"] * 2 + ["x"] * 5
        assert len(set(own)) == len(own)
        assert own[-1] == "x: R"
    assert len({tuple(own) for own in turns}) > TURNS / 2
    assert {line for own in turns for line in own if line[0] == "y"} == {f"y: y{number}" for number in range(4)}
    # no example has the label: two thirds of all; the same turn is the same prompt
    assert all(len(shown("z", turn)) == 7 for turn in range(1, TURNS))
    assert [shown("x", turn) for turn in range(1, TURNS)] == turns


def test_a_turn_needs_no_more_room_than_a_prompt_with_a_record():
    long = [{"text": label * 80, "label": label} for label in "xyy"]
    made = prompts(labels=("x", "y"), examples=long)
    assert all(made.prefix("x", (), turn) == made.prefix("x") for turn in range(TURNS))
    for label in "xy":
        for turn in range(TURNS):
            assert len(made.prefix(label, (), turn)) + len(made.start(label)) + 9 <= made.longest


def test_without_examples_a_turn_changes_nothing():
    made = prompts()
    assert all(made.prefix(None, (), turn) == made.prefix(None) for turn in range(TURNS))


def test_prefix_and_start_do_not_depend_on_records():
    made = prompts()
    assert made.prefix(None) + made.start(None) == prompts().prefix(None) + prompts().start(None)
    assert made.record("", None) == Letters().encode("Text: \n\n", trusted=True)


def test_a_model_behind_an_endpoint_reads_what_a_local_one_does():
    examples = [{"text": "E1", "label": "x"}, {"text": "E2", "label": "y"}]
    for changes in ({}, {"header": "", "example": "{label}: {text}\n", "examples": examples}):
        made = prompts(labels=("x", "y"), **changes)
        for released in ([], ["R1", "R2"]):
            local = Letters().read(made.prefix("y", released) + made.start("y"))
            assert local == "<s>" + Templates(made._config).public_prompt("y", released)


def test_a_message_asks_for_another_one_like_the_last_text_that_it_shows():
    made = Templates(prompts(labels=("x", "y"))._config, PromptForm.CHAT)
    assert made.stop is None
    assert made.public_prompt("y") == "Write one new text with the label y. Answer with the text only."
    shown = made.public_prompt("y", ["R1", "R2 {text}"])
    assert shown.startswith("Label: y\nText: R1\n\nHere is a text with the label y:\n\nR2 {text}\n\nWrite one new text")
    own = Templates(prompts(chat="Like this: {text}")._config, PromptForm.CHAT)
    assert own.public_prompt(None) == "Like this: "


LONG = "One two. Three four!\nFive six? Seven eight. Nine ten."


class Draws:
    """Answers with numbers that were written down, and notes the bounds."""

    def __init__(self, *numbers):
        self.numbers, self.bounds = list(numbers), []

    def below(self, bound):
        self.bounds.append(bound)
        return self.numbers.pop(0)


def windowed(room=12, **values):
    config = SynthesisConfig(
        method="clustered-mean", max_record_tokens=room, max_tokens=9, record_part="window", **values
    )
    return Prompts(config, Letters())


def test_a_window_begins_with_a_sentence_and_is_full():
    made, draws = windowed(), Draws(0, 1, 2, 3)
    shown = [made.part(LONG, draws.below) for _ in range(4)]
    assert draws.bounds == [4] * 4
    assert shown == [LONG, LONG[9:], LONG[21:], LONG[31:]]
    assert all(len(made.body(text, None)) == 12 for text in shown)
    # words, where there is but one sentence; nothing is drawn for what is shown whole, or by its head
    assert made.part("one two three four five", Draws(2).below) == "three four five"
    assert made.part(" short one. ", Draws().below) == "short one."
    assert prompts().part(LONG, Draws().below) == LONG
    assert windowed(1).part("x" * 500, Draws(0).below) == "x" * 500
    # in linear time
    began = time.perf_counter()
    for text in ("." + " " * 10**6 + "a", "\n" * 10**6, " \n" * 10**6 + "a", "a." * 10**6):
        assert len(windowed(400).part("b" + text, Draws(0, 0).below)) <= 10**6
    assert time.perf_counter() - began < 20


def test_a_window_depends_on_its_own_record_and_draw_alone():
    made = windowed(records_per_context=2)

    def context(*texts, drawn):
        draws: Any = Draws(*drawn)
        return context_of(made, [Record(text, None, None) for text in texts], None, None, draws)

    for number in range(4):
        alone = context(LONG, drawn=[number])
        for other, drawn in (("short", []), (LONG.lower(), [3]), ("x y z " * 40, [1])):
            assert context(other, LONG, drawn=[*drawn, number])[-len(alone) :] == alone


def test_a_record_is_cut_by_itself():
    made = prompts()
    frame = len(made.record("", None)) - 1
    assert len(made.record("x" * 11, None)) == len(made.record("x" * 500, None)) == frame + 12
    assert len(made.record("x" * 3, None)) == frame + 4


@pytest.mark.parametrize("text", ["a\nb", "a \r\n b", " a\n\n\n\nb\n", "\n\ta\r\rb"])
def test_line_breaks_in_a_record_cannot_begin_another_entry(text):
    assert parts(prompts(**LINES), text)[1] == "Text: a b\n\n"


def test_an_own_end_of_entries_in_a_record_becomes_a_space():
    made = prompts(example="> {text}###", header="")
    assert made.stop == "###"
    assert parts(made, "a###b ### c\nd###")[1] == "> a b c\nd###"


def test_an_entry_without_an_end_has_no_stop_string():
    assert prompts(example="> {text}").stop is None


def test_special_tokens_in_a_record_are_not_special():
    made = prompts(example="</s>> {text}\n")
    record = made.record("a</s><s>b", None)
    # the template's own is trusted, the record's is not
    assert record[0] == 1
    assert not {0, 1} & set(record[1:])


def test_chat_puts_the_record_between_public_parts():
    made = prompts(form="chat", chat="Like {text}, again")
    assert parts(made, "one</s>") == ["<s><s>U:Like ", "one</s>", ", again</s>A:"]
    assert made.stop is None
    assert not {0, 1} & set(made.record("</s>", None))


def test_a_prompt_that_starts_with_nothing_is_refused():
    with pytest.raises(ConfigError, match="needs some text before"):
        prompts(example="{text}\n")


def test_prompts_longer_than_the_model_are_refused_before_any_record():
    made = prompts()
    # the longest record and the longest text: 12 and 9 tokens
    needed = sum(len(part) for part in (made.prefix(None), made.record("", None), made.start(None))) + 12 + 9
    with pytest.raises(ConfigError, match=f"need {needed}, more than the model's {needed - 1}"):
        prompts(Letters(context_length=needed - 1))
    prompts(Letters(context_length=needed))


def test_examples_are_released_texts_that_are_sound_and_differ():
    texts = [
        "The pump at the harbour failed again",
        "<b>{x}</b> [[ ]] -- //",
        "no no no no no no",
        "short one",
        "The pump at the harbour failed last night",
        "Two boys found a purse near the bakery",
    ]
    assert choose_examples(texts, 2) == [texts[0], texts[5]]
    assert choose_examples(texts, 9) == [texts[0], texts[5], texts[4]]
    assert choose_examples(texts[1:4], 2) == []
    assert choose_examples([], 2) == []
    # the same text twice is one example
    assert choose_examples([texts[0]] * 3, 2) == [texts[0]]


def test_what_public_examples_look_like_is_no_reason_against_an_example():
    codes = ["while open { take(); }", "if (!ready) { wait(); }"]
    assert choose_examples(codes, 2) == []
    assert choose_examples(codes, 2, [Example(text="for (;;) { go(); }")]) == codes
    # nor are short ones where the data is short; loops stay out
    assert choose_examples(["two words", "no no no no no"], 2, [Example(text="one word")]) == ["two words"]


def test_released_examples_stand_in_the_public_part_alone():
    made = prompts()
    plain, shown = made.prefix(None), made.prefix(None, ["ab"])
    assert len(shown) > len(plain)
    assert shown[: len(plain)] == plain


def test_more_records_than_expected_in_a_context_are_cut_at_a_public_length():
    made = prompts()
    longest = len(made.record("x" * 99, None))
    assert made.records(["x" * 99], None) == made.record("x" * 99, None)
    room = made._room(None)
    # an empty record keeps the space that belongs to a text
    assert longest <= room <= longest + 1
    assert len(made.records(["x" * 99, "y" * 99, "z" * 99], None)) == room
    assert made.records(["a", "b"], None) == (made.record("a", None) + made.record("b", None))[:room]


@pytest.mark.parametrize("stop", ["\n", "###", " ## ", "\t", "\n\n", "\n###", "\n# #"])
@pytest.mark.parametrize("piece", [" ", "\r", " \r", "\n", "#", "\t ", "x", "\n#", "\n ", "### ", "\n# "])
def test_what_would_end_a_text_is_found_in_linear_time(stop, piece):
    text = "a" + piece * (1_000_000 // len(piece)) + "b"
    began = time.monotonic()
    found = _without_stop(text, stop)
    assert time.monotonic() - began < 5
    assert found[0] == "a"
    assert found[-1] == "b"


@pytest.mark.parametrize(
    ("stop", "text", "found"),
    [
        ("\n", "a \n\r b  c", "a b  c"),
        ("\n", "a\rb", "a b"),
        ("###", "a ### \n b###c", "a b c"),
        ("\t", "a\t\tb c", "a b c"),
        ("\n\n", "a\n\n\nb\nc", "a b\nc"),
        # what is put in its place completes no other one
        ("# #", "## ##", "#\n#"),
    ],
)
def test_what_would_end_a_text_becomes_a_space(stop, text, found):
    assert _without_stop(text, stop) == found


STARS = {"attributes": {"stars": {"type": "number", "cuts": [1, 2, 3, 6]}, "name": {"type": "category"}}}


def with_attributes(**prompt):
    config = SynthesisConfig(method="clustered-mean", max_record_tokens=12, max_tokens=9, columns=STARS, prompt=prompt)
    return Prompts(config, Letters(context_length=2000))


def read(tokens):
    return Letters().read(tokens)


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        ("Text: {text}\n", "Stars: 2\nText: one\n"),
        ("> {attributes}> {text}\n", "> Stars: 2\n> one\n"),
        ("Kind: x\nText: {text}\n", "Kind: x\nStars: 2\nText: one\n"),
    ],
)
def test_attributes_stand_where_the_template_says_or_before_the_line_of_the_text(example, shown):
    made = with_attributes(example=example)
    assert read(made.record("one", None, "Stars: 2\n")) == shown
    assert read(made.start(None, "Stars: 2\n")) == shown.partition(" one")[0]
    # without attributes nothing is left of them
    assert "{" not in read(made.record("one", None)) + read(made.start(None))


def test_examples_show_attributes_their_own_and_those_of_released_texts():
    examples = [{"text": "E", "attributes": {"stars": 4, "name": "Ann"}}, {"text": "F"}]
    made = with_attributes(header="", example="- {text}\n", examples=examples)
    shown = made.prefix(None, ["G"], lines={"G": "Stars: 1\n"})
    assert read(shown) == "<s>Stars: 3 to 5\nName: Ann\n- E\n- F\nStars: 1\n- G\n"


def test_attributes_of_a_record_are_text_and_cut_at_a_public_length():
    made = with_attributes(example="T: {text}\n")
    special = Letters().encode("</s>", trusted=True)
    assert len(special) == 1
    tokens = made.record("one", None, "Name: </s>" + "x" * 500 + "\n")
    assert special[0] not in tokens
    assert len(tokens) == len(made.record("one", None)) + 24
    # each line by itself, and it stays a line
    long = read(made.record("one", None, "Stars: " + "x" * 500 + "\nName: Ann\n"))
    assert long == "Stars: " + "x" * 16 + "\nName: Ann\nT: one\n"
    assert len(made.record("one", None, "a" * 90 + "\n" + "b" * 90 + "\n")) == len(made.record("one", None)) + 2 * 24
    assert len(made.records(["one"] * 3, None, ["y" * 500] * 3)) <= made.longest


def test_a_chat_shows_a_records_attributes_before_it_and_asks_for_those_of_the_row():
    made = with_attributes(form="chat", chat="Like {text}, with:\n{attributes}Go.")
    assert read(made.prefix(None)) == "<s><s>U:Like "
    assert read(made.record("one", None, "Stars: 2\n")) == "Stars: 2\none"
    assert read(made.start(None, "Stars: 1\n")) == ", with:\nStars: 1\nGo.</s>A:"
    plain = with_attributes(form="chat", chat="Like {text}.")
    assert read(plain.start(None, "Stars: 1\n")) == ".\nThe attributes of the new text:\nStars: 1\n</s>A:"


@pytest.mark.parametrize(
    ("labels", "prompt", "stop"),
    [
        ((), {}, "\nStars:"),
        (("x", "y"), {}, "\nLabel:"),
        ((), {"examples": [{"text": "one line"}]}, "\n"),
        ((), {"example": "> {text}\n###\n{attributes}"}, "\n###"),
        ((), {"example": "> {text}{attributes}"}, None),
        ((), {"form": "chat"}, None),
    ],
)
def test_a_text_ends_where_the_attributes_of_another_entry_begin(labels, prompt, stop):
    config = SynthesisConfig(labels=labels, label_column="kind" if labels else None, columns=STARS, prompt=prompt)
    assert config.stop == Templates(config).stop == stop


def test_a_model_behind_an_endpoint_reads_the_attributes_that_a_local_one_does():
    examples = [{"text": "E", "attributes": {"stars": 4, "name": "Ann"}}]
    made = with_attributes(examples=examples)
    lines = {"G": "Stars: 1\n"}
    local = read([*made.prefix(None, ["G"], lines=lines), *made.start(None, "Stars: 2\n")])
    assert local == "<s>" + made.public_prompt(None, ["G"], attributes="Stars: 2\n", lines=lines)
    assert local.endswith("Stars: 3 to 5\nName: Ann\nText: E\n\nStars: 1\nText: G\n\nStars: 2\nText:")
    chat = Templates(made._config, PromptForm.CHAT).public_prompt(None, ["G"], attributes="Stars: 2\n", lines=lines)
    assert "\n\nStars: 1\nG\n\n" in chat
    assert chat.endswith("\nThe attributes of the new text:\nStars: 2\n")
    alone = Templates(with_attributes()._config, PromptForm.CHAT).public_prompt(None, attributes="Stars: 2\n")
    assert alone.endswith("Answer with the text only.\nThe attributes of the new text:\nStars: 2\n")


def test_released_texts_are_shown_as_far_as_there_is_room_for_them_and_their_attributes():
    config = SynthesisConfig(max_record_tokens=12, max_tokens=9, columns=STARS, released_examples=3)
    room = Prompts(config, Letters(context_length=2_000)).longest
    made = Prompts(config, Letters(context_length=room))
    # an attribute is planned to take 24 tokens, and a released one may be longer
    shown = made.prefix(None, list("abc"), lines={text: f"Name: {text * 150}\n" for text in "abc"})
    assert "aaa" in read(shown)
    assert "ccc" not in read(shown)
    for tokens in (shown, made.prefix(None, list("abc"), lines=dict.fromkeys("abc", f"Name: {'x' * 5_000}\n"))):
        longest = made.records(["y" * 50], None, [f"Name: {'z' * 200}\n"])
        assert len(tokens) + len(longest) + len(made.start(None, "Name: zz\n")) + config.max_tokens <= room
