"""Real boards: a library checked and timed on one over TVM's RPC, or on this machine itself."""
