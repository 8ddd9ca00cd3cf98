"""The public engine: the engine's core, and what stands above it (load, decode, run, save)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, overload

import torch
from torch import nn

from kvorum.backends.backend import Backend
from kvorum.backends.local.backend import LocalBackend, find_device, packs
from kvorum.backends.vllm.spread import Spread, SpreadOptions
from kvorum.engine.budget import Budget
from kvorum.engine.decode import DecodingEngine
from kvorum.errors import BadRequest
from kvorum.harness.asked import Asked, placed
from kvorum.harness.documents import Document, given_documents
from kvorum.harness.forms.fill import FormOptions, fill_form
from kvorum.harness.forms.filled import FilledForm
from kvorum.harness.forms.schema_sources import Made, SchemaClass
from kvorum.jsontypes import JsonObject
from kvorum.kv import Block
from kvorum.models.load import load_bare, load_model
from kvorum.models.runners.lean import LeanRunner
from kvorum.programs import adecide, find
from kvorum.runs.start import arun
from kvorum.runs.synchronous import to_its_end
from kvorum.sampling.sampling import Sampling
from kvorum.store.blocks import load_block, save_block
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.wording import check_known


class Engine(DecodingEngine):
    """One model with one KV cache, and the programs that run on it.

    Not thread-safe: use it from one thread, any number of coroutines.

    Args:
        model: a loaded Hugging Face causal language model, whose dtype and device are kept; or a ``Backend`` that
            holds one, with which the arguments about cache, weights and kernels are its own.
        tokenizer: needed for anything with text. kv_tokens: how many tokens the cache holds; fixed.
        kv_dtype: what keys and values are stored in; "auto" is what the model computes in; "int8" takes little more
            than a quarter of float32's memory; on a CPU "float16", half of it, too.
        page_size: tokens per page. prefill_chunk: a lone row longer than this goes through in parts of this size.
        seed: the default seed of sampling. name: how traces call the model. weights: "exact", or their fast format.
        attention: "auto" takes the Triton kernels on a GPU and the native ones on a CPU, where they are installed and
            cover the model; "reference" plain torch; "triton" or "native" those kernels or an error.
        runner: "auto" takes captured graphs on a GPU and the lean decoder for packed weights, where they cover the
            model; "generic" the model's own modules; "lean" or "graphs" those or an error.
        speculate: whether tokens that are likely to come are computed ahead, several a tick; no token changes by it.
            None: where that holds to the last bit (packed weights, native kernels). True: there, or an error.

    Raises:
        UnsupportedModel: the model cannot be exact over views; the message says why.
        BadRequest, MissingExtra: the attention or runner asked for is not there, or does not cover the model.
    """

    def __init__(
        self,
        model: nn.Module | Backend,
        tokenizer: Any = None,
        *,
        kv_tokens: int = 65536,
        kv_dtype: str | torch.dtype = "auto",
        page_size: int = 16,
        prefill_chunk: int = 512,
        seed: int = 0,
        name: str = "",
        weights: str = "exact",
        attention: str = "auto",
        runner: str = "auto",
        speculate: bool | None = None,
    ) -> None:
        if isinstance(model, nn.Module):
            backend: Backend = LocalBackend(
                model,
                kv_tokens=kv_tokens,
                kv_dtype=kv_dtype,
                page_size=page_size,
                weights=weights,
                attention=attention,
                runner=runner,
            )
        else:
            backend = model
        name = name or type(model).__name__
        super().__init__(backend, tokenizer, prefill_chunk=prefill_chunk, seed=seed, name=name, speculate=speculate)

    @property
    def model(self) -> nn.Module:
        """The loaded model. Raises UnsupportedModel: it is not in this process."""
        return self.backend.module()

    @property
    def weights(self) -> str:
        """How the weights are held: "exact", or the name of a fast format."""
        return str(self.about().get("weights", ""))

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        backend: str = "local",
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        quantize: str | None = "auto",
        kv_tokens: int | None = None,
        kv_dtype: str | torch.dtype = "auto",
        page_size: int = 16,
        prefill_chunk: int = 512,
        seed: int = 0,
        attention: str = "auto",
        runner: str = "auto",
        speculate: bool | None = None,
        draft: str | Path | None = None,
        adapter: str | Path | None = None,
        trust_remote_code: bool = False,
        ignore_unknown: bool = False,
        accept_licence: bool = False,
        progress: Callable[..., None] | None = None,
        **spread: Unpack[SpreadOptions],
    ) -> Engine:
        """Load a model by catalogue name, local folder, GGUF file or hub id, fetching it first where needed.

        ``dtype="auto"`` is float32 on a CPU and bfloat16 on a GPU. ``quantize="packed"`` holds the weights in 4 or 7
        bits for the native kernels; "auto" does so where they are installed; ``quantize=None`` with ``dtype="float32"``
        is the exact mode. What is not known in a GGUF file is refused by name, or left out with ``ignore_unknown``.
        ``kv_tokens=None``: 65536, on vLLM's GPUs all that fit. ``accept_licence`` accepts that of a model which asks
        for it. ``progress`` hears what is fetched or converted. ``draft``: a smaller model of the same tokenizer, asked
        what may come next where speculation is on. ``adapter``: the folder of a LoRA in PEFT's form, merged into the
        weights; as ``name`` it is loaded with the model that it is for. ``backend="vllm"`` runs the model in processes
        of vLLM (``SpreadOptions``) until ``engine.backend.close()``. The other arguments are those of ``Engine``.

        Raises UnknownName, ModelFileError, UnsupportedModel, BadRequest or WorkersLost; each says what to do.
        """
        check_known("backend", backend, ("local", "vllm"))
        if backend == "vllm":
            if quantize == "packed" or device != "auto" or (draft, adapter) != (None, None):
                raise BadRequest("backend='vllm' takes no quantize='packed', device, draft or adapter.")
            from kvorum.backends.vllm.load import load_spread  # seconds of imports that others do without

            far, read = load_spread(
                str(name),
                Spread.of(**spread),
                dtype=dtype,
                kv_tokens=kv_tokens,
                kv_dtype=kv_dtype,
                page_size=page_size,
                attention=attention,
                runner=runner,
                trust_remote_code=trust_remote_code,
                ignore_unknown=ignore_unknown,
                accept_licence=accept_licence,
                progress=progress,
            )
            made = cls(far, read.tokenizer, prefill_chunk=prefill_chunk, seed=seed, name=read.name, speculate=speculate)
            made.unused = read.unused
            return made
        if spread:
            raise BadRequest(f"{', '.join(spread)}: backend='local' is one process; take backend='vllm'.")
        place = find_device(device)
        packed = packs(quantize, place, dtype)
        bare = packed and runner in ("auto", LeanRunner.name) and adapter is None
        kept = load_bare(str(name), ignore_unknown=ignore_unknown, progress=progress) if bare else None
        loaded = kept or load_model(
            str(name),
            dtype=dtype,
            device=place,
            packed=packed,
            adapter=adapter,
            trust_remote_code=trust_remote_code,
            ignore_unknown=ignore_unknown,
            accept_licence=accept_licence,
            progress=progress,
        )
        engine = cls(
            loaded.model,
            loaded.tokenizer,
            kv_tokens=65536 if kv_tokens is None else kv_tokens,
            kv_dtype=kv_dtype,
            page_size=page_size,
            prefill_chunk=prefill_chunk,
            seed=seed,
            name=loaded.name,
            weights="packed" if packed else "exact",
            attention=attention,
            runner=runner,
            speculate=speculate,
        )
        engine.unused, engine.adapter = loaded.unused, loaded.adapter
        if draft is not None:
            engine.draft_by(cls.load(draft, device=device, quantize=quantize, kv_tokens=kv_tokens, progress=progress))
        return engine

    def save(self, block: Block, path: str | Path) -> Path:
        """Write a block to a safetensors file with the model's fingerprint, the token ids and the dtype.

        Raises ForeignBlock: of another engine. BadRequest: its folder is not there. OSError: nothing was changed.
        """
        return save_block(block, Path(path), self.backend, self.pool)

    def load_block(self, path: str | Path, *, name: str = "") -> Block:
        """Read a saved block into this engine's cache, sealed.

        Raises:
            BlockMismatch: it is no block file, or of another model or dtype; the message says which.
            OutOfPages: the cache has no room for it.
        """
        return load_block(Path(path), self.backend, self.pool, name)

    def ask(
        self,
        documents: str | Path | Document | Sequence[Path | Document] | Mapping[str, str],
        questions: str | Sequence[str],
        *,
        tokens: int = 256,
        rules: str | None = None,
        quote: bool = False,
        split: bool = False,
        rows: int | None = None,
        kept: KeptBlocks | None = None,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        trace: str | Path | None = None,
    ) -> Asked:
        """Answer many questions of the same documents side by side; the documents are encoded once.

        Args:
            documents: a text; files (``Path``), documents that were read, or a list of them; or texts by their names.
            questions: one question, or several. tokens: the most tokens of an answer. rules: what every question is
                told of how to answer; None: briefly, from the text alone. quote: each answer with a sentence that
                supports it. split: documents that are too long are read in parts.
            rows: how many questions are answered at once; None: up to 16.
            kept: where documents are looked for encoded, and kept, on disk: ``KeptBlocks()`` is the user's cache
                folder. None: nowhere. sampling: default greedy. budget: default none. trace: a file for its trace.

        Returns the answers in the order of the questions, each with its time.

        Raises BadRequest: no such file, nothing to ask, or too long a text for the model or the cache.
        """
        read, texts, remarks = given_documents(documents)
        asked = [questions] if isinstance(questions, str) else list(questions)
        if not asked:
            raise BadRequest("There is no question; give at least one.")
        result = self.run(
            find("ask"),
            "\n".join(asked),
            workers=rows,
            kept=kept,
            sampling=sampling or Sampling(),
            budget=budget or Budget(),
            trace=trace,
            documents=texts,
            questions=asked,
            remarks=remarks,
            tokens=tokens,
            rules=rules,
            quote=quote,
            split=split,
        )
        return placed(result.product, read)

    @overload
    def fields(
        self, text: str | Path | Document, schema: SchemaClass[Made], **options: Unpack[FormOptions]
    ) -> Made: ...

    @overload
    def fields(
        self, text: str | Path | Document, schema: str | JsonObject, **options: Unpack[FormOptions]
    ) -> FilledForm: ...

    def fields(
        self, text: str | Path | Document, schema: SchemaClass[Made] | str | JsonObject, **options: Unpack[FormOptions]
    ) -> Made | FilledForm:
        """Fill a form from a text: the leaves of a JSON schema at the same time, each in a row of its own.

        Args:
            text: the text itself, a file (``Path``), or a document that was read.
            schema: a JSON schema, as an object or as JSON text, or a class of pydantic.
            options: see ``FormOptions``.

        Returns an instance of a class; of a schema the filled form, whose ``value`` fits the schema.

        Raises:
            BadRequest: no such file, too long a text, or a schema that cannot be filled; the message names the place.
            NotFilled: a field that must be there could not be filled; its ``form`` has the others.
        """
        filled = fill_form(self.run, find("fields"), text, schema, options)
        return filled if isinstance(schema, str | Mapping) else schema.model_validate(filled.value)

    run = to_its_end(arun)
    """Let a program solve a task; the arguments are those of ``kvorum.arun``. Not from inside a coroutine."""

    decide = to_its_end(adecide)
    """Ask typed questions about a state; the arguments are those of ``kvorum.adecide``. Not from inside a coroutine."""
