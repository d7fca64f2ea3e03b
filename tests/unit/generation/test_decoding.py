"""The token loop: many batches side by side, each place once (guarantee 4)."""

import dataclasses
import re
import weakref

import numpy as np
import pytest
from strategies import settings

from plainchant.errors import RunError
from plainchant.generation.decoding import BatchWork, Bias, Decoder, StopRule
from plainchant.models.table import TableModel
from plainchant.privacy.aggregation import Clipping, Support, median_box, support_indices
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.privacy.mechanisms import MeanMechanism, PublicMechanism
from plainchant.privacy.sparse_vector import SparseMeanMechanism
from plainchant.randomness import SeededRandomness

WORDS = ("<eos>", "a", "b", "\n", "c\n", "<pad>", "S")
FLAT = np.zeros(len(WORDS))
RULE = StopRule("\n", 6, 2)


def model(table=lambda _: FLAT):
    made = TableModel(WORDS, table, end_of_text={0})
    made.special = frozenset({0, 5})
    return made


def wants(*tokens):
    """A table that wants one token after another, counted from the start token S."""

    def table(row):
        logits = np.full(len(WORDS), -60.0)
        logits[tokens[min(len(row) - 1 - row.index(6), len(tokens) - 1)]] = 0
        return logits

    return table


def work(batch=0, positions=(0,), records=((1,), (2,))):
    return BatchWork(batch, (1,), (6,), records, positions)


def decode(works, table=lambda _: FLAT, rule=RULE, rows=8, mechanism=None, seed=0):
    mechanism = mechanism or PublicMechanism(settings(batch_size=2))
    decoder = Decoder(model(table), mechanism, rule, rows=rows, randomness=SeededRandomness(seed))
    return list(decoder.run(works)), decoder


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("mechanism", [MeanMechanism, PublicMechanism])
def test_many_batches_side_by_side_give_each_position_once(rows, mechanism):
    works = [work(batch, range(batch % 4), [(1,)] * (batch % 3)) for batch in range(15)]
    texts, decoder = decode(works, rows=rows, mechanism=mechanism(settings(batch_size=2)))
    places = [(text.batch, text.position) for text in texts]
    assert sorted(places) == [(batch, position) for batch in range(15) for position in range(batch % 4)]
    assert decoder.steps == sum(text.tokens for text in texts)


def test_what_a_models_exception_says_is_not_passed_on():
    def fails(row):
        raise LookupError(f"cannot read {row}, a secret")

    with pytest.raises(
        RunError, match=r"the language model failed with LookupError \(test_decoding\.py, line \d+\)"
    ) as caught:
        decode([work()], fails)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("least", [0, 1, 3, 5])
def test_no_text_ends_before_min_tokens(least):
    texts, _ = decode([work(positions=range(200))], rule=StopRule("\n", 6, least))
    lengths = {text.tokens for text in texts}
    assert min(lengths) == least + 1
    assert max(lengths) <= 6
    assert {text.finish for text in texts} >= ({"end", "stop"} if least < 5 else {"end"})


def test_a_text_ends_at_end_of_text_stop_string_or_length():
    found = {}
    for name, tokens in (("end", (1, 2, 0)), ("stop", (1, 2, 4)), ("length", (1, 2, 1))):
        (text,), _ = decode([work()], wants(*tokens))
        assert text.finish == name
        found[name] = (text.text, text.tokens)
    assert found == {"end": ("ab", 3), "stop": ("abc", 3), "length": ("ab" + "a" * 4, 6)}


def test_without_a_stop_string_line_breaks_are_text():
    (text,), _ = decode([work()], wants(1, 2, 3, 2, 0), rule=StopRule(None, 6, 0))
    assert (text.text, text.finish) == ("ab\nb", "end")


def test_special_ids_other_than_end_of_text_are_never_released():
    steps = []
    mechanism = PublicMechanism(settings(batch_size=2))
    decoder = Decoder(model(), mechanism, StopRule("\n", 6, 2), rows=8, randomness=SeededRandomness(0))
    distribution = type(mechanism).distribution
    assert len(list(decoder.run([work()]))) == 1
    for allowed in (decoder._allowed, decoder._allowed_early):
        steps.append(distribution(mechanism, None, FLAT.astype(np.float32), allowed).support.tolist())
    # early ones cannot end a text: neither end of text nor a token with the stop string in it
    assert steps == [[0, 1, 2, 3, 4, 6], [1, 2, 6]]


def of_records(row):
    """A table in which records want `a` and everything else wants `b`."""
    logits = FLAT.copy()
    logits[1 if 2 in row[: row.index(6)] else 2] = 30
    return logits


HEADS = [
    MeanMechanism(settings(batch_size=2, clip=30.0)),
    # without the public row in its logits, a tail still needs it
    MeanMechanism(settings(batch_size=2, clip=30.0, clipping=Clipping.LOGITS)),
    IndividualMeanMechanism(settings(batch_size=2, clip=30.0), 1e6, 12),
]


@pytest.mark.parametrize("mechanism", HEADS)
@pytest.mark.parametrize("head", [1, 3, 6])
def test_the_tail_of_a_text_is_free_and_asks_no_record(mechanism, head):
    asked = []

    def table(row):
        if 2 in row[: row.index(6)]:
            asked.append(len(row))
        return of_records(row)

    decoder = Decoder(
        model(table), mechanism, StopRule(None, 6, 6), rows=8, randomness=SeededRandomness(0), private_tokens=head
    )
    (first, second) = decoder.run([work(positions=(0, 1), records=[(2,), (2,), (2,)])])
    assert (first.text, second.text) == ("a" * head + "b" * (6 - head),) * 2
    # three records, two texts, and one pass for each token of a head
    assert len(asked) == 3 * 2 * head
    if isinstance(mechanism, IndividualMeanMechanism):
        assert max(second.spent) == pytest.approx(2 * max(first.spent))
        steps, _ = decode([work(records=[(2,)] * 3)], of_records, StopRule(None, head, 6), mechanism=mechanism)
        assert first.spent == pytest.approx(steps[0].spent)
    else:
        assert first.rho == pytest.approx(head * mechanism.worst_case)


def test_a_tail_has_the_public_models_distribution_whatever_the_records_say():
    def table(row):
        logits = np.full(len(WORDS), -60.0)
        logits[[1, 2]] = (9, 0) if 2 in row[: row.index(6)] else (0, 0)
        return logits

    mean = MeanMechanism(settings(batch_size=2, clip=3.0))

    def tails(records):
        decoder = Decoder(
            model(table), mean, StopRule(None, 6, 6), rows=8, randomness=SeededRandomness(5), private_tokens=1
        )
        return [text.text[1:] for text in decoder.run([work(positions=range(400), records=records)])]

    # each of 2,000 tokens is a or b as the public model has it: five standard deviations
    for records in ([(2,)] * 2, [(1,)] * 2, []):
        assert abs("".join(tails(records)).count("a") / 2000 - 0.5) < 0.056
    heads = decode([work(positions=range(400), records=[(2,)] * 2)], table, StopRule(None, 1, 1), mechanism=mean)[0]
    assert sum(text.text == "a" for text in heads) > 350


def test_every_text_of_a_batch_begins_anew():
    seen = []

    def table(row):
        seen.append(row)
        return FLAT

    decode([work(positions=range(5), records=[(2, 2)])], table, mechanism=MeanMechanism(settings(batch_size=2)))
    assert seen.count((1, 2, 2, 6)) == 5


def test_only_missing_positions_are_written():
    texts, _ = decode([work(3, (1, 4)), work(5, ()), work(6, (0,))])
    assert sorted((text.batch, text.position) for text in texts) == [(3, 1), (3, 4), (6, 0)]


def test_a_bias_moves_public_logits_of_its_own_work_alone():
    bias = Bias(np.array([2]), np.array([40.0], dtype=np.float32))
    works = [work(batch, range(3)) for batch in range(6)]
    works = [dataclasses.replace(own, bias=bias if own.batch % 2 else None) for own in works]
    logits = np.zeros(len(WORDS), dtype=np.float32)
    texts, _ = decode(works, table=lambda _: logits)
    # what a model hands out stays as it is
    assert not logits.any()
    own = [text.text for text in texts if text.batch % 2]
    assert {text[0] for text in own} == {"b"}
    # what is there already is made no likelier
    assert len(set(own)) > 3
    assert "bbbbbb" not in own
    assert len({text.text[0] for text in texts if not text.batch % 2}) > 1
    moved = Bias(np.array([1, 2]), np.array([4.0, -4.0], dtype=np.float32)).on(logits[:4], [2, 1])
    assert moved.tolist() == [0, 0, -4, 0]
    # the support follows: one token is left of those that are ranked highest
    mechanism = PublicMechanism(settings(batch_size=2, support=Support.TOP_K, k=1))
    lowered = Bias(np.array([1]), np.array([-1.0], dtype=np.float32))
    first, _ = decode([dataclasses.replace(work(), bias=None)], mechanism=mechanism, rule=StopRule(None, 3, 3))
    second, _ = decode([dataclasses.replace(work(), bias=lowered)], mechanism=mechanism, rule=StopRule(None, 3, 3))
    assert [first[0].text, second[0].text] == ["aaa", "bbb"]


def test_an_empty_batch_writes_like_any_other():
    texts, _ = decode([work(records=())], mechanism=MeanMechanism(settings(batch_size=2)))
    assert texts[0].tokens > 2
    assert texts[0].rho > 0


def test_costs_are_summed_over_a_texts_own_tokens():
    mechanism = MeanMechanism(settings(batch_size=2))
    texts, _ = decode([work(positions=range(4)), work(1, range(4))], mechanism=mechanism)
    for text in texts:
        assert text.rho == pytest.approx(text.tokens * mechanism.cost_of(1).rho)
        assert text.loss > 0
    assert all((text.loss, text.rho) == (0, 0) for text in decode([work(positions=range(4))])[0])


def test_how_many_batches_share_a_pass_is_decided_by_the_public_size():
    for contexts in (0, 1, 50):
        spy, groups = model(), []
        real = spy.step
        spy.step = lambda asked, *rest, real=real, groups=groups: (groups.append(len(asked)), real(asked, *rest))[1]
        mechanism = MeanMechanism(settings(batch_size=2))
        decoder = Decoder(spy, mechanism, StopRule("\n", 3, 2), rows=6, randomness=SeededRandomness(0))
        list(decoder.run(work(batch, records=[(1,)] * contexts) for batch in range(9)))
        assert max(groups) == 3


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_public_rows_of_several_private_passes_share_one(passes):
    spy, groups = model(), []
    real = spy.step

    def step(asked, supports=None):
        groups.append((len(asked), supports is not None))
        return real(asked, supports)

    spy.step = step
    mechanism = MeanMechanism(dataclasses.replace(settings(batch_size=2), support=Support.TOP_K, k=3))
    decoder = Decoder(
        spy, mechanism, StopRule(None, 3, 2), rows=6, passes=passes, randomness=SeededRandomness(0)
    )  # fmt: skip
    texts = list(decoder.run(work(batch) for batch in range(12)))
    assert sorted(text.batch for text in texts) == list(range(12))
    first = groups[: 1 + passes]
    assert first == [(3 * passes, False), *[(3, True)] * passes]


def test_records_do_not_show_in_a_repr():
    assert "77" not in repr(work(records=[(77, 77)]))


def sparse(threshold, noise=1e-3, private_tokens=3):
    return SparseMeanMechanism(settings(batch_size=2, clip=9.0), threshold, noise, private_tokens, 6)


def by_record(row):
    """The public row wants "a", a row with the record 2 wants "b"; nothing ever ends."""
    logits = np.full(len(WORDS), -60.0)
    logits[2 if 2 in row[: row.index(6)] else 1] = 0
    return logits


def test_a_sparse_vector_leaves_to_the_public_model_what_it_predicts():
    mechanism = sparse(0.5)
    texts, _ = decode([work(records=[(3,), (3,)], positions=range(4))], by_record, mechanism=mechanism)
    for text in texts:
        assert text.text == "aaaaaa"
        assert text.rho == pytest.approx(mechanism.rho_per_instance)
        assert text.loss == pytest.approx(mechanism.epsilon_per_instance)


def test_a_sparse_vector_stops_asking_the_records_when_its_tokens_are_used():
    mechanism = sparse(0.5)
    texts, _ = decode([work(records=[(2,), (2,)], positions=range(4))], by_record, mechanism=mechanism)
    for text in texts:
        assert text.text == "bbbaaa"
        assert text.rho == pytest.approx(mechanism.rho_per_text)


def test_a_sparse_vector_is_new_in_every_text():
    mechanism = sparse(1.0, noise=0.5, private_tokens=2)
    texts, _ = decode([work(records=[(2,), (3,)], positions=range(60))], by_record, mechanism=mechanism)
    assert {text.text for text in texts} >= {"aaaaaa"}
    assert len({text.text for text in texts}) > 4
    assert max(text.rho for text in texts) <= mechanism.rho_per_text * (1 + 1e-12)
    for text in texts:
        assert text.text.count("b") <= 2


@pytest.mark.parametrize("together", [1, 3])
def test_a_batch_that_is_done_gives_its_rows_back_before_another_one_opens(together):
    made, alive, most = model(), weakref.WeakSet(), []
    plain = made.open_rows

    def open_rows(*arguments, **options):
        most.append(len(alive))
        rows = plain(*arguments, **options)
        alive.add(rows)
        return rows

    made.open_rows = open_rows
    mechanism = MeanMechanism(settings(batch_size=2))
    decoder = Decoder(made, mechanism, RULE, rows=2 * together, randomness=SeededRandomness(0))
    assert len(list(decoder.run([work(batch) for batch in range(12)]))) == 12
    # when the next one opens, the others of its pass are there and no more
    assert max(most) == together - 1


def test_a_support_is_that_of_a_stable_sort():
    chance = np.random.default_rng(0)
    for _ in range(300):
        count = int(chance.choice([20, 60, 600]))
        # rounded, so that many are equal
        public = np.round(chance.normal(size=count), 1).astype(np.float32)
        allowed = np.sort(chance.choice(count, int(chance.integers(1, count + 1)), replace=False))
        k = int(chance.integers(1, min(count, 100) + 2))
        order = allowed[np.argsort(-public[allowed], kind="stable")][:k]
        top, plus = (
            support_indices(support, public, allowed, k=k, margin=0.25)
            for support in (Support.TOP_K, Support.TOP_K_PLUS)
        )
        assert top.tolist() == sorted(order)
        assert plus.tolist() == [token for token in allowed if public[token] >= public[order[-1]] - 0.25]


def test_the_middle_values_of_a_batch_are_those_of_a_sort():
    chance = np.random.default_rng(0)
    for count in [*range(3, 40), 63, 64, 65, 100]:
        # zeros and ones decide for all values what comparisons in a fixed order do (Knuth 5.3.4, the 0-1 principle)
        bits = np.arange(2**count)[None] >> np.arange(count)[:, None] & 1 if count < 14 else None
        rows = (chance.integers(0, 5, (count, 9_000)) if bits is None else bits).astype(np.float32)
        ordered, half = np.sort(rows, axis=0), count // 2
        ends = (half - 1, half + 1) if count % 2 else (half - 1, half)
        middles = [(ordered[end] + ordered[half]) / 2 if count % 2 else ordered[end] for end in ends]
        found = median_box(rows, 10.0, rows[0])
        assert np.array_equal(found.median, np.median(rows, axis=0))
        assert np.array_equal(found.low, middles[0])
        assert np.array_equal(found.high, middles[1])


def test_an_observer_is_told_what_each_step_took_and_changes_nothing():
    told = []
    mechanism = MeanMechanism(settings(batch_size=2))
    works = [work(0, range(2)), work(1, records=[(1,), (2,), (1, 2)])]

    def texts(observer):
        decoder = Decoder(model(), mechanism, RULE, rows=8, randomness=SeededRandomness(3), observer=observer)
        return list(decoder.run(works)), decoder.steps

    found, steps = texts(told.append)
    assert (found, steps) == texts(None)
    assert sum(timing.batches for timing in told) == steps
    assert {(timing.batches, timing.rows) for timing in told} <= {(2, 5), (1, 2), (1, 3)}
    for timing in told:
        assert min(timing.public_pass, timing.private_pass, timing.rest) > 0
        assert timing.seconds == timing.public_pass + timing.private_pass + timing.rest


def test_an_observers_seconds_are_those_of_the_passes(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("plainchant.generation.decoding.time.perf_counter", lambda: clock[0])
    slow = model()
    step = slow.step

    def timed(groups, supports=None):
        clock[0] += 5.0 if supports is None else 3.0
        return step(groups, supports)

    slow.step = timed
    told = []
    mechanism = MeanMechanism(settings(batch_size=2, support=Support.TOP_K, clipping=Clipping.DIFFERENCE))
    decoder = Decoder(slow, mechanism, RULE, rows=8, randomness=SeededRandomness(3), observer=told.append)
    list(decoder.run([work()]))
    assert {(timing.public_pass, timing.private_pass, timing.rest) for timing in told} == {(5.0, 3.0, 0.0)}


def test_texts_of_a_batch_may_begin_differently_and_payments_go_on():
    """Column "a" is likely after S a, and "b" after S b; a record moves both."""

    def table(row):
        logits = np.full(len(WORDS), -9.0)
        logits[[1, 2]] = np.array([1, -1]) * (row.count(1) - row.count(2))
        return logits

    mechanism = IndividualMeanMechanism(settings(batch_size=2, clipping=Clipping.DIFFERENCE), 0.5, 0, 1.0).for_steps(24)
    starts = ((6, 1, 1, 1), (6, 2, 2, 2, 2), (6, 1, 1, 1))
    works = [BatchWork(0, (1,), starts[0], ((1,), (2,)), (0, 1, 2), starts=starts), work(1, (0, 1))]
    texts, _ = decode(works, table, rule=StopRule("\n", 4, 4 - 1), mechanism=mechanism)
    own = sorted((text for text in texts if text.batch == 0), key=lambda text: text.position)
    assert [text.position for text in own] == [0, 1, 2]
    counts = [text.text.count("a") - text.text.count("b") for text in own]
    assert counts[0] > 0 > counts[1]
    assert counts[2] > 0
    paid = np.array([text.spent for text in own])
    assert (np.diff(paid, axis=0) > 0).all()
    assert (paid <= 0.5).all()
    assert sorted(text.position for text in texts if text.batch == 1) == [0, 1]


def test_a_batch_of_a_deal_pays_for_its_text_from_its_own_payment():
    mechanism = IndividualMeanMechanism(settings(batch_size=2, clipping=Clipping.DIFFERENCE, clip=2.5), 9.0, 6)

    def table(row):
        # whoever holds record 1 wants it
        return np.array([0, 9.0 * (row[1] == 1), 0, 0, 0, 0, 0])

    def paid(payment):
        own = BatchWork(0, (1,), (6,), ((1,), (2,)), (0,), payment=payment)
        (text,), _ = decode([own], table, RULE, mechanism=mechanism)
        return max(text.spent)

    assert paid(None) > 0.5
    for payment in (0.02, 0.1):
        assert 0.5 * payment < paid(payment) <= payment


# "###" is one token, or built from shorter ones; the stop is a line that begins with it.
MARKED = ("<eos>", "a", " b", "\n", "#", "##", "###", "\n\n", "a\n###", "S")
MARK = "\n###"


def marked(wanted, least=0, most=12, mechanism=None, records=((1,), (2,)), positions=(0,)):
    """Decodes with a model that wants one token after another, counted from the start token S."""

    def table(row):
        logits = np.full(len(MARKED), -60.0)
        logits[wanted[min(len(row) - 1 - row.index(9), len(wanted) - 1)]] = 0
        return logits

    made = TableModel(MARKED, table if wanted else lambda _: np.zeros(len(MARKED)), end_of_text={0})
    mechanism = mechanism or PublicMechanism(settings(batch_size=2))
    decoder = Decoder(made, mechanism, StopRule(MARK, most, least), rows=8, randomness=SeededRandomness(0))
    return list(decoder.run([BatchWork(0, (1,), (9,), records, positions)]))


@pytest.mark.parametrize(
    "mark", [(3, 6), (3, 4, 4, 4), (3, 5, 4), (3, 4, 5), (7, 6), (7, 5, 5), (3, 3, 6)], ids=lambda ids: str(ids)
)
def test_a_mark_of_several_tokens_ends_a_text_and_its_line_breaks_stay(mark):
    (text,) = marked((1, 7, 2, 3, 1, *mark, 1, 1))
    assert (text.text, text.finish, text.tokens) == ("a\n\n b\na", "stop", 5 + len(mark))


def test_a_mark_within_one_token_ends_a_text():
    (text,) = marked((1, 3, 8, 1))
    assert (text.text, text.finish, text.tokens) == ("a\na", "stop", 3)


def test_a_mark_inside_a_line_is_text():
    (text,) = marked((1, 6, 3, 5, 2, 0))
    assert (text.text, text.finish) == ("a###\n## b", "end")


@pytest.mark.parametrize("least", [1, 2, 3, 5])
def test_no_tokens_together_complete_a_mark_before_min_tokens(least):
    texts = marked((), least, most=8, positions=range(400))
    assert min(text.tokens for text in texts) == least + 1
    assert {text.finish for text in texts} == {"end", "stop", "length"}
    for text in texts:
        # what is released holds no mark, neither inside nor at its start
        assert MARK not in "\n" + text.text


def test_an_end_of_text_right_behind_a_mark_releases_none_of_it():
    # (guarantee 4.6) the mark is found wherever it was completed
    assert marked((1, 3, 6, 0))[0].text == "a"


def test_a_text_that_is_cut_off_within_a_mark_holds_none_of_it():
    (text,) = marked((1, 3, 1, 3, 5, 1), most=5)
    assert (text.text, text.finish) == ("a\na", "length")
    # elsewhere the same signs are text
    (text,) = marked((1, 3, 1, 5, 1, 1), most=4)
    assert (text.text, text.finish) == ("a\na##", "length")


def test_a_mark_at_the_start_leaves_an_empty_text():
    assert [text.text for text in marked((4, 5, 1))] == [""]


def follows(decoder, tokens):
    return [MARKED[token] for token in decoder._releasable_next(tokens)]


def test_what_may_follow_is_a_function_of_the_released_tokens():
    """(guarantee 4.6) Whatever the rows of private records are, the same tokens may follow the same tokens."""
    made = TableModel(MARKED, lambda _: np.zeros(len(MARKED)), end_of_text={0})
    for mechanism in (MeanMechanism, PublicMechanism):
        decoder = Decoder(
            made, mechanism(settings(batch_size=2)), StopRule(MARK, 9, 3), rows=8, randomness=SeededRandomness(0)
        )
        assert follows(decoder, [1]) == ["a", " b", "\n", "#", "##", "###", "\n\n", "S"]
        assert follows(decoder, [1, 3]) == follows(decoder, []) == ["a", " b", "\n", "#", "##", "\n\n", "S"]
        assert follows(decoder, [3, 4]) == ["a", " b", "\n", "#", "\n\n", "S"]
        assert follows(decoder, [3, 5]) == ["a", " b", "\n", "\n\n", "S"]
        # enough tokens: anything may follow
        assert follows(decoder, [1, 3, 5]) == list(MARKED)


def expected_ends(stream, texts, least, most):
    """Where texts end, from the released tokens alone, by the words of guarantee 4.6."""
    found, tokens = [], []
    while len(found) < texts:
        tokens.append(next(stream))
        # a text begins at the start of a line
        text = "\n" + "".join(MARKED[token] for token in tokens if token)
        shown = text.split(MARK)[0].strip()
        if tokens[-1] == 0:
            found.append((shown, len(tokens), "end"))
        elif MARK in text and len(tokens) > least:
            found.append((shown, len(tokens), "stop"))
        elif len(tokens) == most:
            # cut off within a mark
            found.append((re.sub(r"\n#{0,2}\Z", "", text).strip(), len(tokens), "length"))
        else:
            continue
        tokens = []
    return found


@pytest.mark.parametrize("records", [(), ((0,),), ((3, 6), (6, 6)), ((1,),) * 7], ids=len)
def test_ends_of_texts_are_a_function_of_released_tokens(monkeypatch, records):
    """(guarantee 4.6) Private rows change, the released tokens do not: neither do the ends and the texts."""
    stream = np.random.default_rng(4).choice([0, 1, 3, 3, 3, 4, 4, 5, 6, 7, 8], 4_000).tolist()
    drawn = iter(stream)
    monkeypatch.setattr("plainchant.privacy.mechanisms.sample", lambda scores, _: next(drawn))
    made = TableModel(MARKED, lambda row: np.eye(len(MARKED))[row[1] % 9] * len(row), end_of_text={0})
    mechanism = MeanMechanism(settings(batch_size=2, support=Support.FULL))
    decoder = Decoder(made, mechanism, StopRule(MARK, 7, 0), rows=8, randomness=SeededRandomness(len(records)))
    texts = decoder.run([BatchWork(0, (1,), (9,), records, range(500))])
    assert [(text.text, text.tokens, text.finish) for text in texts] == expected_ends(iter(stream), 500, 0, 7)


def test_what_is_left_of_a_batch_begins_as_its_next_text_does():
    whole = BatchWork(0, (1,), (10, 0), ((1,), (2,)), (0, 1, 2), starts=((10, 0), (11, 0), (12, 0)))
    paid = np.array([0.1, 0.2])
    left = whole.only([1, 2], paid)
    assert (left.positions, left.start, left.starts) == ((1, 2), (11, 0), ((11, 0), (12, 0)))
    assert left.spent is paid
    # the same once more, from what is left
    last = left.only([2], None)
    assert (last.positions, last.start, last.starts) == ((2,), (12, 0), ((12, 0),))
    alike = work(1, (0, 1, 2)).only([2], None)
    assert (alike.positions, alike.start, alike.starts) == ((2,), (6,), ())
