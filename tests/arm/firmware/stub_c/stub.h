/* A stand-in for the compiled network: small, deterministic, with the contract's names. */
#include <stddef.h>
#include <stdint.h>

enum { HEIGHT = 6, WIDTH = 4, VALUES = HEIGHT * WIDTH * 3, DIM = 8, WORKSPACE = 128 };

typedef void task_function(void *argument, int32_t index);
typedef void for_function(void *context, task_function *task, void *argument, int32_t count);
