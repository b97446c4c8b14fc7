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

