"""One step of the optimiser: precision, micro-batches, compilation, CUDA graphs and several GPUs, behind one call.

On a GPU nothing here waits for the device: results stay there, and a step whose shapes are always the same is recorded
once as a CUDA graph and then replayed by a single launch (PyTorch's notes on CUDA, "Whole-network capture").
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from medsass.config import TrainConfig
from medsass.config.options import Arithmetic
from medsass.data.loading.loader import Batch
from medsass.methods import optim
from medsass.methods.method import Method, Outcome, Regime
from medsass.runs.distributed import Ranks

_Eager = Callable[[Sequence[Batch], float], list[Outcome]]

_ATTEMPTS = 3  # to record
_WARM = 3  # steps before a recording: they compile, and allocate the state of the optimiser and of cuDNN

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def precision(config: TrainConfig, device: str) -> Arithmetic:
    """Resolve --precision on `device`. Raises `ValueError` for fp16 on a CPU."""
    if config.precision == "fp16" and device == "cpu":
        raise ValueError("--precision fp16 is for GPUs; take bf16 or fp32 on a CPU")
    if config.precision != "auto":
        return cast(Arithmetic, config.precision)
    if device == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"


class Step:
    """The training step of a method, with its optimiser.

    Attributes:
        precision: arithmetic of the network.
        compiled: whether the network is compiled.
        recorded: whether steps become CUDA graphs; like `compiled`, as far as options and method allow.
    """

    def __init__(self, method: Method, config: TrainConfig, regime: Regime, device: str, ranks: Ranks) -> None:
        self.method, self.regime, self.device = method, regime, device
        self.precision = precision(config, device)
        self.optimizer = optim.build(method.parameters(), regime, device)
        self.scaler = torch.amp.GradScaler(device, enabled=self.precision == "fp16")
        self.compiled = config.compile and device == "cuda" and method.segments
        self.recorded = (
            config.graphs
            and device == "cuda"
            and method.timeless
            and regime.final_weight_decay is None
            and self.precision != "fp16"  # its scaler decides on the host
            and config.accumulate == ranks.world == 1
        )
        self._whole = config.batch_size // (ranks.world * config.accumulate)
        self._run: nn.Module = _parallel(method) if ranks.world > 1 else method
        if self.compiled:
            for network in method.networks():
                network.compile(dynamic=False)
        self._recording: _Recording | None = None

    def __call__(self, batches: Sequence[Batch], progress: float) -> list[Outcome]:
        """Do one step on the mean loss of its micro-batches, and return the outcome of each.

        Args:
            batches: the step's micro-batches; their gradients are added up.
            progress: share of all steps that are done, in [0, 1].
        """
        whole = all(len(batch.images) == self._whole for batch in batches)
        optim.decay(self.optimizer, self.regime, progress)
        if self.recorded and whole:
            self._recording = self._recording or _Recording()
            outcomes = [self._recording(self._eager, batches[0], progress)]
            if self._recording.failed:
                self.recorded, self._recording = False, None
        else:
            with uncompiled(self.compiled and not whole):
                outcomes = self._eager(batches, progress)
        self.method.after_step(progress)
        return outcomes

    def _eager(self, batches: Sequence[Batch], progress: float) -> list[Outcome]:
        self.optimizer.zero_grad(set_to_none=True)
        outcomes = []
        for number, batch in enumerate(batches, 1):
            # Processes exchange gradients with the last micro-batch only.
            more = number < len(batches)
            parallel = self._run if more and isinstance(self._run, DistributedDataParallel) else None
            with parallel.no_sync() if parallel else nullcontext():
                with record_function("forward"):
                    outcome = self.outcome(batch, progress, self._run)
                with record_function("backward"):
                    self.scaler.scale(outcome.loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            # Detached: the graph would hold memory and, in a recording, its stream.
            logits = outcome.logits.detach() if outcome.logits is not None else None
            outcomes.append(replace(outcome, loss=outcome.loss.detach(), logits=logits))
        with record_function("optimizer"):
            if self.regime.clip:
                self.scaler.unscale_(self.optimizer)
                optim.clip(self.method.parameters(), self.regime)
            self.method.before_step(progress)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return outcomes

    def outcome(self, batch: Batch, progress: float, run: nn.Module | None = None) -> Outcome:
        """Run the method on a batch in the step's precision; gradients are tracked if they are where it is called."""
        dtype = PRECISIONS[self.precision]
        with torch.autocast(self.device, dtype, enabled=dtype is not torch.float32):
            outcome: Outcome = (run or self.method)(batch, progress)
        return outcome


def uncompiled(when: bool) -> AbstractContextManager[object]:
    """Run compiled networks as plain PyTorch while the block runs: a batch of another size would be compiled anew."""
    return torch.compiler.set_stance("force_eager") if when else nullcontext()


def _parallel(method: Method) -> nn.Module:
    with warnings.catch_warnings():  # about a newer name for `broadcast_buffers`, unknown to older versions
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(method, broadcast_buffers=False, gradient_as_bucket_view=True)


class _Recording:
    """A step as a CUDA graph. The first calls run eagerly, on the stream that will be recorded.

    The next call overwrites the outcome, in the order of the current stream. The step is passed to each call and not
    stored: its owner would become part of a reference cycle, and only the garbage collector would free the graph's memory.
    failed: whether every attempt to record failed, so that steps must run eagerly.
    """

    def __init__(self) -> None:
        self.failed = False
        self._calls, self._attempts = 0, 0
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, step: _Eager, batch: Batch, progress: float) -> Outcome:
        if not self._calls:
            masks = None if batch.masks is None else batch.masks.clone()
            self._batch = replace(batch, images=batch.images.clone(), masks=masks)
        self._batch.images.copy_(batch.images, non_blocking=True)
        if batch.masks is not None and self._batch.masks is not None:
            self._batch.masks.copy_(batch.masks, non_blocking=True)
        self._calls += 1
        if self._calls > _WARM and self._graph is None and not self.failed:
            self._graph = self._record(step, progress)
        if self._graph is None:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                (outcome,) = step([self._batch], progress)
            torch.cuda.current_stream().wait_stream(self._stream)
            return outcome
        with record_function("replay"):
            self._graph.replay()
        return self._outcome

    def _record(self, step: _Eager, progress: float) -> "torch.cuda.CUDAGraph | None":
        """Record a step; None where that was disturbed, to be tried again at the next step up to `_ATTEMPTS` times.

        Other threads go on calling CUDA meanwhile, such as DALI's, which free batches, and not every call is allowed during
        a recording (DALI issue 6259). So they are left little to do: the caller holds its batch, and all work has ended.
        """
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                (self._outcome,) = step([self._batch], progress)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._attempts += 1
            self.failed = self._attempts == _ATTEMPTS
            if self.failed:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                warnings.warn(
                    f"steps could not be recorded as a CUDA graph and run without one: {reason}", stacklevel=2
                )
            return None
        return graph
