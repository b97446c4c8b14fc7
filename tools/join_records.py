#!/usr/bin/env python3
"""Joins the records of several tunings for the cores that ship with the project.

    python tools/join_records.py FOLDER... --cpu cortex-a72 --out targets/tuned

Every folder is one that `mfn-compile tune --out` wrote. Exit codes: 0 done, 2 wrong usage, 3 a
folder has no records of the core, or they cannot be joined.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mfn_compile.arm.schedules import load_folder
from mfn_compile.errors import MfnError
from mfn_compile.tune.shipping import merged


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cpu", required=True, help="LLVM's name of the core")
    parser.add_argument("--out", required=True, type=Path, help="folder of CPU.json")
    wanted = parser.parse_args()
    try:
        several = [load_folder(folder, [wanted.cpu])[wanted.cpu] for folder in wanted.folders]
        joined = merged(several)
        joined.save(wanted.out / f"{wanted.cpu}.json")
    except MfnError as error:
        print(error.paragraph(), file=sys.stderr)
        return int(error.exit_code)
    print(f"{len(joined.entries)} kernels of {len(several)} networks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
