/* The floor of a read in C: one MGET over libhiredis, the rows' values copied into a float matrix, nothing else.
 *
 * floor ADDRESS KEYS_FILE KEYS_PER_REQUEST ITERATIONS ROW_BYTES BLOCKS
 *
 *   ADDRESS    unix:PATH or HOST:PORT
 *   KEYS_FILE  keys, each a little-endian u32 length and its bytes; every KEYS_PER_REQUEST of them are one request,
 *              and iteration i sends request i modulo their number
 *   BLOCKS     where a row's float32 values lie: OFFSET:BYTES,OFFSET:BYTES,...
 *
 * Prints {"samples_us": [...], "p50_us": ..., "p99_us": ..., "checksum": ...}; the checksum is the sum of the last matrix.
 */
#include <hiredis/hiredis.h>
#include "floor.h"

#define WARM_UP 100 /* requests before the timed ones */
#define RECEIVE_BYTES (1 << 18) /* libhiredis itself reads 16 KiB at a time: slower for 1,000 rows over TCP */

static redisContext *connect_to(const char *address) {
    redisContext *context;
    if (strncmp(address, "unix:", 5) == 0) {
        context = redisConnectUnix(address + 5);
    } else {
        const char *colon = strrchr(address, ':');
        if (!colon) fail("the address is neither unix:PATH nor HOST:PORT");
        char host[256];
        snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
        context = redisConnect(host, atoi(colon + 1)); /* libhiredis sets TCP_NODELAY itself */
    }
    if (!context || context->err) fail(context ? context->errstr : "out of memory");
    return context;
}

static redisReply *mget(redisContext *context, size_t count, const char **arguments, const size_t *lengths) {
    static char buffer[RECEIVE_BYTES];
    int sent = 0;
    void *reply = NULL;
    if (redisAppendCommandArgv(context, (int)count, arguments, lengths) != REDIS_OK) fail(context->errstr);
    while (!sent) {
        if (redisBufferWrite(context, &sent) != REDIS_OK) fail(context->errstr);
    }
    while (!reply) {
        ssize_t received = read(context->fd, buffer, sizeof buffer);
        if (received <= 0) fail("the connection was lost");
        if (redisReaderFeed(context->reader, buffer, (size_t)received) != REDIS_OK) fail(context->reader->errstr);
        if (redisReaderGetReply(context->reader, &reply) != REDIS_OK) fail(context->reader->errstr);
    }
    return reply;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 7) fail("usage: floor ADDRESS KEYS_FILE KEYS_PER_REQUEST ITERATIONS ROW_BYTES BLOCKS");
    size_t per_request = strtoul(argv[3], NULL, 10), iterations = strtoul(argv[4], NULL, 10);
    size_t row_bytes = strtoul(argv[5], NULL, 10), values_bytes = 0;
    struct block blocks[MAX_BLOCKS];
    int block_count = read_blocks(argv[6], row_bytes, blocks);
    for (int b = 0; b < block_count; b++) values_bytes += blocks[b].bytes;

    struct keys keys = read_keys(argv[2]);
    if (!per_request || !iterations || !keys.count || keys.count % per_request) fail("the keys are not whole requests");
    size_t requests = keys.count / per_request;

    redisContext *context = connect_to(argv[1]);
    char *matrix = allocate(per_request * values_bytes);
    double *samples = allocate(iterations * sizeof(double));
    const char **arguments = allocate((per_request + 1) * sizeof(char *));
    size_t *lengths = allocate((per_request + 1) * sizeof(size_t));
    arguments[0] = "MGET";
    lengths[0] = 4;

    for (size_t i = 0; i < WARM_UP + iterations; i++) {
        double start = now_us();
        size_t first = i % requests * per_request;
        memcpy(arguments + 1, keys.at + first, per_request * sizeof(char *));
        memcpy(lengths + 1, keys.length + first, per_request * sizeof(size_t));
        redisReply *reply = mget(context, per_request + 1, arguments, lengths);
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != per_request) fail("the reply is not one row per key");
        char *out = matrix;
        for (size_t k = 0; k < per_request; k++) {
            const redisReply *row = reply->element[k];
            if (row->type != REDIS_REPLY_STRING || (size_t)row->len != row_bytes) fail("a row is not there or not whole");
            for (int b = 0; b < block_count; b++) {
                memcpy(out, row->str + blocks[b].offset, blocks[b].bytes);
                out += blocks[b].bytes;
            }
        }
        freeReplyObject(reply);
        double took = now_us() - start;
        if (i >= WARM_UP) samples[i - WARM_UP] = took;
    }

    double checksum = 0;
    for (size_t v = 0; v < per_request * values_bytes / sizeof(float); v++) {
        float value;
        memcpy(&value, matrix + v * sizeof(float), sizeof value);
        checksum += value;
    }
    printf("{\"samples_us\": [");
    for (size_t i = 0; i < iterations; i++) printf(i ? ", %.3f" : "%.3f", samples[i]);
    qsort(samples, iterations, sizeof(double), by_value);
    size_t p99 = iterations * 99 / 100;
    printf("], \"p50_us\": %.3f, \"p99_us\": %.3f, \"checksum\": %.9g}\n", samples[iterations / 2], samples[p99], checksum);
    redisFree(context);
    return 0;
}
