"""A vision model in Hugging Face's format: two layers of random weights in the shape of Idefics 3."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from support.models import TINY, smollm2_folder

SIDE, PATCH, SCALE = 28, 7, 2
TOKENS = (SIDE // PATCH // SCALE) ** 2
"""Of an image; two marks are around them, and one in front."""

_MARKS = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def tiny_vision_folder() -> Path:
    """With SmolLM2's tokenizer. Made once."""
    import torch
    from transformers import (
        AutoTokenizer,
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
        LlamaConfig,
    )
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

    source = smollm2_folder()
    target = source.with_name("tiny-idefics3")
    if target.exists():
        return target
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_special_tokens({"additional_special_tokens": _MARKS})
    tokenizer.chat_template = _TEMPLATE
    seen = Idefics3VisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        image_size=SIDE,
        patch_size=PATCH,
    )
    # vLLM's kernels for CPUs have no smaller heads.
    shape = TINY | {"head_dim": 32, "max_position_embeddings": 2048, "pad_token_id": 2}
    text = LlamaConfig(vocab_size=len(tokenizer) + 60, **shape)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = Idefics3Config(
        vision_config=seen.to_dict(),
        text_config=text.to_dict(),
        image_token_id=image_token,
        scale_factor=SCALE,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_(0, 0.2)
    edge = {"longest_edge": SIDE}
    images = Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
    processor = Idefics3Processor(images, tokenizer, image_seq_len=TOKENS, chat_template=_TEMPLATE)
    part = target.with_suffix(f".{os.getpid()}")
    for each in (model, tokenizer, processor):
        each.save_pretrained(part)
    part.rename(target)
    return target
