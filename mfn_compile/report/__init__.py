"""The evidence of a run for people: report.json, report.html and the console's summary.

Everything here is a function of a `mfn_compile.results.Result` and of nothing else. Import the
modules, not this package: `html` and `figures` need matplotlib, which starts slowly.
"""
