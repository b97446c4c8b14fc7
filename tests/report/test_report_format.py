import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile.report import format as fmt

NUMBERS = st.floats(-1e6, 1e6)


@given(NUMBERS, st.integers(0, 6))
def test_rounding_is_right_and_zero_has_no_sign(value, digits):
    text = fmt.fixed(value, digits)
    number = float(text.replace(",", ""))
    assert abs(number - value) <= 0.5000001 * 10**-digits + 1e-9
    assert number != 0 or not text.startswith("-")


@given(NUMBERS, st.integers(0, 6))
def test_sign_is_that_of_what_is_shown(value, digits):
    text = fmt.signed(value, digits)
    number = float(text.replace(",", ""))
    assert text[0] == ("+" if number > 0 else "-" if number < 0 else "0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fmt.percent(99.2333), "99.23 %"),
        (fmt.percent(99.2333, 0.4123), "99.23 % ± 0.41"),
        (fmt.points(-1 / 60), "-0.017"),
        (fmt.points(-0.0001), "0.000"),
        (fmt.drop(0.0333), "0.033 points"),
        (fmt.drop(-0.05), "-0.050 points"),
        (fmt.milliseconds(4.412), "4.41 ms"),
        (fmt.milliseconds(0.0623), "0.062 ms"),
        (fmt.size(999), "999 bytes"),
        (fmt.size(1_214_733), "1.21 MB (1,214,733 bytes)"),
        (fmt.short_size(12_300), "12.30 kB"),
        (fmt.short_size(5), "5 bytes"),
        (fmt.short_size(2_500_000_000), "2.50 GB"),
        (fmt.p_value(0.0000001), "< 0.001"),
        (fmt.p_value(0.7265625), "0.727"),
        (fmt.plural(1, "image"), "1 image"),
        (fmt.plural(1300, "image"), "1,300 images"),
        (fmt.plural(2, "does", "do"), "2 do"),
        (fmt.ratio(1.447), "1.45x"),
        (fmt.decibels(10.55), "10.6 dB"),
        (fmt.cosine(0.997312), "0.99731"),
    ],
)
def test_examples(text, expected):
    assert text == expected
