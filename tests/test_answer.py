import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderay import tiny
from moderay.answer import label_openings, parse
from moderay.engines import ScriptedSpec
from moderay.engines.scripted import Rule, Script, ScriptedEngine
from moderay.policy import Policy
from moderay.prompt import vocabulary

VOCAB = vocabulary(str(tiny.FOLDER))
JSON = Policy(id="p", text="x", labels={"SP0": {"violates": False}, "SP2": {"violates": True}, "SP24": {"violates": True}})
BARE = JSON.model_copy(update={"answer": "label"})
SCRIPTED = ScriptedEngine(ScriptedSpec(Script()))


def ids(text: str) -> list[int]:
    """Tokens of an output in which control tokens are spelled."""
    return SCRIPTED._rendered(Rule(output=text))


THOUGHT = "<|channel|>analysis<|message|>It sells SP2.<|end|><|start|>assistant"
GOOD = '{"label": "SP2", "rationale": "It sells."}'


def test_well_formed_answers_are_read() -> None:
    answer = parse(ids(f"{THOUGHT}<|channel|>final<|message|>{GOOD}<|return|>"), JSON, VOCAB)
    assert answer is not None
    assert (answer.label, answer.rationale, answer.reasoning) == ("SP2", "It sells.", "It sells SP2.")
    assert parse(ids(f"{THOUGHT}<|channel|>final <|constrain|>json<|message|>{GOOD}<|return|>"), JSON, VOCAB) is not None
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
        f'{THOUGHT}<|channel|>final<|message|>{{"label": "SP0", "label": "SP2", "rationale": "x"}}<|return|>',
        f'{THOUGHT}<|channel|>final<|message|>{{"label": "SP0"}}<|return|>',
        f"{THOUGHT}<|channel|>final<|message|>[1]<|return|>",
        f"{THOUGHT}<|channel|>final<|message|>{GOOD} {GOOD}<|return|>",
        f"{THOUGHT}<|channel|>final<|message|>{GOOD}<|return|>more",
        f"<|channel|>analysis<|message|>a<|end|><|start|>user<|channel|>final<|message|>{GOOD}<|return|>",
    ],
)
def test_damaged_outputs_have_no_answer(output: str) -> None:
    assert parse(ids(output), JSON, VOCAB) is None


@given(st.lists(st.one_of(st.integers(0, 1023), st.sampled_from(sorted(VOCAB.control.values()))), max_size=40), st.booleans())
@settings(max_examples=2000, deadline=None)
def test_random_tokens_never_raise_and_never_give_a_label_that_is_not_allowed(tokens: list[int], bare: bool) -> None:
    policy = BARE if bare else JSON
    answer = parse(tokens, policy, VOCAB)
    assert answer is None or answer.label in policy.labels


def test_label_openings_are_never_a_prefix_of_each_other() -> None:
    for policy in (JSON, BARE):
        openings = list(label_openings(policy, VOCAB).values())
        assert all(a == b or a[: len(b)] != b for a in openings for b in openings)
