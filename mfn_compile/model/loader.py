"""One call from a checkpoint file to the network and what is known about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mfn_compile.errors import BadInputError, MfnError, UsageError
from mfn_compile.model.build import Hints, build, multiply_adds, parameter_count
from mfn_compile.model.checkpoint import Weights, read_weights
from mfn_compile.model.layouts import HALF_RGB, Normalization
from mfn_compile.model.network import Activation, MobileFaceNet
from mfn_compile.model.onnx_model import read_onnx
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.model.recognise import recognise
from mfn_compile.results import CheckpointInfo

ONNX_SUFFIX = ".onnx"
ONNX_LAYOUT = "onnx"
OVERRIDABLE = ("color", "mean", "std")


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint: a torch network in eval mode, or the path of a checked ONNX file."""

    info: CheckpointInfo
    module: MobileFaceNet | None
    onnx_path: Path | None


def load_checkpoint(
    path: Path | str,
    *,
    preprocessing_override: Mapping[str, Any] | None = None,
    bn_eps: float | None = None,
) -> LoadedModel:
    """Load `.pt`, `.pth`, `.ckpt`, `.safetensors` or `.onnx`.

    Args:
        path: the file.
        preprocessing_override: any of `color` ("RGB" or "BGR"), `mean`, `std` (three numbers or
            one for all channels, in 8-bit units); the rest comes from the file or its layout.
        bn_eps: epsilon of every BatchNorm; by default the file's metadata or the layout says.

    Raises:
        BadInputError: the file cannot be used; the message says why.
        UsageError: an override is not valid.
    """
    path = Path(path)
    override = _normalized(preprocessing_override or {})
    if path.suffix.lower() == ONNX_SUFFIX:
        if bn_eps is not None:
            raise UsageError("a BatchNorm epsilon cannot be set for an ONNX file", where=str(path))
        return _load_onnx(path, override)
    if bn_eps is not None and not 0 < bn_eps < 1:
        raise UsageError(f"the BatchNorm epsilon {bn_eps} is not between 0 and 1")
    return _load_weights(path, override, bn_eps)


def _load_weights(path: Path, override: dict[str, Any], bn_eps: float | None) -> LoadedModel:
    weights = read_weights(path)
    where = str(path)
    found = recognise(weights.state, where)
    network = build(found, weights.state, _hints(weights, bn_eps, where), where)
    config = network.config
    preprocessing = _preprocessing(
        found.layout.normalization,
        (config.height, config.width),
        weights.metadata,
        override,
        where,
    )
    kinds = [config.activation]
    if config.depthwise or config.depthwise_pointwise:
        kinds.append(config.depthwise_activation)
    info = CheckpointInfo(
        name=path.stem,
        sha256=weights.sha256,
        layout=found.layout.name,
        parameters=parameter_count(found, weights.state),
        macs=multiply_adds(network),
        embedding_width=config.embedding_width,
        activations=tuple(dict.fromkeys(str(kind) for kind in kinds)),
        preprocessing=preprocessing,
        demo=weights.metadata.get("demo", "").lower() in ("true", "1"),
    )
    return LoadedModel(info, network, None)


def _load_onnx(path: Path, override: dict[str, Any]) -> LoadedModel:
    checked = read_onnx(path)
    preprocessing = _preprocessing(
        HALF_RGB, (checked.height, checked.width), checked.metadata, override, str(path)
    )
    info = CheckpointInfo(
        name=path.stem,
        sha256=checked.sha256,
        layout=ONNX_LAYOUT,
        parameters=checked.parameters,
        macs=checked.macs,
        embedding_width=checked.embedding_width,
        activations=checked.activations,
        preprocessing=preprocessing,
    )
    return LoadedModel(info, None, path)


def _normalized(override: Mapping[str, Any]) -> dict[str, Any]:
    """Check the keys and spread single numbers over the channels."""
    values = {key: value for key, value in override.items() if value is not None}
    unknown = [key for key in values if key not in OVERRIDABLE]
    if unknown:
        raise UsageError(
            f"{unknown[0]!r} cannot be overridden",
            hint=f"known are {', '.join(OVERRIDABLE)}; height and width follow from the weights",
        )
    for key in ("mean", "std"):
        if isinstance(values.get(key), int | float):
            values[key] = (values[key],) * 3
    if isinstance(values.get("color"), str):
        values["color"] = values["color"].upper()
    return values


def _preprocessing(
    default: Normalization,
    size: tuple[int, int],
    metadata: Mapping[str, str],
    override: dict[str, Any],
    where: str,
) -> Preprocessing:
    """The layout's default, then what the file states, then what the caller states."""
    fields: dict[str, Any] = {"color": default.color, "mean": default.mean, "std": default.std}
    fields |= {"height": size[0], "width": size[1]}
    stated = _json(metadata, "preprocessing", where) or {}
    if not isinstance(stated, dict):
        raise _bad_metadata("preprocessing", "it is no JSON object", where)
    for key, have in (("height", size[0]), ("width", size[1])):
        if stated.get(key, have) != have:
            raise _bad_metadata("preprocessing", f"{key} {stated[key]}, weights {have}", where)
    base = _validated(fields | stated, lambda why: _bad_metadata("preprocessing", why, where))
    return _validated(
        base.model_dump() | override,
        lambda why: UsageError("the input normalization is not valid", why=why),
    )


def _validated(fields: dict[str, Any], error_of: Any) -> Preprocessing:
    try:
        return Preprocessing(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        failure: MfnError = error_of(f"{place}: {first['msg']}")
        raise failure from error


def _hints(weights: Weights, bn_eps: float | None, where: str) -> Hints:
    """What the safetensors metadata says beyond the weights; an option goes before it."""
    metadata = weights.metadata
    stated_eps = _json(metadata, "bn_eps", where)
    if stated_eps is not None and not (isinstance(stated_eps, float) and 0 < stated_eps < 1):
        raise _bad_metadata("bn_eps", "it is no number between 0 and 1", where)
    strides = _json(metadata, "strides", where)
    if strides is not None and not (
        isinstance(strides, list) and all(s in (1, 2) for s in strides)
    ):
        raise _bad_metadata("strides", "it is no JSON list of 1 and 2", where)
    return Hints(
        bn_eps=stated_eps if bn_eps is None else bn_eps,
        activation=_activation(metadata, "activation", where),
        depthwise_activation=_activation(metadata, "depthwise_activation", where),
        strides=None if strides is None else tuple(strides),
    )


def _activation(metadata: Mapping[str, str], key: str, where: str) -> Activation | None:
    if key not in metadata:
        return None
    try:
        return Activation(metadata[key].lower())
    except ValueError as error:
        raise _bad_metadata(key, f"known are {', '.join(Activation)}", where) from error


def _json(metadata: Mapping[str, str], key: str, where: str) -> Any:
    if key not in metadata:
        return None
    try:
        return json.loads(metadata[key])
    except ValueError as error:
        raise _bad_metadata(key, f"it is no JSON: {error}", where) from error


def _bad_metadata(key: str, why: str, where: str) -> BadInputError:
    return BadInputError(
        f"the checkpoint's metadata entry '{key}' is not valid", where=where, why=why
    )
