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
