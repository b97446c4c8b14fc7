"""A small benchmark with every kind of row."""

from __future__ import annotations

from mfn_compile.bench.results import OURS, Bench, Count, Drift, Model, Native
from mfn_compile.device_result import Milliseconds

WRONG = "its embedding is not the network's: cosine 0.819, below 0.99"
SAMPLE = Bench(
    network="sample",
    crops="rendered faces",
    command="mfn-compile bench --device virtual:cortex-a72 --peers ncnn,mnn",
    host="A processor, x86_64",
    models=(
        Model(
            engine=OURS,
            precision="int8",
            version="0.1.0",
            quantizer="the bundle's recipe",
            model_bytes=1_119_424,
            runtime_bytes=61_532,
            memory_bytes=1_783_068,
            cosine=0.9983,
            lfw=Drift(accuracy=99.28, change=0.067, kept_change=0.0, cosine=0.9983),
        ),
        Model(engine="ncnn", precision="f32", version="1.0", quantizer="", cosine=1.0),
        Model(engine="mnn", precision="f32", version="3", quantizer="", failure=WRONG),
    ),
    counts=(
        Count(
            engine="ncnn",
            precision="f32",
            device="cortex-a72",
            cycles=44e6,
            instructions=74_400_000,
            l1_misses=280_612,
            l2_misses=12_336,
            cosine=1.0,
        ),
        Count(
            engine=OURS,
            precision="int8",
            device="cortex-a72",
            cycles=40e6,
            instructions=71_000_000,
            l1_misses=359_413,
            l2_misses=25_549,
            milliseconds=Milliseconds(value=31.5, low=26.0, high=38.1),
        ),
        Count(
            engine="ncnn",
            precision="int8",
            device="cortex-a72",
            cycles=30e6,
            instructions=60_000_000,
            l1_misses=1,
            l2_misses=1,
            cosine=0.991,
        ),
        Count(engine="mnn", precision="f32", device="cortex-a72", reason=WRONG),
    ),
    native=(
        Native(engine=OURS, precision="int8", milliseconds=4.0, ratio=1.0, low=1.0, high=1.0),
        Native(engine="ncnn", precision="f32", milliseconds=8.2, ratio=2.05, low=2.0, high=2.2),
        Native(engine="mnn", precision="f32", reason=WRONG),
    ),
)
