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

/* ---- which variants run here ---------------------------------------------------------------- */

static void choose_entries(void) {
#ifndef MFN_VARIANT
    const char *missing = "dot product";
    int any = 0; /* the dispatcher is the last entry */
    for (int i = 0; i < ENTRIES; i++) {
        if (strcmp(entries[i].name, "neon") == 0) {
            entries[i].runs = 1;
        } else if (strcmp(entries[i].name, "dotprod") == 0) {
            entries[i].runs = mfn_has_dotprod();
#ifdef MFN_HAS_I8MM
        } else if (strcmp(entries[i].name, "i8mm") == 0) {
            entries[i].runs = mfn_has_i8mm();
            missing = "int8 matrix product";
#endif
        } else {
            entries[i].runs = any;
        }
        any |= entries[i].runs;
        if (!entries[i].runs) {
            printf("SKIP %s: this CPU has no %s instructions\n", entries[i].name, missing);
        }
    }
#endif
}

/* ---- golden files --------------------------------------------------------------------------- */

static int complain(const char *path, const char *what) {
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", path, what);
    return 0;
}

/* A whole file of exactly `size` bytes; 0 with a message otherwise. */
static int read_exactly(const char *path, void *buffer, size_t size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return complain(path, strerror(errno));
    }
    size_t got = fread(buffer, 1, size, file);
    int more = got == size && fgetc(file) != EOF;
    fclose(file);
    if (got != size) {
        return complain(path, "the file is too short for this library's input or embedding");
    }
    return more ? complain(path, "the file is too long for this library's input or embedding") : 1;
}

/* FOLDER/NAME in a buffer of MAX_PATH bytes. */
static int join(char *path, const char *folder, const char *name) {
    int length = snprintf(path, MAX_PATH, "%s/%s", folder, name);
    return length > 0 && length < MAX_PATH ? 1 : complain(folder, "the name is too long");
}

static int read_numbered(const char *folder, int index, const char *suffix, void *to, size_t size) {
    char name[24], path[MAX_PATH];
    snprintf(name, sizeof name, "%03d.%s", index, suffix);
    return join(path, folder, name) && read_exactly(path, to, size);
}

static int read_vector(const char *folder, int index, struct vector *vector) {
    unsigned char raw[MFN_EMBEDDING_DIM * 4];
    vector->rgb = malloc(PIXELS);
    vector->quantized = malloc(PIXELS);
    if (vector->rgb == NULL || vector->quantized == NULL) {
        return complain(folder, "not enough memory");
    }
    if (!read_numbered(folder, index, "rgb", vector->rgb, PIXELS) ||
        (entries[0].quantized != NULL &&
         !read_numbered(folder, index, "i8", vector->quantized, PIXELS)) ||
        !read_numbered(folder, index, "f32", raw, sizeof raw)) {
        return 0;
    }
    for (int i = 0; i < MFN_EMBEDDING_DIM; i++) { /* little-endian, whatever this CPU is */
        vector->bits[i] = (uint32_t)raw[4 * i] | (uint32_t)raw[4 * i + 1] << 8 |
                          (uint32_t)raw[4 * i + 2] << 16 | (uint32_t)raw[4 * i + 3] << 24;
    }
    return 1;
}

/* vectors.txt: "count N", then one line "NNN name" a vector; lines with # are remarks. */
static int read_list(FILE *file, const char *path) {
    char line[256];
    int expected = -1;
    while (fgets(line, sizeof line, file) != NULL) {
        int index = -1;
        char name[MAX_NAME];
        if (line[0] == '#' || line[0] == '\n') {
            continue;
        }
        if (expected < 0) {
            if (sscanf(line, "count %d", &expected) != 1 || expected < 1 ||
                expected > MAX_VECTORS) {
                return complain(path, "the first line must be: count N, N from 1 to 1000");
            }
        } else if (sscanf(line, "%d %63[^\n]", &index, name) != 2 || index != vector_count ||
                   vector_count >= expected) {
            return complain(path, "a line is not the next vector's number and name");
        } else {
            strcpy(vectors[vector_count++].name, name);
        }
    }
    return vector_count == expected ? 1 : complain(path, "vectors are missing");
}

static int read_golden(const char *folder) {
    char path[MAX_PATH];
    if (!join(path, folder, "vectors.txt")) {
        return 0;
    }
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return complain(path, strerror(errno));
    }
    int good = read_list(file, path);
    fclose(file);
    for (int i = 0; good && i < vector_count; i++) {
        good = read_vector(folder, i, &vectors[i]);
    }
    return good;
}

static void free_golden(void) {
    for (int i = 0; i < vector_count; i++) {
        free(vectors[i].rgb);
        free(vectors[i].quantized);
    }
}

/* ---- one call ------------------------------------------------------------------------------- */

static size_t workspace_bytes(enum way way) {
    return way == PARALLEL ? MFN_PARALLEL_WORKSPACE_BYTES : MFN_WORKSPACE_BYTES;
}

/* Whether a vector goes through a function: a few are enough to see that tasks fit together. */
static int is_wanted(const struct entry *entry, int index, enum way way) {
    if (way == PARALLEL) {
        return index == 0 || index == vector_count - 1;
    }
    return way == RGB || entry->quantized != NULL;
}

/* All tasks, the last one first. */
static void backwards(void *context, mfn_task *task, void *argument, int32_t count) {
    (void)context;
    while (count > 0) {
        task(argument, --count);
    }
}

static void free_scratch(struct scratch *scratch) {
    free(scratch->allocation);
    free(scratch->embedding);
}

static int make_scratch(struct scratch *scratch) {
    size_t one = workspace_bytes(RGB), other = workspace_bytes(PARALLEL);
    size_t most = one > other ? one : other;
    scratch->allocation = malloc(most + MFN_WORKSPACE_ALIGNMENT + GUARD);
    scratch->embedding = malloc(sizeof(float) * MFN_EMBEDDING_DIM + GUARD);
    if (scratch->allocation == NULL || scratch->embedding == NULL) {
        free_scratch(scratch);
        return 0;
    }
    uintptr_t past = (uintptr_t)scratch->allocation % MFN_WORKSPACE_ALIGNMENT;
    scratch->workspace = scratch->allocation + (past ? MFN_WORKSPACE_ALIGNMENT - past : 0);
    return 1;
}

static int guard_is_whole(const void *guard) {
    for (int i = 0; i < GUARD; i++) {
        if (((const unsigned char *)guard)[i] != GUARD_BYTE) {
            return 0;
        }
    }
    return 1;
}

/* Fill what a call may write with `fill`, and what it must not write with the guard. */
static void prepare(struct scratch *scratch, enum way way, int fill) {
    memset(scratch->workspace, fill, workspace_bytes(way));
    memset(scratch->workspace + workspace_bytes(way), GUARD_BYTE, GUARD);
    memset(scratch->embedding, 0xFF, sizeof(float) * MFN_EMBEDDING_DIM);
    memset(scratch->embedding + MFN_EMBEDDING_DIM, GUARD_BYTE, GUARD);
}

/* Compare bits; on a difference describe the first one in `text`. */
static int compare(const struct vector *vector, const float *embedding, char *text, size_t size) {
    int first = -1, differing = 0;
    uint32_t found = 0, wrong = 0;
    for (int i = 0; i < MFN_EMBEDDING_DIM; i++) {
        memcpy(&found, &embedding[i], sizeof found);
        if (found != vector->bits[i]) {
            if (first < 0) {
                first = i;
                wrong = found;
            }
            differing++;
        }
    }
    if (first >= 0) {
        snprintf(text, size, "float %d has the bits 0x%08lx instead of 0x%08lx; %d of %d differ",
                 first, (unsigned long)wrong, (unsigned long)vector->bits[first], differing,
                 MFN_EMBEDDING_DIM);
    }
    return first < 0;
}

static int call(const struct entry *entry, enum way way, const struct vector *vector,
                struct scratch *scratch) {
    float *embedding = scratch->embedding;
    if (way == PARALLEL) {
        return entry->parallel(vector->rgb, embedding, scratch->workspace, backwards, NULL);
    }
    return way == RGB ? entry->rgb(vector->rgb, embedding, scratch->workspace)
                      : entry->quantized(vector->quantized, embedding, scratch->workspace);
}

/* Run one vector through one function of one entry; 1 when it is right, `text` says why not. */
static int run(const struct entry *entry, enum way way, int index, struct scratch *scratch,
               char *text, size_t size) {
    static const unsigned char fills[] = {0x00, 0xFF, 0xA5, 0x7F};
    const struct vector *vector = &vectors[index];
    prepare(scratch, way, fills[(index * WAYS + way) % 4]);
    int status = call(entry, way, vector, scratch);
    if (status != MFN_OK) {
        snprintf(text, size, "returned %d", status);
        return 0;
    }
    if (!guard_is_whole(scratch->workspace + workspace_bytes(way))) {
        snprintf(text, size, "wrote behind the workspace");
        return 0;
    }
    if (!guard_is_whole(scratch->embedding + MFN_EMBEDDING_DIM)) {
        snprintf(text, size, "wrote behind the embedding");
        return 0;
    }
    return compare(vector, scratch->embedding, text, size);
}

static int run_all(struct scratch *scratch) {
    int failures = 0;
    for (int e = 0; e < ENTRIES; e++) {
        for (int v = 0; entries[e].runs && v < vector_count; v++) {
            for (enum way way = RGB; way < WAYS; way++) {
                char text[160];
                if (!is_wanted(&entries[e], v, way)) {
                    continue;
                }
                int good = run(&entries[e], way, v, scratch, text, sizeof text);
                printf("%s %s %03d %s %s%s%s\n", good ? "PASS" : "FAIL", entries[e].name, v,
                       vectors[v].name, way_names[way], good ? "" : ": ", good ? "" : text);
                failures += !good;
            }
        }
    }
    return failures;
}

/* ---- wrong arguments ------------------------------------------------------------------------ */

static int check_refusals(const struct entry *entry, struct scratch *scratch) {
    const uint8_t *rgb = vectors[0].rgb;
    float *out = scratch->embedding;
    unsigned char *space = scratch->workspace;
    int failures = 0, written = 0;
    prepare(scratch, RGB, 0);
    const struct {
        const char *what;
        int found, expected;
    } cases[] = {
        {"rgb NULL", entry->rgb(NULL, out, space), MFN_ERROR_NULL},
        {"embedding NULL", entry->rgb(rgb, NULL, space), MFN_ERROR_NULL},
        {"workspace NULL", entry->rgb(rgb, out, NULL), MFN_ERROR_NULL},
        {"workspace 1 byte off", entry->rgb(rgb, out, space + 1), MFN_ERROR_ALIGNMENT},
        {"parallel rgb NULL", entry->parallel(NULL, out, space, backwards, NULL),
         MFN_ERROR_NULL},
        {"parallel embedding NULL", entry->parallel(rgb, NULL, space, backwards, NULL),
         MFN_ERROR_NULL},
        {"parallel workspace NULL", entry->parallel(rgb, out, NULL, backwards, NULL),
         MFN_ERROR_NULL},
        {"parallel_for NULL", entry->parallel(rgb, out, space, NULL, NULL), MFN_ERROR_NULL},
        {"parallel workspace 1 byte off", entry->parallel(rgb, out, space + 1, backwards, NULL),
         MFN_ERROR_ALIGNMENT},
#ifdef MFN_HAS_QUANTIZED_INPUT
        {"input NULL", entry->quantized(NULL, out, space), MFN_ERROR_NULL},
        {"quantized embedding NULL", entry->quantized(vectors[0].quantized, NULL, space),
         MFN_ERROR_NULL},
        {"quantized workspace NULL", entry->quantized(vectors[0].quantized, out, NULL),
         MFN_ERROR_NULL},
        {"quantized workspace 32 bytes off",
         entry->quantized(vectors[0].quantized, out, space + 32), MFN_ERROR_ALIGNMENT},
#endif
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int good = cases[i].found == cases[i].expected;
        printf("%s %s refuses %s: returned %d", good ? "PASS" : "FAIL", entry->name, cases[i].what,
               cases[i].found);
        if (!good) {
            printf(" instead of %d", cases[i].expected);
        }
        printf("\n");
        failures += !good;
    }
    for (size_t i = 0; i < sizeof(float) * MFN_EMBEDDING_DIM; i++) {
        written |= ((const unsigned char *)out)[i] != 0xFF;
    }
    if (written) {
        printf("FAIL %s wrote to the embedding of a call that it refused\n", entry->name);
    }
    return failures + written;
}

/* ---- many threads at once ------------------------------------------------------------------- */

#ifndef MFN_NO_THREADS
struct worker {
    pthread_t thread;
    int number;
    int failures;
    char text[256]; /* the first failure */
};

static void *work(void *argument) {
    struct worker *worker = argument;
    struct scratch scratch;
    if (!make_scratch(&scratch)) {
        worker->failures = 1;
        snprintf(worker->text, sizeof worker->text, "not enough memory");
        return NULL;
    }
    /* Every entry with every kind of input, one of them in tasks; each thread starts elsewhere, on
     * another vector. */
    for (int i = 0; i < WAYS * ENTRIES; i++) {
        int step = i / WAYS + worker->number;
        enum way way = i % WAYS;
        const struct entry *entry = &entries[step % ENTRIES];
        int v = step % vector_count;
        char why[160];
        while (!entry->runs) { /* one does, or this would not have been started */
            entry = &entries[(entry - entries + 1) % ENTRIES];
        }
        if ((way == QUANTIZED && entry->quantized == NULL) || (way == PARALLEL && i >= WAYS) ||
            run(entry, way, v, &scratch, why, sizeof why)) {
            continue;
        }
        if (worker->failures++ == 0) {
            snprintf(worker->text, sizeof worker->text, "%s %03d %s: %s", entry->name, v,
                     way_names[way], why);
        }
    }
    free_scratch(&scratch);
    return NULL;
}

static int run_threads(int count) {
    static struct worker workers[MAX_THREADS];
    int failures = 0, started = 0;
    for (; started < count; started++) {
        workers[started].number = started;
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0) {
            printf("FAIL only %d of %d threads could be started\n", started, count);
            failures++;
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].failures) {
            printf("FAIL thread %d: %s\n", i, workers[i].text);
        }
        failures += workers[i].failures;
    }
    if (failures == 0) {
        printf("PASS %d threads at once, every embedding the oracle's\n", count);
    }
    return failures;
}
#endif

/* ---- the program ---------------------------------------------------------------------------- */

static int parse(int argc, char **argv, const char **folder, int *threads) {
    int named = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            char *end;
            long count = strtol(argv[++i], &end, 10);
            if (*end != '\0' || count < 1 || count > MAX_THREADS) {
                return 0;
            }
            *threads = (int)count;
        } else if (argv[i][0] == '-' || named++) {
            return 0;
        } else {
            *folder = argv[i];
        }
    }
    return 1;
}

static int verify(struct scratch *scratch, int threads) {
    int failures = run_all(scratch), printed = 0;
    for (int e = 0; e < ENTRIES; e++) {
        failures += entries[e].runs ? check_refusals(&entries[e], scratch) : 0;
    }
    if (threads > 0) {
#ifdef MFN_NO_THREADS
        printf("FAIL --threads: built without threads\n");
        failures++;
#else
        failures += run_threads(threads);
#endif
    }
    printf("RESULT variants=");
    for (int e = 0; e < ENTRIES; e++) {
        if (entries[e].runs && strcmp(entries[e].name, "dispatcher") != 0) {
            printf("%s%s", printed++ ? "," : "", entries[e].name);
        }
    }
    printf(" vectors=%d failures=%d\n", vector_count, failures);
    return failures ? EXIT_DIFFERENT : EXIT_SAME;
}

int main(int argc, char **argv) {
    const char *folder = "golden";
    int threads = 0, runnable = 0, result = EXIT_FILES;
    struct scratch scratch;
    if (!parse(argc, argv, &folder, &threads)) {
        fprintf(stderr, "usage: verify [GOLDEN_FOLDER] [--threads N], N from 1 to %d\n",
                MAX_THREADS);
        return EXIT_FILES;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* so that a crash leaves the lines before it */
    choose_entries();
    for (int e = 0; e < ENTRIES; e++) {
        runnable += entries[e].runs;
    }
    if (runnable == 0) {
        fprintf(stderr, "this CPU can run no variant of this library\n");
        return EXIT_CPU;
    }
    if (read_golden(folder)) {
        if (make_scratch(&scratch)) {
            result = verify(&scratch, threads);
            free_scratch(&scratch);
        } else {
            complain("verify", "not enough memory");
        }
    }
    free_golden();
    return result;
}
