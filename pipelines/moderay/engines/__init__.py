"""What glance and reason ask: a small picklable spec on the driver, the live engine in the actor."""

from moderay.engines.base import Completion, Engine, EngineDead, EngineSpec, Request, RequestFailed
from moderay.engines.host import EngineHost
from moderay.engines.scripted import ScriptedSpec
from moderay.engines.vllm import VllmSpec

__all__ = ["Completion", "Engine", "EngineDead", "EngineHost", "EngineSpec", "Request", "RequestFailed", "ScriptedSpec", "VllmSpec"]
