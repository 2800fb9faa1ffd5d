"""What glance and reason ask: a picklable spec on the driver, the live engine in the actor."""

from moderay.engines.base import (
    Completion,
    Counted,
    Endpoint,
    Engine,
    EngineDead,
    EngineSpec,
    Question,
    Reply,
    Request,
    RequestFailed,
)
from moderay.engines.host import EngineHost
from moderay.engines.remote import RemoteSpec
from moderay.engines.scripted import ScriptedSpec
from moderay.engines.vllm import VllmSpec

__all__ = [
    "Completion",
    "Counted",
    "Endpoint",
    "Engine",
    "EngineDead",
    "EngineHost",
    "EngineSpec",
    "Question",
    "RemoteSpec",
    "Reply",
    "Request",
    "RequestFailed",
    "ScriptedSpec",
    "VllmSpec",
]
