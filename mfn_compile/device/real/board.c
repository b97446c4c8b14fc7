/*
 * board.c - what a board does for mfn-compile: check golden vectors, time inferences, time kernels.
 *
 *     cc -std=c99 -O2 -Iinclude board.c lib/libmfn.a -o board
 *     ./board FOLDER JOB WARM_UP REPEATS BUDGET_MS
 *
 * FOLDER holds golden.bin (each vector: the pixels, the int8 input where there is one, the
 * embedding) and gets result.txt, lines of a name and values; the last one is "end". JOB: 0 checks
 * the variant neon, 1 dotprod, 2 times mfn_embed, 3 times every kernel, 4 checks i8mm.
 *
 * With -DMFN_BOARD_SHARED it becomes a shared object that TVM's RPC server loads, with one
 * function of TVM's calling convention (tvm_call.h). With -DMFN_MARKS_NEON=N, _DOTPROD=N and _I8MM=N
 * the library calls mfn_mark before each of a variant's N kernels and behind the last one.
 *
 * Only functions that the C library had in 2012 (glibc 2.17) are used, and with -std=c99 new headers
 * give none of them a newer name. Exit code: an `enum failure`.
 */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "mfn.h"

#ifndef MFN_BOARD_WORKSPACE
#define MFN_BOARD_WORKSPACE MFN_WORKSPACE_BYTES
#endif

enum failure { WRITTEN, NO_MEMORY, NO_GOLDEN, NO_RESULT, REFUSED, BAD_CALL };
enum job { CHECK_NEON, CHECK_DOTPROD, TIME, LAYERS, CHECK_I8MM };
enum {
    PIXELS = MFN_INPUT_HEIGHT * MFN_INPUT_WIDTH * 3,
    BYTES = MFN_EMBEDDING_DIM * 4,
#ifdef MFN_HAS_QUANTIZED_INPUT
    INTEGERS = PIXELS,
#else
    INTEGERS = 0,
#endif
    RECORD = PIXELS + INTEGERS + BYTES,
    CPUS = 1024,
    LEAST = 5, /* repeats that no budget cuts */
    TEXT = 128,
    FOLDER = 4096
};

typedef int embed(const uint8_t *, float *, void *);
typedef int embed_quantized(const int8_t *, float *, void *);
struct setup {
    unsigned char *golden;
    long vectors;
    void *allocation;
    unsigned char *workspace;
    float embedding[MFN_EMBEDDING_DIM];
    int core; /* -1 where it cannot be chosen */
    unsigned long mask[CPUS / 8 / sizeof(unsigned long)];
    long mask_bytes;
};

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* ---- what the system exposes ---------------------------------------------------------------- */

/* First line of a file without control characters; 0 where it cannot be read. */
static int read_line(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "r");
    size_t length = 0;
    text[0] = '\0';
    if (file == NULL) {
        return 0;
    }
    for (int c; length + 1 < size && (c = getc(file)) != EOF && c != '\n' && c != '\0';) {
        text[length++] = c < 32 || c > 126 ? '?' : (char)c;
    }
    text[length] = '\0';
    fclose(file);
    return length > 0;
}

/* A decimal number of a file, -1 where there is none; temperatures may be negative. */
static long read_number(const char *path, int *known) {
    char text[TEXT];
    long value = 0, sign = 1;
    const char *at = text;
    *known = read_line(path, text, sizeof text);
    if (*at == '-') {
        sign = -1;
        at++;
    }
    *known = *known && *at >= '0' && *at <= '9';
    for (; *at >= '0' && *at <= '9' && value < 1000000000; at++) {
        value = value * 10 + (*at - '0');
    }
    return *known ? sign * value : -1;
}

static void cpufreq_path(char *path, size_t size, int core, const char *name) {
    snprintf(path, size, "/sys/devices/system/cpu/cpu%d/cpufreq/%s", core, name);
}

/* The fastest core that this process may use; of equals the last, which interrupts use least. */
static int fastest_core(const struct setup *setup) {
    int best = -1, known;
    long most = -1;
    for (int core = 0; core < setup->mask_bytes * 8 && core < CPUS; core++) {
        char path[TEXT];
        int bits = 8 * (int)sizeof setup->mask[0];
        if (setup->mask[core / bits] >> core % bits & 1) {
            cpufreq_path(path, sizeof path, core, "cpuinfo_max_freq");
            long frequency = read_number(path, &known);
            if (frequency >= most) {
                most = frequency;
                best = core;
            }
        }
    }
    return best;
}

static void pin(struct setup *setup) {
    unsigned long one[sizeof setup->mask / sizeof setup->mask[0]] = {0};
    int bits = 8 * (int)sizeof one[0];
    setup->mask_bytes = syscall(SYS_sched_getaffinity, 0, sizeof setup->mask, setup->mask);
    setup->core = setup->mask_bytes > 0 ? fastest_core(setup) : -1;
    if (setup->core >= 0) {
        one[setup->core / bits] = 1UL << setup->core % bits;
        if (syscall(SYS_sched_setaffinity, 0, sizeof one, one) != 0) {
            setup->core = -1;
        }
    }
}

static void unpin(const struct setup *setup) {
    if (setup->core >= 0) {
        syscall(SYS_sched_setaffinity, 0, sizeof setup->mask, setup->mask);
    }
}

/* The hottest thermal zone in millidegrees; those that say what no chip can be are broken. */
static void write_temperature(FILE *out, const char *when) {
    DIR *folder = opendir("/sys/class/thermal");
    long hottest = -1000000;
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char path[512];
        int known;
        if (strncmp(entry->d_name, "thermal_zone", 12) == 0) {
            snprintf(path, sizeof path, "/sys/class/thermal/%s/temp", entry->d_name);
            long value = read_number(path, &known);
            if (known && value > -60000 && value < 200000 && value > hottest) {
                hottest = value;
            }
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    if (hottest > -1000000) {
        fprintf(out, "%s.millidegrees %ld\n", when, hottest);
    }
}

static void write_state(FILE *out, const struct setup *setup, const char *when) {
    char path[TEXT], text[TEXT];
    int known, core = setup->core < 0 ? 0 : setup->core;
    cpufreq_path(path, sizeof path, core, "scaling_governor");
    if (read_line(path, text, sizeof text)) {
        fprintf(out, "%s.governor %s\n", when, text);
    }
    cpufreq_path(path, sizeof path, core, "scaling_cur_freq");
    long kilohertz = read_number(path, &known);
    if (known) {
        fprintf(out, "%s.kilohertz %ld\n", when, kilohertz);
    }
    write_temperature(out, when);
}

/* Of the chosen core: "name value" of the lines of /proc/cpuinfo that name it. */
static void write_cpuinfo(FILE *out, int core) {
    static const char *const wanted[][2] = {{"CPU implementer", "cpu.implementer"},
                                            {"CPU part", "cpu.part"},
                                            {"model name", "cpu.model"}};
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[1024];
    int here = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        line[strcspn(line, "\n")] = '\0';
        if (colon == NULL || colon[1] == '\0') {
            continue;
        }
        if (strncmp(line, "processor", 9) == 0) {
            here = atoi(colon + 1) == (core < 0 ? 0 : core);
        }
        for (size_t i = 0; here && i < sizeof wanted / sizeof wanted[0]; i++) {
            if (strncmp(line, wanted[i][0], strlen(wanted[i][0])) == 0) {
                fprintf(out, "%s %.100s\n", wanted[i][1], colon + 2);
            }
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

static void write_board(FILE *out, const struct setup *setup) {
    struct utsname name;
    char text[TEXT];
    if (uname(&name) == 0) {
        fprintf(out, "machine %s\nkernel %s\nnode %s\n", name.machine, name.release, name.nodename);
    }
    if (read_line("/proc/device-tree/model", text, sizeof text)) {
        fprintf(out, "model %s\n", text);
    }
    fprintf(out, "core %d\nvectors %ld\n", setup->core, setup->vectors);
    write_cpuinfo(out, setup->core);
}

/* ---- the jobs ------------------------------------------------------------------------------- */

static const unsigned char *vector_of(const struct setup *setup, long index) {
    return setup->golden + (size_t)index * RECORD;
}

static int is_right(const struct setup *setup, long index) {
    return memcmp(setup->embedding, vector_of(setup, index) + PIXELS + INTEGERS, BYTES) == 0;
}

struct variant {
    int runs; /* whether library and CPU have it */
    embed *rgb;
    embed_quantized *integers;
};
#ifdef MFN_HAS_QUANTIZED_INPUT
#define VARIANT(runs, name) (struct variant){runs, mfn_embed_##name, mfn_embed_quantized_##name}
#else
#define VARIANT(runs, name) (struct variant){runs, mfn_embed_##name, NULL}
#endif
static struct variant variant_of(enum job check) {
#ifdef MFN_HAS_NEON
    if (check == CHECK_NEON) return VARIANT(1, neon);
#endif
#ifdef MFN_HAS_DOTPROD
    if (check == CHECK_DOTPROD) return VARIANT(mfn_has_dotprod(), dotprod);
#endif
#ifdef MFN_HAS_I8MM
    if (check == CHECK_I8MM) return VARIANT(mfn_has_i8mm(), i8mm);
#endif
    (void)check;
    return (struct variant){0, NULL, NULL};
}

static int runs(enum job check) { return variant_of(check).runs; }

/* Every vector through one variant; the first that differs ends it. */
static int check(struct setup *setup, FILE *out, struct variant variant) {
    if (!variant.runs) {
        fprintf(out, "skipped 1\n");
        return WRITTEN;
    }
    for (long i = 0; i < setup->vectors; i++) {
        const unsigned char *record = vector_of(setup, i);
        memset(setup->embedding, 0xFF, BYTES);
        if (variant.rgb(record, setup->embedding, setup->workspace) != MFN_OK) {
            return REFUSED;
        }
        int good = is_right(setup, i);
        if (good && variant.integers != NULL) {
            memset(setup->embedding, 0xFF, BYTES);
            memset(setup->workspace, 0xA5, MFN_BOARD_WORKSPACE);
            const int8_t *input = (const int8_t *)record + PIXELS;
            if (variant.integers(input, setup->embedding, setup->workspace)) {
                return REFUSED;
            }
            good = is_right(setup, i);
        }
        if (!good) {
            fprintf(out, "wrong %ld\n", i);
            return WRITTEN;
        }
        fprintf(out, "right %ld\n", i);
    }
    return WRITTEN;
}

#ifdef MFN_MARKS_NEON
enum { MARKS = MFN_MARKS_NEON + MFN_MARKS_DOTPROD + MFN_MARKS_I8MM }; /* enough for each */
static int64_t marks[MARKS + 1];
void mfn_mark(int32_t index);
void mfn_mark(int32_t index) {
    if (index >= 0 && index <= MARKS) {
        marks[index] = now();
    }
}

static void write_times(FILE *out, int64_t whole) {
    (void)whole;
    int plain = runs(CHECK_DOTPROD) ? MFN_MARKS_DOTPROD : MFN_MARKS_NEON;
    int count = runs(CHECK_I8MM) ? MFN_MARKS_I8MM : plain;
    fprintf(out, "layers");
    for (int i = 0; i < count; i++) {
        fprintf(out, " %lld", (long long)(marks[i + 1] - marks[i]));
    }
    fprintf(out, "\n");
}
#else
static void write_times(FILE *out, int64_t whole) {
    fprintf(out, "time %lld\n", (long long)whole);
}
#endif

static int time_embed(struct setup *setup, FILE *out, const long *limits) {
    int64_t start = 0;
    long warm_up = limits[0], repeats = limits[1], budget_ms = limits[2];
    if (!runs(CHECK_NEON) && !runs(CHECK_DOTPROD) && !runs(CHECK_I8MM)) {
        fprintf(out, "skipped 1\n");
        return WRITTEN;
    }
    for (long i = -warm_up; i < repeats; i++) {
        long index = (i + warm_up) % setup->vectors;
        if (i == 0) {
            write_state(out, setup, "before");
            start = now();
        } else if (i >= LEAST && (now() - start) / 1000000 >= budget_ms) {
            break;
        }
        int64_t before = now();
        int failed = mfn_embed(vector_of(setup, index), setup->embedding, setup->workspace);
        int64_t after = now();
        if (failed) {
            return REFUSED;
        }
        if (!is_right(setup, index)) {
            fprintf(out, "wrong %ld\n", index);
            return WRITTEN;
        }
        if (i >= 0) {
            write_times(out, after - before);
        }
    }
    write_state(out, setup, "after");
    return WRITTEN;
}

/* ---- the frame around a job ----------------------------------------------------------------- */

static int read_golden(struct setup *setup, const char *folder) {
    char path[FOLDER + 16];
    snprintf(path, sizeof path, "%.4000s/golden.bin", folder);
    FILE *file = fopen(path, "rb");
    long size = -1;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0) {
        size = ftell(file);
    }
    if (size < RECORD || size % RECORD != 0 || fseek(file, 0, SEEK_SET) != 0) {
        size = -1;
    }
    setup->golden = size < 0 ? NULL : malloc((size_t)size);
    if (setup->golden == NULL || fread(setup->golden, 1, (size_t)size, file) != (size_t)size) {
        size = -1;
    }
    setup->vectors = size / RECORD;
    if (file != NULL) {
        fclose(file);
    }
    return size >= 0;
}

static int do_job(struct setup *setup, FILE *out, int job, const long *limits) {
    fprintf(out, "mfn-board 1\n");
    write_board(out, setup);
    fprintf(out, "dotprod %d\n", mfn_has_dotprod());
    fprintf(out, "i8mm %d\n", runs(CHECK_I8MM));
    if (job == CHECK_NEON || job == CHECK_DOTPROD || job == CHECK_I8MM) {
        return check(setup, out, variant_of(job));
    }
    return job == TIME || job == LAYERS ? time_embed(setup, out, limits) : BAD_CALL;
}

static int run_job(const char *folder, int job, const long *limits) {
    char path[FOLDER + 16];
    int result = NO_GOLDEN;
    struct setup *setup = calloc(1, sizeof *setup);
    if (setup == NULL) {
        return NO_MEMORY;
    }
    setup->allocation = malloc((size_t)MFN_BOARD_WORKSPACE + MFN_WORKSPACE_ALIGNMENT);
    if (setup->allocation == NULL) {
        result = NO_MEMORY;
    } else if (read_golden(setup, folder)) {
        uintptr_t past = (uintptr_t)setup->allocation % MFN_WORKSPACE_ALIGNMENT;
        setup->workspace =
            (unsigned char *)setup->allocation + (past ? MFN_WORKSPACE_ALIGNMENT - past : 0);
        snprintf(path, sizeof path, "%.4000s/result.txt", folder);
        FILE *out = fopen(path, "w");
        result = NO_RESULT;
        if (out != NULL) {
            pin(setup);
            result = do_job(setup, out, job, limits);
            unpin(setup);
            fprintf(out, "end\n");
            int failed = ferror(out);
            result = fclose(out) != 0 || failed ? NO_RESULT : result;
        }
    }
    free(setup->golden);
    free(setup->allocation);
    free(setup);
    return result;
}

#ifdef MFN_BOARD_SHARED
#include "tvm_call.h"

/* Called as mfn_board(folder, job, warm_up, repeats, budget_ms). */
int __tvm_ffi_mfn_board(void *self, const any *arguments, int32_t count, any *result);
int __tvm_ffi_mfn_board(void *self, const any *arguments, int32_t count, any *result) {
    char space[FOLDER];
    const char *folder = count == 5 ? string_of(&arguments[0], space, sizeof space) : NULL;
    long limits[3];
    (void)self;
    result->type_index = 1; /* an integer */
    result->small_length = 0;
    result->value.integer = BAD_CALL;
    if (folder != NULL) {
        for (int i = 0; i < 3; i++) {
            limits[i] = (long)arguments[2 + i].value.integer;
        }
        result->value.integer = run_job(folder, (int)arguments[1].value.integer, limits);
    }
    return 0;
}
#else
int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: board FOLDER JOB WARM_UP REPEATS BUDGET_MS\n");
        return BAD_CALL;
    }
    const long limits[3] = {atol(argv[3]), atol(argv[4]), atol(argv[5])};
    return run_job(argv[1], atoi(argv[2]), limits);
}
#endif
