/* The floor of many reads at once in C: MGETs on one connection, IN_FLIGHT of them under way, the rows' values copied
 * into a float matrix each. No library: one write for all commands that are due, one read for all replies that are there.
 *
 * pipelined HOST:PORT KEYS_FILE KEYS_PER_REQUEST ITERATIONS ROW_BYTES BLOCKS IN_FLIGHT
 *
 * The arguments are those of floor.c. Prints {"elapsed_s": ..., "samples_us": [...]}: how long each request took.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_BLOCKS 64
#define RECEIVE_BYTES (1 << 20)

struct block {
    size_t offset, bytes;
};

static void fail(const char *why) {
    fprintf(stderr, "pipelined: %s\n", why);
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

static int connect_to(const char *address) {
    const char *colon = strrchr(address, ':');
    if (!colon) fail("the address is HOST:PORT");
    char host[64];
    snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    if (inet_pton(AF_INET, host, &at.sin_addr) != 1) fail("the host is not an IPv4 address");
    int made = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (made < 0 || connect(made, (struct sockaddr *)&at, sizeof at)) fail("cannot connect");
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return made;
}

static char *read_all(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail("cannot read the file of keys");
    *size = (size_t)ftell(file);
    char *bytes = allocate(*size);
    rewind(file);
    if (fread(bytes, 1, *size, file) != *size) fail("cannot read the file of keys");
    fclose(file);
    return bytes;
}

/* A line that starts at `at`: its number, and where the next line starts; NULL when it is not there as a whole. */
static char *line(char *at, char *end, long *number) {
    char *newline = memchr(at, '\n', (size_t)(end - at));
    if (newline) *number = atol(at + 1);
    return newline ? newline + 1 : NULL;
}

int main(int argc, char **argv) {
    if (argc != 8) fail("usage: pipelined HOST:PORT KEYS_FILE KEYS_PER_REQUEST ITERATIONS ROW_BYTES BLOCKS IN_FLIGHT");
    size_t per_request = strtoul(argv[3], NULL, 10), iterations = strtoul(argv[4], NULL, 10);
    size_t row_bytes = strtoul(argv[5], NULL, 10), in_flight = strtoul(argv[7], NULL, 10), values_bytes = 0, size;
    struct block blocks[MAX_BLOCKS];
    int block_count = 0;
    for (char *part = strtok(argv[6], ","); part; part = strtok(NULL, ",")) {
        if (block_count == MAX_BLOCKS || sscanf(part, "%zu:%zu", &blocks[block_count].offset, &blocks[block_count].bytes) != 2)
            fail("a block is OFFSET:BYTES");
        values_bytes += blocks[block_count++].bytes;
    }

    /* The keys, and where each request starts among them. */
    char *keys = read_all(argv[2], &size);
    size_t *starts = allocate((size / 4 + 2) * sizeof(size_t)), count = 0;
    for (size_t at = 0; at < size; count++) {
        uint32_t length;
        memcpy(&length, keys + at, 4);
        if (count % per_request == 0) starts[count / per_request] = at;
        at += 4 + length;
    }
    size_t requests = count / per_request;
    if (!requests) fail("the keys are not whole requests");

    int connection = connect_to(argv[1]);
    size_t most = size + count * 16 + 64; /* of one command, generously */
    char *out = allocate(in_flight * most), *in = allocate(RECEIVE_BYTES), *matrix = allocate(per_request * values_bytes);
    double *began = allocate(iterations * sizeof(double)), *took = allocate(iterations * sizeof(double)), start = now_us();
    size_t sent = 0, done = 0, got = 0, row = 0;
    long elements = -1;
    while (done < iterations) {
        size_t bytes = 0;
        while (sent < iterations && sent < done + in_flight) {
            began[sent] = now_us();
            bytes += (size_t)sprintf(out + bytes, "*%zu\r\n$4\r\nMGET\r\n", per_request + 1);
            size_t at = starts[sent++ % requests];
            for (size_t k = 0; k < per_request; k++) {
                uint32_t length;
                memcpy(&length, keys + at, 4);
                bytes += (size_t)sprintf(out + bytes, "$%u\r\n", length);
                memcpy(out + bytes, keys + at + 4, length);
                memcpy(out + bytes + length, "\r\n", 2);
                bytes += length + 2;
                at += 4 + length;
            }
        }
        for (size_t written = 0; written < bytes;) {
            ssize_t part = write(connection, out + written, bytes - written);
            if (part <= 0) fail("the connection was lost");
            written += (size_t)part;
        }
        ssize_t received = read(connection, in + got, RECEIVE_BYTES - got);
        if (received <= 0) fail("the connection was lost");
        got += (size_t)received;
        char *at = in, *end = in + got, *next;
        long number;
        for (;;) {
            if (elements < 0) {
                if (!(next = line(at, end, &number))) break;
                if (*at != '*' || (size_t)number != per_request) fail("the reply is not one row per key");
                elements = number, row = 0, at = next;
            }
            if (elements > 0) {
                if (!(next = line(at, end, &number))) break;
                if (*at != '$' || (size_t)number != row_bytes) fail("a row is not there or not whole");
                if ((size_t)(end - next) < row_bytes + 2) break;
                char *to = matrix + row++ * values_bytes;
                for (int b = 0; b < block_count; b++) {
                    memcpy(to, next + blocks[b].offset, blocks[b].bytes);
                    to += blocks[b].bytes;
                }
                at = next + row_bytes + 2, elements--;
            }
            if (!elements) {
                took[done] = now_us() - began[done];
                done++, elements = -1;
            }
        }
        got = (size_t)(end - at);
        memmove(in, at, got);
    }
    printf("{\"elapsed_s\": %.6f, \"samples_us\": [", (now_us() - start) / 1e6);
    for (size_t i = 0; i < iterations; i++) printf(i ? ", %.3f" : "%.3f", took[i]);
    printf("]}\n");
    return 0;
}
