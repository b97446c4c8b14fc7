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

