/* The floor of many reads at once in C: MGETs on one connection, IN_FLIGHT of them under way, the rows' values copied
 * into a float matrix each. No library: one write for all commands that are due, one read for all replies that are there.
 *
 * pipelined HOST:PORT KEYS_FILE KEYS_PER_REQUEST ITERATIONS ROW_BYTES BLOCKS IN_FLIGHT
 *
 * The arguments are those of floor.c. Prints {"elapsed_s": ..., "samples_us": [...]}: how long each request took.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "floor.h"

#define RECEIVE_BYTES (1 << 20)

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

/* A line that starts at `at`: its number, and where the next line starts; NULL when it is not there as a whole. */
static char *line(char *at, char *end, long *number) {
    char *newline = memchr(at, '\n', (size_t)(end - at));
    if (newline) *number = atol(at + 1);
    return newline ? newline + 1 : NULL;
}

int main(int argc, char **argv) {
    if (argc != 8) fail("usage: pipelined HOST:PORT KEYS_FILE KEYS_PER_REQUEST ITERATIONS ROW_BYTES BLOCKS IN_FLIGHT");
    size_t per_request = strtoul(argv[3], NULL, 10), iterations = strtoul(argv[4], NULL, 10);
    size_t row_bytes = strtoul(argv[5], NULL, 10), in_flight = strtoul(argv[7], NULL, 10), values_bytes = 0, bytes_of_keys = 0;
    struct block blocks[MAX_BLOCKS];
    int block_count = read_blocks(argv[6], row_bytes, blocks);
    for (int b = 0; b < block_count; b++) values_bytes += blocks[b].bytes;

    struct keys keys = read_keys(argv[2]);
    if (!per_request || !iterations || !keys.count || keys.count % per_request) fail("the keys are not whole requests");
    for (size_t k = 0; k < keys.count; k++) bytes_of_keys += keys.length[k];
    size_t requests = keys.count / per_request;

    int connection = connect_to(argv[1]);
    size_t most = bytes_of_keys + keys.count * 32 + 64; /* of one command, generously */
    char *out = allocate(in_flight * most), *in = allocate(RECEIVE_BYTES), *matrix = allocate(per_request * values_bytes);
    double *began = allocate(iterations * sizeof(double)), *took = allocate(iterations * sizeof(double)), start = now_us();
    size_t sent = 0, done = 0, got = 0, row = 0;
    long elements = -1;
    while (done < iterations) {
        size_t bytes = 0;
        while (sent < iterations && sent < done + in_flight) {
            began[sent] = now_us();
            bytes += (size_t)sprintf(out + bytes, "*%zu\r\n$4\r\nMGET\r\n", per_request + 1);
            size_t first = sent++ % requests * per_request;
            for (size_t k = first; k < first + per_request; k++) {
                bytes += (size_t)sprintf(out + bytes, "$%zu\r\n", keys.length[k]);
                memcpy(out + bytes, keys.at[k], keys.length[k]);
                memcpy(out + bytes + keys.length[k], "\r\n", 2);
                bytes += keys.length[k] + 2;
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
