"""The folder that is shipped: the artifact, its evidence, and a manifest that proves both whole.

`writer.write_bundle` makes one, `manifest.verify_bundle` checks one.
"""
