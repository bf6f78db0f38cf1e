"""A loaded model as a batch that sequences join and leave. Belongs to the engine thread."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from engines.base import Adapter, Candidate, EngineInfo, TokenLogprob
from engines.batching.stepper import Drawn, Failed
from engines.mlx import model as models
from engines.mlx.adapters import MlxAdapter, ModelAdapters
from engines.mlx.library import BatchGenerator, StopSequences
from engines.mlx.logits import LogitsEditor
from engines.mlx.masks import SequenceMask, StepMasks
from engines.mlx.memory import KvCost, kv_cost
from engines.mlx.pacing import MlxPacer
from engines.mlx.prefix_cache import MlxPrefixCache
from engines.mlx.sampling import LogprobRecorder, RawLogprob, Sampler, SharedSamplers, draw_greedy
from engines.mlx.sequence import MlxSequence
from engines.mlx.vocabulary import MlxVocabulary
from engines.models.purpose import answer_tokens
from engines.text import grammar
from engines.text.ranking.judge import can_judge
from engines.text.ranking.pair_template import is_for_pairs
from engines.text.tokens.bad_words import token_runs

if TYPE_CHECKING:
    from engines.load_spec import LoadSpec

PREFILL_TOGETHER = 8  # prompts


class Runtime:
    """One `BatchGenerator`, the prefix cache, and what the requests in the batch want."""

    def __init__(self, loaded: models.LoadedModel, spec: LoadSpec) -> None:
        self._loaded = loaded
        self._forward = loaded.forward
        self._max_sequences = spec.max_sequences
        self.cost, n_vocab = self._probe()
        self.vocabulary = loaded.vocabulary(n_vocab)
        free = models.free_memory(loaded.device)
        context, self.budget = models.choose_sizes(spec, loaded, self.cost, free)
        self.info = _info(spec, loaded, context, self.budget, self.vocabulary)
        self._ends = StopSequences([[token] for token in self.vocabulary.end_ids])
        self._prefixes = MlxPrefixCache() if spec.cache_prefixes else None
        self._pacer = MlxPacer()
        self._samplers = SharedSamplers()
        self._sequences: dict[Hashable, MlxSequence] = {}  # in the batch, by uid
        self._recorders: dict[Hashable, LogprobRecorder] = {}
        self._masks = StepMasks()
        self._adapters = ModelAdapters(loaded.model)
        # A forward pass computes with one adapter, so each has a batch of its own beside the plain model's.
        self._generators: dict[MlxAdapter | None, BatchGenerator] = {None: self._new_generator()}

    def insert(self, sequence: MlxSequence) -> None:
        """Put a sequence into the batch; its ``uid`` and ``cached`` are set."""
        request, adapter, caches, known = sequence.request, sequence.adapter, None, 0
        if self._prefixes is not None:
            caches, known = self._prefixes.take(sequence.tokens, adapter)
        generated = sequence.tokens[len(request.prompt.token_ids) :]
        vocabulary = self.vocabulary
        bad_words = token_runs(request.sampling.bad_words, vocabulary)
        sampler = self._samplers.get(request.sampling, len(generated))
        mask = self._mask(sequence, sampler)
        if mask is not None:
            sampler = mask.draw
        editor = LogitsEditor.of(request, generated, vocabulary.end_ids, vocabulary.n_vocab, bad_words, mask)
        processors: list[Any] = [editor] if editor is not None else []
        recorder = None
        if request.logprobs is not None:
            sampler = recorder = LogprobRecorder(sampler, request.logprobs, request.logprob_token_ids)
            processors.insert(0, recorder.watch)
        (number,) = self._generator_of(adapter).insert(
            [sequence.tokens[known:]],
            max_tokens=[sequence.to_generate],
            caches=[caches if caches is not None else self._loaded.new_caches()],
            all_tokens=[sequence.tokens[:known]],
            samplers=[sampler],
            logits_processors=[processors],
            stop_sequences=[self._ends],
        )
        sequence.uid = (adapter, number)
        self._sequences[sequence.uid] = sequence
        if recorder is not None:
            self._recorders[sequence.uid] = recorder
        if mask is not None:
            self._masks.add(sequence.uid, mask)
        if sequence.cached is None:
            sequence.cached = min(known, len(request.prompt.token_ids))

    def step(
        self, *, prefilling: int, decoding: int, spare_bytes: int
    ) -> list[Drawn[MlxSequence] | Failed[MlxSequence]]:
        """Compute a token of each decoding sequence and some of the prompts that are prefilled.

        ``spare_bytes`` are left for cached prefixes.
        """
        self._masks.begin_step()
        budget = self._pacer.budget(decoding)
        piece = max(1, budget // max(1, min(prefilling, PREFILL_TOGETHER)))
        results: list[Drawn[MlxSequence] | Failed[MlxSequence]] = []
        adapters = {sequence.adapter for sequence in self._sequences.values()}
        for adapter in [each for each in self._generators if each in adapters]:
            results += self._step(adapter, piece, spare_bytes)
        return results

    def _step(
        self, adapter: MlxAdapter | None, piece: int, spare_bytes: int
    ) -> Iterator[Drawn[MlxSequence] | Failed[MlxSequence]]:
        """The step of the sequences that have ``adapter``; their prompts go in pieces of so many tokens."""
        generator = self._generators[adapter]
        generator.prefill_step_size = piece
        with generator.stats() as stats:
            _, responses = generator.next()
        self._pacer.observe(
            prompt_tokens=stats.prompt_tokens,
            prompt_seconds=stats.prompt_time,
            decode_seconds=stats.decode_time,
        )
        for response in responses:
            uid = (adapter, response.uid)
            yield self._result(uid, response.token)
            if response.finish_reason is not None:
                self._recorders.pop(uid, None)
                self._masks.remove(uid)
                self._keep(response.all_tokens, response.prompt_cache, spare_bytes, adapter)

    def remove(self, sequence: MlxSequence, spare_bytes: int) -> None:
        """Take a sequence out of the batch and keep its prefix."""
        uid, sequence.uid = sequence.uid, None
        assert isinstance(uid, tuple)
        del self._sequences[uid]
        self._recorders.pop(uid, None)
        self._masks.remove(uid)
        adapter, number = sequence.adapter, uid[1]
        removed = self._generators[adapter].remove([number], return_prompt_caches=self._prefixes is not None)
        for caches, tokens in removed.values():
            self._keep(tokens, caches, spare_bytes, adapter)

    def shrink_prefixes(self, limit: int) -> None:
        """Leave at most ``limit`` bytes to cached prefixes."""
        if self._prefixes is not None:
            self._prefixes.shrink(limit)

    @property
    def held_bytes(self) -> int:
        """The bytes of weights and cached prefixes."""
        return self._loaded.size + (0 if self._prefixes is None else self._prefixes.nbytes)

    def load_adapter(self, adapter: Adapter) -> MlxAdapter:
        """Raises `ModelLoadError`."""
        return self._adapters.load(adapter)

    def forget_adapter(self, adapter: MlxAdapter) -> None:
        """Let go of an adapter that no sequence has any more."""
        if self._prefixes is not None:
            self._prefixes.forget(adapter)
        if (generator := self._generators.pop(adapter, None)) is not None:
            generator.close()
        mx.clear_cache()

    def reset(self) -> None:
        """Start over with an empty batch after a step that failed: what is cached may be wrong."""
        self._close_generators()
        self._sequences.clear()
        self._recorders.clear()
        self._masks.clear()
        if self._prefixes is not None:
            self._prefixes.clear()
        self._generators[None] = self._new_generator()
        mx.clear_cache()

    def close(self) -> None:
        """Free everything; nothing else may be called afterwards."""
        self._close_generators()
        del self._generators, self._forward, self._loaded, self._prefixes, self._adapters
        mx.clear_cache()

    def _mask(self, sequence: MlxSequence, sampler: Sampler) -> SequenceMask | None:
        if sequence.mask is None:
            return None
        ends = frozenset((*self.vocabulary.end_ids, *sequence.request.stop_token_ids))
        return SequenceMask(sequence, sequence.mask, self.vocabulary, ends, sampler, self._masks)

    def _result(self, uid: Hashable, token: int) -> Drawn[MlxSequence] | Failed[MlxSequence]:
        if (error := self._masks.error(uid)) is not None:
            return Failed(self._sequences[uid], error)
        recorder = self._recorders.get(uid)
        logprob = self._logprob(token, recorder.pop()) if recorder is not None else None
        return Drawn(self._sequences[uid], token, logprob)

    def _logprob(self, token: int, raw: RawLogprob) -> TokenLogprob:
        label = self.vocabulary.label
        top = tuple(Candidate(i, label(i), value) for i, value in raw.top)
        return TokenLogprob(Candidate(token, label(token), raw.chosen), top)

    def _keep(self, tokens: list[int], caches: list[Any], limit: int, adapter: MlxAdapter | None) -> None:
        if self._prefixes is None or not tokens:
            return
        # They are views of the batch's caches until they are evaluated, and would keep all of those.
        mx.async_eval([cache.state for cache in caches])  # type: ignore[no-untyped-call]
        self._prefixes.put(tokens, caches, limit, adapter)

    def _generator_of(self, adapter: MlxAdapter | None) -> BatchGenerator:
        if adapter not in self._generators:
            self._generators[adapter] = self._new_generator(adapter)
        return self._generators[adapter]

    def _close_generators(self) -> None:
        """The plain model's last: it was the first to be made."""
        for generator in reversed(self._generators.values()):
            generator.close()
        self._generators.clear()

    def _new_generator(self, adapter: MlxAdapter | None = None) -> BatchGenerator:
        return BatchGenerator(
            self._forward if adapter is None else self._adapters.forward(self._forward, adapter),
            sampler=draw_greedy,
            completion_batch_size=self._max_sequences,
            prefill_batch_size=min(PREFILL_TOGETHER, self._max_sequences),
            stream=mx.default_stream(mx.default_device()),
        )

    def _probe(self) -> tuple[KvCost, int]:
        """The cost of a KV cache and the number of tokens, from a short forward pass. It also makes
        MLX compile the model's kernels, which on Linux takes seconds that no request should wait."""
        generator = BatchGenerator(self._forward, stream=mx.default_stream(mx.default_device()))
        caches = self._loaded.new_caches()
        logits = self._forward(mx.array([[0, 1]]), cache=caches)
        mx.eval(logits, [cache.state for cache in caches])
        generator.insert(
            [[0] * 4, [0] * 3], max_tokens=[2, 3], caches=[self._loaded.new_caches() for _ in "ab"]
        )
        while any(generator.next()):
            pass
        generator.close()
        return kv_cost(caches), int(logits.shape[-1])


def open_runtime(spec: LoadSpec, report: Callable[[float], None]) -> Runtime:
    """Load ``spec``. Raises `ModelLoadError`, and whatever ``report`` raises to give up."""
    loaded = models.load(spec, report)
    runtime = Runtime(loaded, spec)
    report(1.0)
    return runtime


def _info(
    spec: LoadSpec, loaded: models.LoadedModel, context: int, budget: int, vocabulary: MlxVocabulary
) -> EngineInfo:
    template = vocabulary.chat_template
    said = answer_tokens(spec.path) if spec.path is not None else None
    has = {
        "chat": template is not None and not is_for_pairs(template),
        "fim": vocabulary.fim is not None,
        "rerank": can_judge(spec.rerank_template or vocabulary.rerank_template, vocabulary, said),
        "structured": grammar.is_installed(),
        "adapters": True,
    }
    return EngineInfo(
        engine="mlx",
        model=spec.name,
        context_length=context,
        longest_context=models.trained_context(loaded.config) or 0,
        max_sequences=spec.max_sequences,
        devices=(loaded.device,),
        capabilities=frozenset({"completion", *(name for name, there in has.items() if there)}),
        memory=loaded.size + budget,
        details=models.details(loaded, spec) | {"kv_budget": budget},
    )
