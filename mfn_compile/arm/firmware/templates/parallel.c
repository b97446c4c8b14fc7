/*
 * parallel.c - mfn_embed_parallel on a pool of POSIX threads, compared with mfn_embed and timed.
 *
 *     cc -std=c11 -O2 -pthread -Iinclude parallel.c lib/libmfn.a -o parallel
 *     ./parallel golden/000.rgb [THREADS] [RUNS]
 *
 * The pool is what a program may take from here: pool_run is the parallel_for, with the pool as its
 * context. One call of mfn_embed_parallel at a time can use a pool.
 * Exit code: 0 every run gave the bits of mfn_embed, 1 it did not, 2 wrong usage or file.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mfn.h"

/* ---- the pool ------------------------------------------------------------------------------- */

/* A thread looks at the others SPINS times, a fraction of a millisecond, before it sleeps. */
enum { MAX_THREADS = 64, SPINS = 200000 };

struct pool {
    pthread_mutex_t mutex; /* for writing what follows; atomics are looked at without it */
    pthread_cond_t changed;
    atomic_int left, busy; /* tasks that nobody has begun, -1 to stop; begun and not ended */
    int32_t count;
    mfn_task *task;
    void *argument;
    int helpers;
    pthread_t threads[MAX_THREADS];
};

/* Do tasks while there are any; the mutex is held before and after. */
static void pool_help(struct pool *pool) {
    while (pool->left > 0) {
        int32_t index = pool->count - pool->left--;
        pool->busy++;
        pthread_mutex_unlock(&pool->mutex);
        pool->task(pool->argument, index); /* no other task comes while this one is busy */
        pthread_mutex_lock(&pool->mutex);
        if (--pool->busy == 0) {
            pthread_cond_broadcast(&pool->changed);
        }
    }
}

/* Wait while a value is `old`, first awake, then asleep; the mutex is held before and after. */
static void pool_wait(struct pool *pool, atomic_int *value, int old) {
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < SPINS && *value == old; i++) {
    }
    pthread_mutex_lock(&pool->mutex);
    while (*value == old) {
        pthread_cond_wait(&pool->changed, &pool->mutex);
    }
}

static void *pool_thread(void *context) {
    struct pool *pool = context;
    pthread_mutex_lock(&pool->mutex);
    while (pool->left >= 0) {
        pool_help(pool);
        pool_wait(pool, &pool->left, 0);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* An mfn_parallel_for; its context is the pool. */
static void pool_run(void *context, mfn_task *task, void *argument, int32_t count) {
    struct pool *pool = context;
    pthread_mutex_lock(&pool->mutex);
    pool->task = task;
    pool->argument = argument;
    pool->left = pool->count = count;
    pthread_cond_broadcast(&pool->changed);
    pool_help(pool);
    while (pool->busy > 0) {
        pool_wait(pool, &pool->busy, pool->busy);
    }
    pthread_mutex_unlock(&pool->mutex);
}

static void pool_start(struct pool *pool, int helpers) {
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->changed, NULL);
    while (pool->helpers < helpers &&
           pthread_create(&pool->threads[pool->helpers], NULL, pool_thread, pool) == 0) {
        pool->helpers++;
    }
}

static void pool_stop(struct pool *pool) {
    pool_run(pool, NULL, NULL, -1);
    while (pool->helpers > 0) {
        pthread_join(pool->threads[--pool->helpers], NULL);
    }
}

/* ---- the program ---------------------------------------------------------------------------- */

#define PIXELS ((size_t)MFN_INPUT_HEIGHT * MFN_INPUT_WIDTH * 3)

static uint8_t face[PIXELS];
static unsigned char memory[MFN_WORKSPACE_BYTES + MFN_PARALLEL_WORKSPACE_BYTES +
                            2 * MFN_WORKSPACE_ALIGNMENT];

static int read_face(const char *path) {
    FILE *file = fopen(path, "rb");
    int fits = file != NULL && fread(face, 1, PIXELS, file) == PIXELS && fgetc(file) == EOF;
    if (file != NULL) {
        fclose(file);
    }
    return fits;
}

static unsigned char *aligned(unsigned char *place) {
    uintptr_t past = (uintptr_t)place % MFN_WORKSPACE_ALIGNMENT;
    return place + (past ? MFN_WORKSPACE_ALIGNMENT - past : 0);
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Both in turn, so that a change of the clock meets both; whether every run has the same bits. */
static int compare(struct pool *pool, int runs, double *one, double *all) {
    static float expected[MFN_EMBEDDING_DIM], found[MFN_EMBEDDING_DIM];
    unsigned char *workspace = aligned(memory);
    unsigned char *shared = aligned(workspace + MFN_WORKSPACE_BYTES);
    int same = 1;
    for (int i = 0; i < runs; i++) {
        double start = milliseconds();
        same &= mfn_embed(face, expected, workspace) == MFN_OK;
        double middle = milliseconds();
        same &= mfn_embed_parallel(face, found, shared, pool_run, pool) == MFN_OK;
        all[i] = milliseconds() - middle;
        one[i] = middle - start;
        same &= memcmp(expected, found, sizeof found) == 0;
    }
    qsort(one, (size_t)runs, sizeof *one, by_size);
    qsort(all, (size_t)runs, sizeof *all, by_size);
    return same;
}

int main(int argc, char **argv) {
    enum { MAX_RUNS = 10000 };
    static double one[MAX_RUNS], all[MAX_RUNS];
    static struct pool pool;
    int threads = argc > 2 ? atoi(argv[2]) : 4, runs = argc > 3 ? atoi(argv[3]) : 20;
    if (argc < 2 || argc > 4 || threads < 1 || threads > MAX_THREADS || runs < 1 ||
        runs > MAX_RUNS) {
        fprintf(stderr, "usage: parallel FILE.rgb [THREADS, to %d] [RUNS, to %d]\n", MAX_THREADS,
                MAX_RUNS);
        return 2;
    }
    if (!read_face(argv[1])) {
        fprintf(stderr, "%s: not %lu bytes that can be read\n", argv[1], (unsigned long)PIXELS);
        return 2;
    }
    pool_start(&pool, threads - 1);
    threads = pool.helpers + 1;
    int same = compare(&pool, runs, one, all);
    pool_stop(&pool);
    printf("%d threads: %s\n", threads, same ? "the bits of mfn_embed" : "OTHER BITS");
    printf("median of %d runs: mfn_embed %.3f ms, mfn_embed_parallel %.3f ms\n", runs,
           one[runs / 2], all[runs / 2]);
    return same ? 0 : 1;
}
