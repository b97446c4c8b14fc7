"""Names in ONNX graphs: those of the modules that nodes come from, and none empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Operators that are the whole of a module; others, as a residual Add, add their own name to it.
WHOLE_MODULES = frozenset({"Conv", "PRelu", "Relu", "Clip"})


def name_after_modules(model: Any) -> None:
    """Turn the exporter's '/blocks/blocks.0/expand/conv/Conv' into 'blocks.0.expand.conv'.

    A node's output gets the node's name, a PReLU's slope that name and '.weight'; what the graph
    takes and returns keeps its names. Constant nodes become initializers.
    """
    graph = model.graph
    fixed = {value.name for value in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}
    for node in graph.node:
        node.name = module_name(node.name, node.op_type)
        if node.op_type == "PRelu":
            renamed[node.input[1]] = f"{node.name}.weight"
        for output in node.output:
            if output not in fixed:
                renamed[output] = node.name
    rename_tensors(model, renamed)
    hoist_constants(model)


def module_name(name: str, op_type: str) -> str:
    """Module path of a node that torch's exporter named."""
    parts = name.strip("/").split("/")
    # nested modules repeat their parent: blocks/blocks.0
    parts = [p for p, after in zip(parts, [*parts[1:], ""], strict=True) if f"{p}." not in after]
    if op_type in WHOLE_MODULES and len(parts) > 1:
        parts.pop()
    else:
        parts[-1] = parts[-1].lower()
    return ".".join(parts)


def name_missing(model: Any) -> None:
    """Give each node without a name, or with another one's, a name of its own."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)


def rename_tensors(model: Any, renamed: Mapping[str, str]) -> None:
    """Rename tensors everywhere; a tensor that has one of the new names already makes way."""
    graph = model.graph
    changes = {old: new for old, new in renamed.items() if old != new}
    table = {new: f"{new}_" for new in changes.values()} | changes
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = table.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [table.get(name, name) for name in node.input]
        node.output[:] = [table.get(name, name) for name in node.output]


def hoist_constants(model: Any) -> None:
    """Turn Constant nodes into initializers."""
    graph = model.graph
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
