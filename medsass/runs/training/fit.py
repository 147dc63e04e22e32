"""Which steps fit the memory, tried on random images."""

import torch

from medsass.data.loading import cache, memory
from medsass.data.loading.loader import Batch
from medsass.errors import TooLargeError
from medsass.methods import collective
from medsass.runs.training.step import uncompiled
from medsass.runs.training.trainer import Trainer


class OutOfMemoryError(torch.OutOfMemoryError, TooLargeError):
    """A step does not fit the GPU's memory; the text says what would."""


def micro_batches(trainer: Trainer) -> int:
    """Return the smallest multiple of --accumulate with which a step fits the memory of every process. All processes must
    call it together. Raises `OutOfMemoryError` where not even one image fits.
    """
    c, least, share = trainer.config, trainer.config.accumulate, trainer.config.batch_size // trainer.ranks.world
    for count in range(least, share + 1, least):
        if share % count == 0 and not trainer.ranks.any(not fits(trainer, share // count)):
            return count
    raise OutOfMemoryError(
        f"not even one image of {c.size} x {c.size} fits the GPU's memory with {c.model}; take a smaller --size or --model"
    )


def fits(trainer: Trainer, images: int) -> bool:
    """Tell whether the memory holds a step on so many images at once; changes nothing.

    What comes later needs room beside it: a recorded step has its own memory, so that other steps need theirs a second
    time, and caches are not filled yet.
    """
    kept = {name: buffer.clone() for name, buffer in trainer.method.named_buffers()}
    try:
        peak = _peak(trainer, images)
    except torch.OutOfMemoryError:
        return False
    finally:
        trainer.step.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in trainer.method.named_buffers():
                buffer.copy_(kept[name])
        if trainer.device == "cuda":
            torch.cuda.empty_cache()
    if trainer.device != "cuda":
        return True
    return (1 + trainer.step.recorded) * peak + cache.promised("device") <= memory.device()


def _peak(trainer: Trainer, images: int) -> int:
    """Return the bytes that forward and backward pass take on a GPU; 0 on a CPU."""
    method, where = trainer.method, trainer.device
    channels, dtype = ((), torch.uint16) if trainer.train_loader.depth == 16 else ((3,), torch.uint8)
    shapes = [(images, view.size, view.size) for view in method.views]
    noise = [torch.randint(0, 256, (*s, *channels), device=where, dtype=torch.int32).to(dtype) for s in shapes]
    masks = torch.zeros(shapes[0], dtype=torch.uint8, device=where) if method.needs_masks else None
    batch = Batch(noise[0], masks, more=tuple(noise[1:]))
    before = torch.cuda.memory_allocated() if where == "cuda" else 0
    if where == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with uncompiled(trainer.step.compiled), collective.apart():
        method.train()
        for layer in method.modules():
            if isinstance(layer, torch.nn.SyncBatchNorm):  # would wait for the other processes
                layer.eval()
        trainer.step.outcome(batch, trainer.progress).loss.backward()  # type: ignore[no-untyped-call]
    return torch.cuda.max_memory_allocated() - before if where == "cuda" else 0
