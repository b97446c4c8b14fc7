"""`python -m mfn_compile` is `mfn-compile`."""

from mfn_compile.cli.app import main

if __name__ == "__main__":
    main()
