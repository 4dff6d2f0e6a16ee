/* What the floors in C share: where a row's values are, the file of keys, memory and time. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_BLOCKS 64

struct block {
    size_t offset, bytes;
};

struct keys {
    const char **at;
    size_t *length;
    size_t count;
};

static void fail(const char *why) {
    fprintf(stderr, "floor: %s\n", why);
    exit(1);
}

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) fail("out of memory");
    return memory;
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static struct keys read_keys(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail("cannot read the file of keys");
    size_t size = (size_t)ftell(file);
    char *bytes = allocate(size);
    rewind(file);
    if (fread(bytes, 1, size, file) != size) fail("cannot read the file of keys");
    fclose(file);
    size_t most = size / sizeof(uint32_t) + 1;
    struct keys keys = {allocate(most * sizeof(char *)), allocate(most * sizeof(size_t)), 0};
    for (size_t at = 0; at < size;) {
        const unsigned char *u = (const unsigned char *)bytes + at;
        if (size - at < 4) fail("the file of keys ends within a length");
        size_t length = u[0] | (size_t)u[1] << 8 | (size_t)u[2] << 16 | (size_t)u[3] << 24;
        at += 4;
        if (size - at < length) fail("the file of keys ends within a key");
        keys.at[keys.count] = bytes + at;
        keys.length[keys.count++] = length;
        at += length;
    }
    return keys;
}

static int read_blocks(char *text, size_t row_bytes, struct block *blocks) {
    int count = 0;
    for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
        struct block *b = &blocks[count];
        if (count++ == MAX_BLOCKS) fail("too many blocks");
        if (sscanf(part, "%zu:%zu", &b->offset, &b->bytes) != 2) fail("a block is OFFSET:BYTES");
        if (b->offset + b->bytes > row_bytes || b->bytes % sizeof(float)) fail("a block lies outside of the row");
    }
    return count;
}
