"""The Responses API's requests and replies <-> `Question` and `Reply`.

The types are those of the openai package, which is imported for type checking only: at run time it
would cost half a second of every start, and replies of other servers hold less than its models ask
for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, cast

from moderay.engines.base import Question, Reply, Token

if TYPE_CHECKING:
    from openai.types.responses import (
        ResponseFormatTextJSONSchemaConfigParam,
        ResponseInputItemParam,
        ResponseOutputMessageParam,
        ResponseOutputTextParam,
        ResponseReasoningItemParam,
        ResponseStatus,
    )
    from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
    from openai.types.responses.response_input_param import McpCall
    from openai.types.responses.response_output_message_param import Content
    from openai.types.responses.response_output_text_param import Logprob
    from openai.types.shared import ReasoningEffort

    OutputItem = ResponseReasoningItemParam | ResponseOutputMessageParam | McpCall

# The most alternatives to a token that the API gives.
LOGPROBS = 20


class TokenDetails(TypedDict, total=False):
    """Part of `ResponseUsage`.

    Attributes:
        cached_tokens: Prompt tokens that were in the endpoint's prefix cache.
    """

    cached_tokens: int


class ResponseUsage(TypedDict, total=False):
    """What a response cost, as the endpoint counts it.

    Attributes:
        input_tokens: Of the prompt.
        input_tokens_details: Of those, the cached ones.
        output_tokens: Of reasoning and answer.
    """

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int


class Counts(TypedDict):
    """The same as `Reply` has it, tokens."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


class Response(TypedDict):
    """What is read of a response.

    Attributes:
        status: How it ended.
        output: Reasoning, messages and calls of tools, in order.
        usage: None where the endpoint does not count.
    """

    status: ResponseStatus
    output: list[OutputItem]
    usage: ResponseUsage | None


def request_body(question: Question, model: str, logprobs: bool) -> bytes:
    """The JSON of a request.

    Args:
        question: What is asked.
        model: As the endpoint calls it.
        logprobs: Whether log-probabilities of the answer's tokens are wanted.
    """
    body: ResponseCreateParamsNonStreaming = {
        "model": model,
        "instructions": question.instructions,
        "input": _input(question),
        "reasoning": {"effort": cast("ReasoningEffort", question.effort)},
        "max_output_tokens": question.max_tokens,
        "temperature": question.temperature,
        "top_p": question.top_p,
        "store": False,
    }
    if question.labels:
        body["text"] = {"format": _label_format(question.labels)}
    if logprobs:
        body["include"] = ["message.output_text.logprobs"]
        body["top_logprobs"] = LOGPROBS
    return json.dumps(body, ensure_ascii=False).encode()


def _input(question: Question) -> list[ResponseInputItemParam]:
    items: list[ResponseInputItemParam] = [{"role": "user", "content": question.content}]
    if question.labels:
        # A reasoning that is over, even an empty one: what follows is the answer.
        thought: ResponseReasoningItemParam = {
            "type": "reasoning",
            "id": "rs_0",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": question.thought}],
        }
        items.append(thought)
    return items


def _label_format(labels: tuple[str, ...]) -> ResponseFormatTextJSONSchemaConfigParam:
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "name": "verdict", "strict": True, "schema": schema}


def reply(response: Mapping[str, Any]) -> Reply:
    """What a response object says.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is none of the Responses API.
    """
    typed = cast(Response, response)
    answers = [item for item in typed["output"] if item["type"] != "reasoning"]
    parts = _parts(answers[0]) if len(answers) == 1 else []
    text = parts[0] if len(parts) == 1 else None
    message = Reply(
        reasoning=_valid("\n".join(_thoughts(typed["output"]))),
        answer=None,
        whole=False,
        **_counts(typed.get("usage") or ResponseUsage()),
    )
    if text is None or text["type"] != "output_text":
        return message
    return replace(
        message,
        answer=_valid(text["text"]),
        whole=typed["status"] == "completed",
        tokens=tuple(_token(token) for token in text.get("logprobs") or ()),
    )


def _counts(usage: ResponseUsage) -> Counts:
    details = usage.get("input_tokens_details") or TokenDetails()
    return {
        "prompt_tokens": int(usage.get("input_tokens") or 0),
        "cached_tokens": int(details.get("cached_tokens") or 0),
        "output_tokens": int(usage.get("output_tokens") or 0),
    }


def _thoughts(output: list[OutputItem]) -> list[str]:
    return [
        part["text"]
        for item in output
        if item["type"] == "reasoning"
        for part in item.get("content") or ()
    ]


def _parts(item: OutputItem) -> list[Content]:
    """What an answer consists of.

    vLLM 0.32 takes the second word of `<|channel|>final json<|message|>`, which its own grammar for
    JSON asks for, for the name of a tool, and the answer for what that is called with.
    """
    if item["type"] == "mcp_call" and item["server_label"] == "json":
        text: ResponseOutputTextParam = {
            "type": "output_text",
            "text": item["arguments"],
            "annotations": [],
        }
        return [text]
    return list(item.get("content") or ()) if item["type"] == "message" else []


def _valid(text: str) -> str:
    """JSON can spell halves of characters, which no column of text takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _token(token: Logprob) -> Token:
    others = {other["token"]: float(other["logprob"]) for other in token.get("top_logprobs") or ()}
    return Token(token["token"], {**others, token["token"]: float(token["logprob"])})
