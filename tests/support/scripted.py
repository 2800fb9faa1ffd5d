"""What the scripted engine answers, where a test does not say it."""

from typing import Any

SCRIPT: dict[str, Any] = {
    "default": {
        "answer": '{"label": "SP0", "rationale": "Nothing."}',
        "reasoning": "Nothing here.",
        "p": 0.9,
    },
    "rules": [
        {
            "content": "prize",
            "answer": '{"label": "SP4", "rationale": "A prize."}',
            "reasoning": "A prize.",
            "p": 0.8,
        },
        {
            "content": "shop",
            "answer": '{"label": "SP2", "rationale": "A shop."}',
            "reasoning": "A shop.",
            "p": 0.6,
        },
        {"content": "broken", "output": "<|channel|>analysis<|message|>never ends"},
        {"content": "failing", "fail": "request"},
        {"content": "hanging", "fail": "hang"},
    ],
}
