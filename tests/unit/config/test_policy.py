from pathlib import Path

import pytest
from support.outputs import plain
from support.project import ROOT

from moderay.config.policy import load_golden, load_policy
from moderay.core.errors import Problems
from moderay.engines.harmony.vocabulary import vocabulary

WRONG = """\
---
id: bad-id
labels:
  A: {violates: true, titel: x}
anser: label
threshold: 2
---
"""


@pytest.mark.parametrize("name", ["spam", "harassment", "private_data"])
def test_shipped_policy_has_the_published_size_and_enough_cases(name: str) -> None:
    folder = ROOT / "policies" / name
    policy, cases = load_policy(folder), load_golden(folder)
    assert policy.id == name
    assert 400 <= len(vocabulary().encode(policy.text)) <= 600
    assert len(cases) >= 40 and 3 * sum(case.boundary for case in cases) >= len(cases)
    assert {case.label for case in cases} == set(policy.labels)
    assert len({case.content for case in cases}) == len(cases)


def test_policy_file_with_many_mistakes_reports_all_at_once(tmp_path: Path, golden) -> None:
    (tmp_path / "policy.md").write_text(WRONG)
    with pytest.raises(Problems) as caught:
        load_policy(tmp_path)
    golden("policy-wrong", plain(str(caught.value) + "\n", tmp_path))
