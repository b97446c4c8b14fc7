"""The bundle for firmware engineers: archive, header, proof, and what the machine code costs."""
