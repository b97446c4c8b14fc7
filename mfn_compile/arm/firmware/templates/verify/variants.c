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

