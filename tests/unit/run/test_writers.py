"""Writers of texts that no record contributes to."""

from plainchant.config import Example, SynthesisConfig
from plainchant.models.table import TableModel
from plainchant.planning import make_plan
from plainchant.run.writers import Loaded, LocalWriter, Request

TOKENS = ["<end>", *"abcdefghijklmnopqrstuvwxyz :,.\nDELT"]


class Reading(TableModel):
    """Notes which prefixes are read, and what each row then reads of its own."""

    def __init__(self):
        super().__init__(TOKENS, lambda row: [float(len(row) % 5 == place % 5) for place in range(len(TOKENS))],
                         end_of_text={0})  # fmt: skip
        self.prefixes, self.rows = [], []

    def prefill(self, prefix):
        self.prefixes.append(self.decode(prefix))
        return super().prefill(prefix)

    def open_rows(self, prefix, suffixes, *, room):
        self.rows += [self.decode([*prefix, *suffix]) for suffix in suffixes]
        return super().open_rows(prefix, suffixes, room=room)


def test_what_many_prompts_share_is_read_once_and_every_row_reads_its_whole_prompt():
    examples = [Example(text=f"example {word}", label="x") for word in ("one", "two", "three")]
    config = SynthesisConfig(
        labels=("x", "y"), label_column="label", max_tokens=6, prompt={"examples": tuple(examples)}
    )
    model = Reading()
    writer = LocalWriter(Loaded.of(model, config), make_plan(config).settings, 3)
    prompts = writer.loaded.prompts
    requests = [
        Request((cell, place), label, (f"a text of {word}", f"and {word} again"), warmth, turn)
        for cell, label in enumerate(("x", "y", "x"))
        for place, (word, turn) in enumerate((word, turn) for word in ("mice", "cats", "dogs") for turn in range(2))
        for warmth in (1.0 + 0.3 * (place % 2),)
    ]
    found = list(writer.write(requests))
    assert sorted((text.batch, text.position) for text in found) == sorted(request.place for request in requests)
    # once for each temperature, label and turn, not for each text or cell
    shared = {(one.warmth, model.decode(prompts.prefix(one.label, (), one.turn))) for one in requests}
    assert sorted(model.prefixes) == sorted(prefix for _, prefix in shared)
    assert len(shared) < len(requests) / 2
    asked = [
        model.decode([*prompts.prefix(one.label, one.shown, one.turn), *prompts.start(one.label)]) for one in requests
    ]
    # the last token of a prompt is read by the first step
    assert sorted(model.rows) == sorted(prompt[:-1] for prompt in asked)


def test_a_prompt_of_many_texts_is_read_a_few_times_and_each_of_them_is_drawn():
    config = SynthesisConfig(labels=("x", "y"), label_column="label", max_tokens=6)
    model = Reading()
    writer = LocalWriter(Loaded.of(model, config), make_plan(config).settings, 3)
    requests = [
        Request((cell, place), label, ("a text of mice",)) for cell, label in enumerate("xy") for place in range(60)
    ]
    found = list(writer.write(requests))
    assert sorted((text.batch, text.position) for text in found) == [request.place for request in requests]
    # ten texts for each reading leave more than enough side by side for three rows
    assert len(model.rows) == 2 * 60 / 10
    assert len({text.text for text in found}) > 20
