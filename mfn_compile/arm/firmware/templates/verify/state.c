/*
 * verify.c - prove that this library computes what its oracle computed, bit for bit.
 *
 *     cc -std=c99 -O2 -pthread -Iinclude verify.c lib/libmfn.a -o verify
 *     ./verify [GOLDEN_FOLDER] [--threads N]
 *
 * Every vector of GOLDEN_FOLDER (default: golden) goes through mfn_embed, and mfn_embed_quantized
 * where there is one, on the dispatcher and on every variant that this CPU can run; the first and
 * the last one go through mfn_embed_parallel as well, its tasks one after another, the last first.
 * Each call starts with a workspace full of another byte and ends with a look at the bytes behind
 * the workspace and behind the embedding. With --threads N, N threads with workspaces of their own
 * then call it at once.
 *
 * Exit code: 0 every float of every embedding has the oracle's bits and every wrong argument is
 * refused; 1 something differs; 2 a file is missing or has the wrong size, or wrong usage, or no
 * memory; 3 this CPU can run no variant of this library.
 *
 * -DMFN_VARIANT=neon (or dotprod, i8mm) checks that variant alone, without the dispatcher, and
 * -DMFN_NO_THREADS builds without pthreads, both for systems without an operating system.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200112L /* nothing but pthreads needs it */
#endif

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef MFN_NO_THREADS
#include <pthread.h>
#endif

#include "mfn.h"

enum { EXIT_SAME = 0, EXIT_DIFFERENT = 1, EXIT_FILES = 2, EXIT_CPU = 3 };
enum { MAX_VECTORS = 1000, MAX_NAME = 64, MAX_PATH = 4096, MAX_THREADS = 256, GUARD = 256 };

#define PIXELS ((size_t)MFN_INPUT_HEIGHT * MFN_INPUT_WIDTH * 3)
#define GUARD_BYTE 0xC3

/* Functions of one variant: of pixels, the same in tasks, and of int8 values where the network
 * takes them. */
enum way { RGB, PARALLEL, QUANTIZED, WAYS };
static const char *const way_names[] = {"mfn_embed", "mfn_embed_parallel", "mfn_embed_quantized"};
#ifdef MFN_HAS_QUANTIZED_INPUT
#define INT8(function) function
#else
#define INT8(function) NULL
#endif

typedef int (*embed_rgb)(const uint8_t *rgb, float *embedding, void *workspace);
typedef int (*embed_int8)(const int8_t *input, float *embedding, void *workspace);
typedef int (*embed_parallel)(const uint8_t *rgb, float *embedding, void *workspace,
                              mfn_parallel_for *parallel_for, void *context);

/* One way into the library. */
struct entry {
    const char *name;
    embed_rgb rgb;
    embed_parallel parallel;
    embed_int8 quantized; /* NULL where the network takes no int8 values */
    int runs;             /* whether this CPU can run it */
};

/* One golden vector. */
struct vector {
    char name[MAX_NAME];
    uint8_t *rgb;
    int8_t *quantized;
    uint32_t bits[MFN_EMBEDDING_DIM]; /* the oracle's embedding */
};

/* Memory of one thread: what a call writes to, each with guard bytes behind it. */
struct scratch {
    unsigned char *allocation;
    unsigned char *workspace; /* aligned; what the function needs, then GUARD bytes */
    float *embedding;         /* MFN_EMBEDDING_DIM floats, then GUARD bytes */
};

static struct vector vectors[MAX_VECTORS];
static int vector_count;

/* Quoted after expansion: the variant's name. */
#define TEXT(name) TEXT_(name)
#define TEXT_(name) #name

#ifdef MFN_VARIANT
static struct entry entries[] = {
    {TEXT(MFN_VARIANT), mfn_embed, mfn_embed_parallel, INT8(mfn_embed_quantized), 1},
};
#else
static struct entry entries[] = {
#ifdef MFN_HAS_NEON
    {"neon", mfn_embed_neon, mfn_embed_parallel_neon, INT8(mfn_embed_quantized_neon), 0},
#endif
#ifdef MFN_HAS_DOTPROD
    {"dotprod", mfn_embed_dotprod, mfn_embed_parallel_dotprod, INT8(mfn_embed_quantized_dotprod),
     0},
#endif
#ifdef MFN_HAS_I8MM
    {"i8mm", mfn_embed_i8mm, mfn_embed_parallel_i8mm, INT8(mfn_embed_quantized_i8mm), 0},
#endif
    {"dispatcher", mfn_embed, mfn_embed_parallel, INT8(mfn_embed_quantized), 0},
};
#endif
enum { ENTRIES = sizeof entries / sizeof entries[0] };

