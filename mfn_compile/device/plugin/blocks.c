/*
 * blocks.c - a QEMU plugin: how often every basic block ran between two markers, and what a model
 * of the data caches says about its loads and stores.
 *
 * Arguments, by commas: out=FILE, and for the caches l1=BYTES, l1-ways=N, l2=BYTES, l2-ways=N.
 * Without l1 no cache is modelled, which is faster.
 *
 * Markers: the instruction `hint #112` begins the region and `hint #113` ends it; processors take
 * both for a no-op. Programs that cannot execute them call getpid with the arguments MARK, 1 and
 * MARK, 0 instead; Linux ignores arguments of getpid. The block that a marker lies in is counted at
 * its first instruction: the rest of the first block is left out, the last counts whole. The file is
 * written at the end of a region; the last region stays.
 *
 * The file, one record a line, numbers in decimal unless said:
 *
 *     mfn-blocks 1
 *     threads N accesses N
 *     ADDRESS(hex) COUNT L1-MISSES L2-MISSES CODE(hex, as in memory)
 *     end NUMBER-OF-BLOCKS
 *
 * Caches are least recently used, allocate on writes, have lines of 64 bytes and are kept up to
 * date outside of the region too: it starts with what the program left in them.
 * Counters are shared by all threads without locks, so the reader refuses more than one thread.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is used of version 1 of QEMU's plugin interface. Distributions leave qemu-plugin.h out. */
typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info qemu_info_t;
enum { NO_REGISTERS = 0, LOADS_AND_STORES = 3, ADD_U64 = 0 };
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned));
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t,
                                                                      struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *),
                                            int, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *,
                                      void (*)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *),
                                      int, int, void *);
typedef void on_syscall(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, on_syscall *);

#define PUBLIC __attribute__((visibility("default")))
PUBLIC int qemu_plugin_version = 1;
PUBLIC int qemu_plugin_install(qemu_plugin_id_t, const qemu_info_t *, int, char **);

enum { BUCKETS = 1 << 14, LINE_SHIFT = 6, LINE = 1 << LINE_SHIFT };
static const uint32_t BEGIN = 0xd5032e1f, END = 0xd5032e3f; /* hint #112, hint #113 */
static const int64_t GETPID = 172;
static const uint64_t MARK = 0x4d464e42; /* "MFNB" */

struct block {
    uint64_t count, count_before, l1_misses, l2_misses, address;
    size_t bytes;
    unsigned char *code;
    struct block *next;
};

/* The lines of a set, the most recently used first; NO_LINE where there is none yet. */
struct cache {
    size_t sets, ways;
    uint64_t *lines;
};
static const uint64_t NO_LINE = UINT64_MAX;

static struct block *buckets[BUCKETS];
static struct cache l1, l2;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *out;
static unsigned threads;
static uint64_t accesses;
static int active;

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) {
        fprintf(stderr, "blocks plugin: out of memory\n");
        abort();
    }
    return memory;
}

/* Whether the cache has the line; it is the most recently used one afterwards. */
static int look_up(struct cache *cache, uint64_t line) {
    uint64_t *set = cache->lines + line % cache->sets * cache->ways;
    size_t way = 0;
    while (way < cache->ways - 1 && set[way] != line) {
        way++;
    }
    int hit = set[way] == line;
    memmove(set + 1, set, way * sizeof *set);
    set[0] = line;
    return hit;
}

static void on_access(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data) {
    struct block *block = data;
    uint64_t last = address + ((uint64_t)1 << qemu_plugin_mem_size_shift(info)) - 1;
    (void)cpu;
    for (uint64_t line = address >> LINE_SHIFT; line <= last >> LINE_SHIFT; line++) {
        accesses++;
        if (!look_up(&l1, line)) {
            block->l1_misses++;
            block->l2_misses += !look_up(&l2, line);
        }
    }
}

static void begin_region(void) {
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct block *block = buckets[i]; block; block = block->next) {
            block->count_before = block->count;
            block->l1_misses = block->l2_misses = 0;
        }
    }
    accesses = 0;
    active = 1;
    pthread_mutex_unlock(&mutex);
}

static size_t write_blocks(FILE *file) {
    size_t written = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct block *block = buckets[i]; block; block = block->next) {
            uint64_t count = block->count - block->count_before;
            if (count == 0) {
                continue;
            }
            fprintf(file, "%" PRIx64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " ", block->address, count,
                    block->l1_misses, block->l2_misses);
            for (size_t k = 0; k < block->bytes; k++) {
                fprintf(file, "%02x", block->code[k]);
            }
            fputc('\n', file);
            written++;
        }
    }
    return written;
}

static void end_region(void) {
    pthread_mutex_lock(&mutex);
    if (active) {
        active = 0;
        FILE *file = fopen(out, "w");
        if (file != NULL) {
            fprintf(file, "mfn-blocks 1\nthreads %u accesses %" PRIu64 "\n", threads, accesses);
            fprintf(file, "end %zu\n", write_blocks(file));
        }
        if (file == NULL || fclose(file) != 0) {
            perror(out);
        }
    }
    pthread_mutex_unlock(&mutex);
}

static void on_begin(unsigned cpu, void *data) {
    (void)cpu, (void)data;
    begin_region();
}

static void on_end(unsigned cpu, void *data) {
    (void)cpu, (void)data;
    end_region();
}

static void on_call(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t first,
                    uint64_t second, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                    uint64_t f) {
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    if (number == GETPID && first == MARK) {
        second ? begin_region() : end_region();
    }
}

static void on_thread(qemu_plugin_id_t id, unsigned cpu) {
    (void)id;
    threads = cpu + 1 > threads ? cpu + 1 : threads;
}

/* The block of this code at this address: QEMU may translate one several times. Takes `code`. */
static struct block *find_block(uint64_t address, unsigned char *code, size_t bytes) {
    struct block **place = &buckets[(address >> 2) % BUCKETS];
    pthread_mutex_lock(&mutex);
    while (*place != NULL && ((*place)->address != address || (*place)->bytes != bytes ||
                              memcmp((*place)->code, code, bytes) != 0)) {
        place = &(*place)->next;
    }
    if (*place == NULL) {
        *place = allocate(1, sizeof **place);
        (*place)->address = address;
        (*place)->bytes = bytes;
        (*place)->code = code;
    } else {
        free(code);
    }
    pthread_mutex_unlock(&mutex);
    return *place;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    size_t number = qemu_plugin_tb_n_insns(tb);
    unsigned char *code = allocate(number, sizeof(uint32_t));
    (void)id;
    for (size_t i = 0; i < number; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
        memcpy(code + 4 * i, qemu_plugin_insn_data(instruction), sizeof(uint32_t));
    }
    struct block *block = find_block(qemu_plugin_tb_vaddr(tb), code, 4 * number);
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &block->count, 1);
    for (size_t i = 0; i < number; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
        uint32_t word;
        memcpy(&word, block->code + 4 * i, sizeof word);
        if (word == BEGIN || word == END) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, word == BEGIN ? on_begin : on_end,
                                                   NO_REGISTERS, NULL);
        }
        if (l1.sets != 0) {
            qemu_plugin_register_vcpu_mem_cb(instruction, on_access, NO_REGISTERS,
                                             LOADS_AND_STORES, block);
        }
    }
}

/* 0, or -1 where the cache cannot be made. Both sizes 0: there is no cache. */
static int make_cache(struct cache *cache, unsigned long bytes, unsigned long ways) {
    if (bytes == 0 && ways == 0) {
        return 0;
    }
    if (ways == 0 || bytes == 0 || bytes % (LINE * ways) != 0) {
        return -1;
    }
    cache->ways = ways;
    cache->sets = bytes / LINE / ways;
    cache->lines = allocate(cache->sets * ways, sizeof *cache->lines);
    for (size_t i = 0; i < cache->sets * ways; i++) {
        cache->lines[i] = NO_LINE;
    }
    return 0;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    static const char *const names[] = {"l1=", "l1-ways=", "l2=", "l2-ways="};
    unsigned long sizes[4] = {0, 0, 0, 0};
    (void)info;
    for (int i = 0; i < argc; i++) {
        int known = strncmp(argv[i], "out=", 4) == 0;
        if (known) {
            out = strdup(argv[i] + 4);
        }
        for (int k = 0; k < 4 && !known; k++) {
            size_t length = strlen(names[k]);
            known = strncmp(argv[i], names[k], length) == 0;
            sizes[k] = known ? strtoul(argv[i] + length, NULL, 10) : sizes[k];
        }
        if (!known) {
            fprintf(stderr, "blocks plugin: unknown argument %s\n", argv[i]);
            return -1;
        }
    }
    if (out == NULL || make_cache(&l1, sizes[0], sizes[1]) != 0 ||
        make_cache(&l2, sizes[2], sizes[3]) != 0 || !l1.sets != !l2.sets) {
        fprintf(stderr, "blocks plugin: wrong arguments\n");
        return -1;
    }
    qemu_plugin_register_vcpu_init_cb(id, on_thread);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
