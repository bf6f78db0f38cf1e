"""Quantises folders in Hugging Face's format with mlx-lm, which only the process that converts imports."""

from __future__ import annotations

from pathlib import Path

from engines.errors import CannotLoad
from engines.machine.job_process import JobFailed, Message, Send
from engines.models import hf
from engines.models.convert.plan import ConversionPlan, Quantizer, kept_in, stamp_of
from engines.models.convert.space import check_space
from engines.models.facts import describe

BITS = {"4bit": 4, "8bit": 8, "q4": 4, "q8": 8}


def _plan(source: Path, quantization: str, fallback_dir: Path) -> ConversionPlan | None:
    bits = BITS.get(quantization.lower())
    if bits is None:
        raise CannotLoad(f"MLX cannot quantise to {quantization!r}: choose one of {', '.join(BITS)}")
    facts, name = describe(source), f"{bits}bit"
    if facts.quantization == name:
        return None
    if facts.quantization is not None:
        raise CannotLoad(
            f"{source.name} is quantised already ({facts.quantization}) and MLX cannot change that: "
            "drop `quantization`, or pull the model's original"
        )
    folder = hf.read_folder(source)
    return ConversionPlan(
        engine="mlx",
        source=source,
        target=kept_in(source, source, fallback_dir, f"{source.name}.{name}"),
        level=bits,
        name=name,
        stamp=stamp_of(name, "mlx-lm", (source / hf.CONFIG, *folder.weights)),
        source_bytes=facts.weight_bytes,
        degrades=False,
    )


def _run(order: Message, part: Path, send: Send) -> None:
    """Says nothing of its progress: mlx-lm does not either."""
    from mlx_lm import convert as mlx_convert

    bits = order["level"]
    # Each group of 64 weights also has a scale and a bias of 16 bits; the source has 16 bits or more.
    check_space(part, int(order["source_bytes"] * (bits + 0.5) / 16))
    try:
        mlx_convert(order["source"], str(part), quantize=True, q_bits=bits, q_group_size=64)
    except (ValueError, RuntimeError, KeyError) as error:
        check_space(part, 0)
        raise JobFailed(f"MLX cannot convert {order['source']}: {error}") from error


QUANTIZER = Quantizer(_plan, _run)
