"""The contract every engine fulfils, and the values that cross it.

All values are frozen: an engine may hand them between threads without copying.
"""

from engines.base.adapter import Adapter
from engines.base.answers import (
    AnswerDelta,
    AnswerPlan,
    AnswerReader,
    Candidate,
    Chunk,
    FinishReason,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from engines.base.embeds import Embeddings, Embeds, Pair, Scores, Vectors
from engines.base.engine import (
    Adapts,
    Encodes,
    Engine,
    EngineInfo,
    EngineStats,
    Generates,
    HasMetrics,
    Health,
    Resident,
    TokenStream,
)
from engines.base.media import Media, MediaKind
from engines.base.requests import NEW_ANSWER, GenerationRequest, Prompt, Rendering, SourceFile
from engines.base.sampling import (
    GREEDY_BELOW,
    LEAST_REPETITION_PENALTY,
    LEAST_TOP_P,
    MOST_TOP_K,
    NOTHING_RARE,
    RareSampling,
    Sampling,
)
from engines.base.structure import Structure
from engines.base.tools import ToolUse

__all__ = [
    "Adapter",
    "Adapts",
    "Embeddings",
    "Embeds",
    "Pair",
    "Scores",
    "Vectors",
    "AnswerDelta",
    "AnswerPlan",
    "AnswerReader",
    "Candidate",
    "Chunk",
    "Engine",
    "EngineInfo",
    "EngineStats",
    "FinishReason",
    "GREEDY_BELOW",
    "Generates",
    "GenerationRequest",
    "HasMetrics",
    "Health",
    "LEAST_REPETITION_PENALTY",
    "LEAST_TOP_P",
    "MOST_TOP_K",
    "Media",
    "MediaKind",
    "NEW_ANSWER",
    "NOTHING_RARE",
    "Prompt",
    "RareSampling",
    "Rendering",
    "Resident",
    "Sampling",
    "SourceFile",
    "Structure",
    "TokenLogprob",
    "TokenStream",
    "Encodes",
    "ToolCallDelta",
    "ToolUse",
    "Usage",
]
