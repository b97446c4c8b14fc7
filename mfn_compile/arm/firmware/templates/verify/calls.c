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

