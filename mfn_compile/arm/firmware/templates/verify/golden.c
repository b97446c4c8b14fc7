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

