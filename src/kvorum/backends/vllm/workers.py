"""vLLM's worker processes and the calls to them: started, called, watched and ended. No request of vLLM's ever runs."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import psutil

from kvorum import errors
from kvorum.backends.vllm.executor import LOOK, ended_if, shut_down, sleep_until_answered
from kvorum.backends.vllm.model_options import model_options, refuse_without_plan
from kvorum.backends.vllm.nodes import Head
from kvorum.backends.vllm.spread import Spread
from kvorum.errors import KvorumError, UnsupportedModel, WorkersLost
from kvorum.jsontypes import Json
from kvorum.wording import first_line

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.executor.abstract import Executor

    from kvorum.models.load import WholeFolder

_CLOSED = "The worker processes were ended"


Argument: TypeAlias = "bytes | Json"
Said: TypeAlias = "tuple[str, bytes | str, str]"
Task: TypeAlias = "tuple[Future[list[Said]], Callable[[], list[Said]]]"
Tasks: TypeAlias = "queue.SimpleQueue[Task | None]"


def configure(found: WholeFolder, dtype: str, spread: Spread, trust_remote_code: bool, node: int = 0) -> VllmConfig:
    """vLLM's configuration for workers that this engine drives. ``node``: which of the nodes this is.

    Raises:
        UnsupportedModel: vLLM refuses the model, or an option for it.
    """
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs

    from kvorum.backends.vllm import attention

    options: dict[str, Json] = {
        "enforce_eager": True,
        "skip_tokenizer_init": True,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": 1,  # none is claimed; without it a worker on a CPU asks for most of the memory
        **model_options(found.config, spread.vllm, cpu=attention.NAME == "CPU_ATTN"),
    }
    if attention.NAME == "CUSTOM":
        options["attention_backend"] = attention.NAME
    try:
        made = EngineArgs(
            model=str(found.folder),
            dtype=dtype,
            tensor_parallel_size=spread.tensor_parallel,
            pipeline_parallel_size=spread.pipeline_parallel,
            distributed_executor_backend=spread.executor,
            nnodes=spread.nodes,
            node_rank=node,
            master_addr=spread.master_addr,
            master_port=spread.master_port,
            trust_remote_code=trust_remote_code,
            max_num_batched_tokens=MAX_TOKENS,
            worker_extension_cls="kvorum.backends.vllm.extension.ViewWorker",
            **options,
        ).create_engine_config()
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        AssertionError,
    ) as error:
        raise UnsupportedModel(f"vLLM does not run {found.name} like this: {_reason(error)}.") from error
    with set_current_vllm_config(made):
        by_transformers = made.model_config.using_transformers_backend()
    if by_transformers and spread.tensor_parallel > 1:
        refuse_without_plan(found.name, found.config.get_text_config())
    return made


MAX_TOKENS = 8192
"""The most tokens of one tick: what vLLM's layers are told to be ready for."""


class Workers:
    """The processes of one engine. ``head``: where some are on further nodes.

    Raises:
        WorkersLost: they could not be started.
    """

    def __init__(self, config: VllmConfig, name: str, spread: Spread, head: Head | None = None) -> None:
        from vllm.v1.executor.abstract import Executor

        self._patience, self._head = spread.patience, head
        self.folder = Path(tempfile.mkdtemp(prefix="kvorum-workers-"))
        self._gone: str | None = None
        self._tasks: Tasks = queue.SimpleQueue()
        try:
            with ended_if(None if head is None else head.lost) as ended:
                self._executor: Executor = Executor.get_class(config)(config)
        except BaseException as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            if not isinstance(error, Exception):
                raise
            if ended:
                raise WorkersLost(f"vLLM's workers for {name} could not be started: {ended[0]}.") from error
            if spread.executor == "uni":  # what a worker says of it is here, not on the terminal
                raise UnsupportedModel(f"vLLM does not run {name} like this: {_reason(error)}.") from error
            raise WorkersLost(
                f"vLLM's workers for {name} could not be started ({_reason(error)}); what a worker said of it stands "
                "above. A script that loads an engine needs `if __name__ == '__main__':`."
            ) from error
        if config.device_config.device_type == "cpu":
            sleep_until_answered(self._executor)
        threading.Thread(target=_work, args=(self._tasks,), name="kvorum-workers", daemon=True).start()
        self.close = weakref.finalize(self, _end, self._executor, self._tasks, self.folder, head)
        """Ends them; at the latest when the program ends."""

    def call(self, method: str, *args: Argument) -> list[bytes]:
        """``method`` on all ranks; their answers.

        An interrupt breaks off the wait and not the call: the next call begins when it has ended.

        Raises:
            KvorumError: what a rank refused. WorkersLost: one has died, hangs, or has failed among others.
        """
        if self._gone is not None or not self.close.alive:
            raise WorkersLost(self._gone) if self._gone is not None else self._lost(_CLOSED)
        executor, limit = self._executor, self._patience
        future: Future[list[Said]] = Future()
        self._tasks.put((future, lambda: executor.collective_rpc(method, timeout=limit, args=args)))
        answers = self._await(future, time.monotonic() + limit)
        for rank, (kind, value, sentence) in enumerate(answers):
            if kind != "ok":
                self._raise(rank, str(value), sentence)
        return [value for _, value, _ in answers if isinstance(value, bytes)]

    def trouble(self) -> str | None:
        """Why the next call would fail: they have ended, one has died, or one was stopped and does not go on."""
        if self._gone is not None:
            return self._gone
        for process in self._processes():
            try:
                stopped = psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
            except psutil.NoSuchProcess:
                return "A worker process has died."
            if stopped or not process.is_alive():
                return f"A worker process {'is stopped' if stopped else 'has died'}."
        return None if self._head is None else self._head.lost()

    def _processes(self) -> list[BaseProcess]:
        """Those of this machine that vLLM has started itself; Ray's it knows not."""
        workers = getattr(self._executor, "workers", None) or ()
        return [process for worker in workers if (process := getattr(worker, "proc", None)) is not None]

    def _await(self, future: Future[list[Said]], until: float) -> list[Said]:
        """The answers of a call, unless a worker dies meanwhile."""
        while True:
            try:
                return future.result(timeout=LOOK)
            except TimeoutError as error:
                if future.done() or time.monotonic() > until + 1:
                    raise self._lost(f"A worker did not answer within {self._patience:g} seconds") from error
                if getattr(self._executor, "is_failed", False) or self._said():
                    raise self._lost("A worker process has died") from error
                if self._head is not None and (lost := self._head.lost()) is not None:
                    raise self._lost(lost) from error
                if not self.close.alive:  # somebody has ended them meanwhile, from another thread
                    raise self._lost(_CLOSED) from error
            except KvorumError:
                raise
            except Exception as error:
                raise self._lost(f"A worker process has died ({_reason(error)})") from error

    def _raise(self, rank: int, kind: str, sentence: str) -> None:
        """An error of one rank, under its own name where it is one of kvorum's."""
        if self._said():
            raise self._lost("")
        known = getattr(errors, kind, None)
        if isinstance(known, type) and issubclass(known, KvorumError):
            raise known(sentence)
        raise KvorumError(f"Rank {rank} failed with {kind}: {sentence}")

    def _said(self) -> list[str]:
        """What ranks of this machine have left word of."""
        return [path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("rank-*"))]

    def _lost(self, what: str) -> WorkersLost:
        """The error for what has happened; the workers are ended, and every later call says so."""
        said = self._said()
        reason = (said[0] if said else what).rstrip(".")
        self._gone = f"{reason}; its engine has ended, load it anew. A run that has a trace can be resumed."
        for process in self._processes():
            if process.is_alive():
                process.kill()
        if self._head is not None:
            self._head.end(reason)
        self.close()
        return WorkersLost(self._gone)


def _work(tasks: Tasks) -> None:
    """Calls, one after the other."""
    while (task := tasks.get()) is not None:
        future, call = task
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)


def _end(executor: Executor, tasks: Tasks, folder: Path, head: Head | None) -> None:
    """End the workers, and leave nothing behind."""
    tasks.put(None)
    try:
        shut_down(executor)
    finally:
        if head is not None:
            head.end()
        shutil.rmtree(folder, ignore_errors=True)


def _reason(error: BaseException) -> str:
    from pydantic import ValidationError

    said = first_line(error)
    if isinstance(error, ValidationError):  # whose first line counts the errors
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ").partition("\n")[0]
    return said.strip().rstrip(".")[:300]
