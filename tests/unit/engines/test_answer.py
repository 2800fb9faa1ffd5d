import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderay.config.policy import Policy
from moderay.engines import checkpoint
from moderay.engines.harmony.answer import label_openings, parse
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.scripted import Script, ScriptedAnswer, ScriptedEngine, ScriptedSpec

VOCAB = vocabulary(str(checkpoint.TINY_FOLDER))
JSON = Policy(
    id="p",
    text="x",
    labels={"SP0": {"violates": False}, "SP2": {"violates": True}, "SP24": {"violates": True}},
)
BARE = JSON.model_copy(update={"answer": "label"})
SCRIPTED = ScriptedEngine(ScriptedSpec(Script()))


def ids(text: str) -> list[int]:
    """Tokens of an output in which control tokens are spelled."""
    return SCRIPTED._rendered(ScriptedAnswer(output=text))


THOUGHT = "<|channel|>analysis<|message|>It sells SP2.<|end|><|start|>assistant"
GOOD = '{"label": "SP2", "rationale": "It sells."}'


def test_well_formed_answers_are_read() -> None:
    answer = parse(ids(f"{THOUGHT}<|channel|>final<|message|>{GOOD}<|return|>"), JSON, VOCAB)
    assert answer is not None
    assert (answer.label, answer.rationale, answer.reasoning) == (
        "SP2",
        "It sells.",
        "It sells SP2.",
    )
    assert (
        parse(
            ids(f"{THOUGHT}<|channel|>final <|constrain|>json<|message|>{GOOD}<|return|>"),
            JSON,
            VOCAB,
        )
        is not None
    )
    bare = parse(ids(f"{THOUGHT}<|channel|>final<|message|>SP24<|return|>"), BARE, VOCAB)
    assert bare is not None and (bare.label, bare.rationale) == ("SP24", None)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "SP2",
        GOOD,
        "<|channel|>analysis<|message|>It sells SP2 and the label is SP2",
        "<|channel|>analysis<|message|>done<|end|>",
        "<|channel|>final",
        f"<|channel|>final<|message|>{GOOD}",
        f"{THOUGHT}<|channel|>final<|message|>{GOOD}<|end|>",
        f"{THOUGHT}<|channel|>final<|message|>{GOOD}<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}<|return|>",
        f"{THOUGHT}<|channel|>commentary<|message|>{GOOD}<|return|>",
        f"{THOUGHT}<|channel|>final<|message|>SP2<|return|>",
        f'{THOUGHT}<|channel|>final<|message|>{{"label": "SP3", "rationale": "x"}}<|return|>',
        f"{THOUGHT}<|channel|>final<|message|>"
        '{"label": "SP0", "label": "SP2", "rationale": "x"}<|return|>',
        f'{THOUGHT}<|channel|>final<|message|>{{"label": "SP0"}}<|return|>',
        f"{THOUGHT}<|channel|>final<|message|>[1]<|return|>",
        f"{THOUGHT}<|channel|>final<|message|>{GOOD} {GOOD}<|return|>",
        f"{THOUGHT}<|channel|>final<|message|>{GOOD}<|return|>more",
        f"<|channel|>analysis<|message|>a<|end|><|start|>user<|channel|>final<|message|>{GOOD}<|return|>",
    ],
)
def test_damaged_outputs_have_no_answer(output: str) -> None:
    assert parse(ids(output), JSON, VOCAB) is None


@given(
    st.lists(
        st.one_of(st.integers(0, 1023), st.sampled_from(sorted(VOCAB.control.values()))),
        max_size=40,
    ),
    st.booleans(),
)
@settings(max_examples=2000, deadline=None)
def test_random_tokens_never_raise_and_never_give_a_label_that_is_not_allowed(
    tokens: list[int], bare: bool
) -> None:
    policy = BARE if bare else JSON
    answer = parse(tokens, policy, VOCAB)
    assert answer is None or answer.label in policy.labels


def spelled(tokens: list[int]) -> str:
    names = {token: name for name, token in VOCAB.control.items()}
    return "".join(names.get(token) or VOCAB.decode([token]) for token in tokens)


CHANNEL_OF = r"<\|channel\|>\s*{}\s*<\|message\|>"
WHOLE = re.compile(
    rf"(?:{CHANNEL_OF.format('analysis')}[^<]*<\|end\|><\|start\|>assistant)*"
    r"<\|channel\|>\s*final\s*(?:<\|constrain\|>[^<]*)?<\|message\|>([^<]*)<\|return\|>"
)


def valid(text: str, policy: Policy) -> bool:
    """The grammar of an output, written down a second time: as one pattern over its spelling."""
    match = WHOLE.fullmatch(text)
    if match is None:
        return False
    if policy.answer == "label":
        return match[1].strip() in policy.labels
    try:
        pairs = json.loads(match[1], object_pairs_hook=list)
    except ValueError:
        return False
    if (
        not isinstance(pairs, list)
        or not all(isinstance(pair, tuple) for pair in pairs)
        or len(dict(pairs)) < len(pairs)
    ):
        return False
    return dict(pairs).get("label") in policy.labels and isinstance(
        dict(pairs).get("rationale"), str
    )


def test_a_hundred_thousand_damaged_and_random_outputs_are_read_exactly_where_they_are_valid() -> (
    None
):
    rng = random.Random(0)
    # Nothing in it spells a control token, so that the pattern sees the same borders as the ids
    # have.
    alphabet = [
        *VOCAB.control.values(),
        *{
            token
            for word in ("analysis", "final", "assistant", GOOD, "SP24 SP0 \n{}[]")
            for token in ids(word)
        },
    ]
    good = [
        ids(f"{thought}<|channel|>final{json_}<|message|>{body}<|return|>")
        for thought in ("", THOUGHT)
        for json_ in ("", " <|constrain|>json")
        for body in (GOOD, " SP24")
    ]
    read = 0
    for _ in range(100_000):
        tokens = (
            list(rng.choice(good))
            if rng.random() < 0.8
            else rng.choices(alphabet, k=rng.randrange(40))
        )
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            at, kind = rng.randrange(len(tokens) + 1), rng.randrange(4)
            if kind == 0:
                del tokens[at : at + rng.randrange(1, 4)]
            elif kind == 1:
                tokens.insert(at, rng.choice(alphabet))
            elif kind == 2:
                tokens[at:at] = tokens[: rng.randrange(len(tokens) + 1)]
            elif tokens:
                tokens[at % len(tokens)] = rng.choice(alphabet)
        policy = rng.choice((JSON, BARE))
        answer = parse(tokens, policy, VOCAB)
        assert (answer is not None) == valid(spelled(tokens), policy), spelled(tokens)
        read += answer is not None
    assert 10_000 < read < 60_000, read


def test_label_openings_are_never_a_prefix_of_each_other() -> None:
    for policy in (JSON, BARE):
        openings = list(label_openings(policy, VOCAB).values())
        assert all(a == b or a[: len(b)] != b for a in openings for b in openings)
