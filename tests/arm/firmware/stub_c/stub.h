/* A stand-in for the compiled network: small, deterministic, with the contract's names. */
#include <stddef.h>
#include <stdint.h>

enum { HEIGHT = 6, WIDTH = 4, VALUES = HEIGHT * WIDTH * 3, DIM = 8, WORKSPACE = 128 };
