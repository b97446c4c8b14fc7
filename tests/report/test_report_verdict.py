import pytest
import sample

from mfn_compile.report import tables
from mfn_compile.report.verdict import DEMO, tiles, verdict
from mfn_compile.results import Gate, Gates


def _gate(passed):
    return None if passed is None else Gate(passed=passed, limit=1, value=1, text="")


@pytest.mark.parametrize(
    ("drop", "latency", "headline", "passed"),
    [
        (True, True, "Accuracy and latency budgets met", True),
        (False, False, "Accuracy and latency budgets missed", False),
        (False, True, "Accuracy budget missed, latency budget met", False),
        (True, False, "Latency budget missed, accuracy budget met", False),
        (True, None, "Accuracy budget met, latency not checked", True),
        (None, False, "Latency budget missed, accuracy not checked", False),
        (None, None, "No budget was checked", None),
    ],
)
def test_headline(drop, latency, headline, passed):
    gates = Gates(drop=_gate(drop), latency=_gate(latency))
    found = verdict(sample.complete().model_copy(update={"gates": gates}))
    assert (found.headline, found.passed) == (headline, passed)


def test_sentence_names_all_that_matters():
    sentence = verdict(sample.complete()).sentence
    for part in ("foamliu_mobilefacenet", "intel", "LFW", "99.23 %", "99.20 %", "0.033", "0.200"):
        assert part in sentence
    for part in ("4.41 ms", "18.00 ms", "measured", "1 thread"):
        assert part in sentence


def test_without_evaluation_and_latency():
    found = verdict(sample.minimal())
    assert "not evaluated" in found.sentence
    assert "not taken" in found.sentence
    assert found.caveats == ()
    assert [tile.label for tile in tiles(sample.minimal())] == ["INT8 model"]


def test_demo_is_called_what_it_is():
    found = verdict(sample.demo())
    assert DEMO in found.sentence
    assert DEMO in found.caveats[0]


def test_own_checkpoint_on_rendered_faces_is_told():
    result = sample.demo()
    own = result.checkpoint.model_copy(update={"demo": False, "name": "mine"})
    found = verdict(result.model_copy(update={"checkpoint": own}))
    assert "rendered faces, not photographs" in found.caveats[0]


def test_modelled_time_is_a_caveat_and_shows_its_interval():
    result = sample.on_board()
    assert any("nothing ran on the board" in text for text in verdict(result).caveats)
    assert "17.2 ms (modelled for Raspberry Pi 4, Cortex-A72 1.8 GHz, 1 thread, 14 to 21 ms" in (
        verdict(result).sentence
    )
    assert "that it keeps to it is uncertain" in verdict(result).sentence


def test_an_uncertain_budget_is_neither_met_nor_missed():
    result = sample.on_board()
    assert verdict(result).headline == "Latency budget uncertain, accuracy not checked"
    assert verdict(result).passed is None
    gates = result.gates.model_copy(update={"drop": _gate(False)})
    assert verdict(result.model_copy(update={"gates": gates})).passed is False


def test_cycles_of_a_core_are_no_time():
    result = sample.on_board()
    bare = result.device.model_copy(update={"milliseconds": None, "title": "Cortex-A72"})
    result = result.model_copy(update={"device": bare, "gates": Gates()})
    assert any("no time" in text for text in verdict(result).caveats)
    assert "million cycles (modelled for Cortex-A72, 1 thread; no time)" in verdict(result).sentence


def _paired(**changes):
    evaluation = sample.evaluation()
    test = evaluation.paired.model_copy(update=changes)
    return tables.paired_meaning(evaluation.model_copy(update={"paired": test}))


def test_meaning_of_the_paired_test():
    assert "73 %" in _paired()
    assert "no real change" in _paired()
    assert "no loss to be seen" in _paired(lost=0, gained=0, flipped=0, mcnemar_p=1.0)
    lost = _paired(lost=20, gained=2, flipped=22, mcnemar_p=0.0001)
    assert "less than 0.1 %" in lost
    assert "chance seldom makes such a loss" in lost
    assert "chance seldom makes such a gain" in _paired(lost=2, gained=12, mcnemar_p=0.013)


def test_tiles_carry_the_gates():
    states = {tile.label: tile.state for tile in tiles(sample.demo())}
    assert states["Accuracy drop"] == "fail"
    assert states["Time of one image"] == "fail"
    assert states["INT8 model"] == "none"


def test_lowest_layers_come_worst_first():
    layers = sample.complete().quantization.layers
    rows = tables.lowest(layers, 3)
    values = [layers[row.number - 1].sqnr_db for row in rows]
    assert values == sorted(layer.sqnr_db for layer in layers)[:3]


def test_an_evaluation_without_a_budget_says_so():
    result = sample.complete().model_copy(update={"gates": Gates()})
    under = {tile.label: tile.under for tile in tiles(result)}
    assert under["Accuracy drop"] == "no budget"
    assert under["Time of one image"] == "measured"


def test_arm_sizes_are_shown():
    size = sample.complete().size.model_copy(
        update={"text": 90_000, "rodata": 1_100_000, "workspace": 1_700_000}
    )
    assert [row.label for row in tables.size(size)][-3:] == ["Code", "Constants", "Workspace"]
