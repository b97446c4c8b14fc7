"""The search: each candidate in turns with the best so far, kept when better beyond the noise."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.errors import DeviceError
from mfn_compile.intel.embedder import OpenVinoEmbedder
from mfn_compile.intel.form import INSTANCES, ROUNDS, Contest, Form, contest
from mfn_compile.intel.islands import LayerGain, by_gain, layer_seconds
from mfn_compile.intel.noise import noise
from mfn_compile.intel.plan import Candidate, Plan, candidates
from mfn_compile.intel.runtime import compile_model, latency_properties
from mfn_compile.knob_result import KnobSearch, KnobTrial, Outcome
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import Progress
from mfn_compile.vectors import cosines

SECONDS = 16.0  # after which no other candidate of the built-in list is begun
IMAGES = 32  # whose embeddings must not change, or not for the worse


@dataclass(frozen=True)
class Found:
    """The best plan, its IR, and the evidence."""

    plan: Plan
    xml: Path
    search: KnobSearch


def search(
    int8: Path,
    fp32: Path,
    scratch: Path,
    *,
    preprocessing: Preprocessing,
    crops: NDArray[np.uint8],
    device: str,
    isa: str | None,
    threads: int,
    tune: int | None,
    progress: Progress,
) -> Found:
    """Look for a faster way to run `int8` on `threads` threads.

    Args:
        int8: IR of the default, which is not changed.
        fp32: IR of the float network: its embeddings are what a candidate is held against.
        scratch: folder for the candidates' IRs; the best one's is there afterwards.
        crops: uint8 RGB [N, 112, 112, 3]; the first is timed, the first `IMAGES` are compared.
        tune: number of candidates; None is the built-in list, for at most `SECONDS`.

    Raises:
        DeviceError: the device is absent or refuses the default.
    """
    start = time.monotonic()
    plan = Plan(latency_properties(threads))
    base = Form.of(plan, int8, device, preprocessing)
    built_in, further = candidates(
        base.instances[0], device, threads, _layers(int8, fp32, plan, device, preprocessing, crops)
    )
    listed = built_in if tune is None else [*built_in, *further][:tune]
    with progress.task("searching OpenVINO's settings", 1 + len(listed)) as task:
        run = _Search(base, fp32, scratch, crops, isa)
        task.advance(note="default against itself")
        untried: list[str] = []
        for candidate in listed:
            if tune is None and time.monotonic() - start > SECONDS:
                untried.append(candidate.name)
            else:
                run.attempt(candidate)
            task.advance(note=candidate.name)
        return run.found(untried)


def _layers(
    int8: Path,
    fp32: Path,
    plan: Plan,
    device: str,
    preprocessing: Preprocessing,
    crops: NDArray[np.uint8],
) -> list[LayerGain]:
    """The convolutions by what they would gain in float32, from the runtime's own counters."""
    counting = {**plan.properties, "PERF_COUNT": "YES"}
    tensor = preprocessing.apply(crops[:1])
    first, second = (
        layer_seconds(compile_model(xml, device, counting), tensor) for xml in (int8, fp32)
    )
    return by_gain(first, second)


def first_outcome(found: Contest, noise: float, *, faithful: bool, offered: bool) -> Outcome:
    """What a candidate's first measurement decides; "kept" is still to be confirmed.

    Args:
        noise: ratio of at least 1 that the interval must be above.
        faithful: whether its embeddings are as near to the float network's as the best so far.
        offered: whether it is the user's to choose.
    """
    if offered:
        return "for information"
    if found.pixels.low <= noise:
        return "slower" if found.pixels.high < 1 / noise else "within the noise"
    if not faithful:
        return "less faithful"
    # Who normalizes in less time than numpy needs must not lose by it.
    return "kept" if found.inference > 1 / noise else "slower inside OpenVINO"


class _Search:
    def __init__(
        self,
        base: Form,
        fp32: Path,
        scratch: Path,
        crops: NDArray[np.uint8],
        isa: str | None,
    ) -> None:
        self._default, self._best, self._scratch, self._isa = base, base, scratch, isa
        self._crops, self._crop = crops[:IMAGES], crops[:1]
        plan = Plan(base.plan.properties)
        float_form = Form.of(plan, fp32, base.device, base.preprocessing)
        self._float = float_form.embed(self._crops)
        self._embeddings = base.embed(self._crops)
        self._cosine = self._cosine_of(self._embeddings)
        self._control = contest(base, base.renewed(), self._crop).pixels
        self._noise = noise(self._control)
        self._trials: list[KnobTrial] = []
        self._first_cosine = self._cosine

    def _cosine_of(self, embeddings: NDArray[np.float32]) -> float:
        # bfloat16 kernels of a CPU that is held to AVX2 give NaN, and no error.
        if not np.isfinite(embeddings).all():
            return 0.0
        return float(cosines(embeddings, self._float).mean())

    def attempt(self, candidate: Candidate) -> None:
        """Measure a candidate against the best so far, and keep it when it is better."""
        best, plan = self._best, candidate.applied(self._best.plan)
        if plan == best.plan:  # one layer of a group that was kept
            return
        xml = self._scratch / f"candidate_{len(self._trials)}.xml"
        try:
            xml = plan.write(self._default.xml, best.preprocessing, xml)
            form = Form.of(plan, xml, best.device, best.preprocessing)
        except DeviceError:
            self._record(candidate, "refused by OpenVINO")
            return
        embeddings = form.embed(self._crops)
        cosine = self._cosine_of(embeddings)
        same = np.array_equal(embeddings, self._embeddings)
        first = contest(best, form, self._crop)
        faithful = same or cosine >= self._cosine
        outcome = first_outcome(first, self._noise, faithful=faithful, offered=candidate.offered)
        again = None
        if outcome == "kept":
            again = contest(best.renewed(), form.renewed(), self._crop)
            outcome = self._second_outcome(again, form, embeddings)
        if outcome == "kept":
            self._best, self._cosine, self._embeddings = form, cosine, embeddings
        self._record(candidate, outcome, first, again, same=same, cosine=cosine)

    def _second_outcome(
        self, again: Contest, form: Form, embeddings: NDArray[np.float32]
    ) -> Outcome:
        if again.pixels.low <= self._noise:
            return "within the noise"
        # Drift is measured on all cores: it must be the drift of what was timed.
        evaluated = OpenVinoEmbedder(
            form.xml, form.preprocessing, form.device, self._isa, form.plan.properties
        )
        same = np.array_equal(evaluated.embed(self._crops), embeddings)
        return "kept" if same else "other bits in the evaluation"

    def _record(
        self,
        candidate: Candidate,
        outcome: Outcome,
        first: Contest | None = None,
        again: Contest | None = None,
        *,
        same: bool | None = None,
        cosine: float | None = None,
    ) -> None:
        self._trials.append(
            KnobTrial(
                name=candidate.name,
                change=candidate.change(),
                ratio=first.pixels if first else None,
                inference=first.inference if first else None,
                again=again.pixels if again else None,
                rounds=INSTANCES * ROUNDS * bool(first) + INSTANCES * ROUNDS * bool(again),
                same_bits=same,
                cosine=cosine,
                outcome=outcome,
            )
        )

    def found(self, untried: list[str]) -> Found:
        """The result; what was kept is measured once more, as a whole."""
        gain = None
        if self._best is not self._default:
            gain = contest(self._default.renewed(), self._best.renewed(), self._crop)
        result = KnobSearch(
            noise=self._noise,
            control=self._control,
            images=len(self._crops),
            cosine=self._first_cosine,
            trials=tuple(self._trials),
            untried=tuple(untried),
            gain=gain.pixels if gain else None,
            gain_inference=gain.inference if gain else None,
        )
        return Found(self._best.plan, self._best.xml, result)
