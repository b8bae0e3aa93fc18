/* Load generator for pairs of a publisher and a reader. It knows no protocol: it sends prepared frames, and finds the
 * payloads in what arrives. C, because a generator in Python takes longer for one event than most servers.
 *
 * Closed loop: each publisher sends one packet of EVENTS frames with one send(2), and the next one when its reader has
 * received all of them and, with a REPLY mark, all replies have arrived. Pairs do not wait for each other.
 *
 *     pump FRAMES PAIRS CYCLE FRAME_SIZE PAYLOADS PAYLOAD_SIZE EVENTS SECONDS REPLY < pairs
 *
 * FRAMES and PAYLOADS are files with CYCLE entries of one size for each of the PAIRS, repeated when all are sent.
 * Standard input has a line for each pair with the inherited descriptors of publisher and reader. REPLY can be empty.
 *
 * Each payload must arrive unchanged, once, in order, and at its own reader. Prints deliveries, seconds and the CPU
 * seconds of this process. Otherwise it prints what is wrong to standard error, and exits with 1.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

enum { PIECE = 1 << 18, READY = 256, MAX_REST = 1 << 16 };

static const char MARK[] = "(#)";
static const size_t MARK_SIZE = sizeof MARK - 1;

/* Seconds without any data after which the load has failed, and seconds to wait for repeated deliveries at the end. */
static const double STALLED = 30, AFTERWARDS = 0.05;

struct end {
    int pair, is_reader, descriptor;
    long count; /* deliveries or replies */
    size_t rest;
    char *kept; /* the beginning of a payload or mark at the end of the last piece */
};

static long published, pairs, cycle, events;
static size_t frame_size, payload_size, reply_size;
static const char *frames, *payloads, *reply;
static struct end *ends;
static long *sent;
static char piece[MAX_REST + PIECE];

static void fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    exit(1);
}

static double seconds_of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static const char *mapped(const char *name, size_t size) {
    int file = open(name, O_RDONLY);
    void *found = file < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (found == MAP_FAILED)
        fail("%s: %s", name, strerror(errno));
    return found;
}

static void publish(long pair) {
    const char *data = frames + (pair * cycle + sent[pair] % cycle) * frame_size;
    size_t left = events * frame_size;
    while (left) {
        ssize_t size = send(ends[2 * pair].descriptor, data, left, MSG_NOSIGNAL);
        if (size < 0) /* a packet fits into an empty socket buffer */
            fail("publisher %ld: send: %s", pair, strerror(errno));
        data += size;
        left -= size;
    }
    sent[pair] += events;
    published += events;
}

/* Count payloads, and compare each. Returns where the unfinished rest begins. */
static const char *deliveries(struct end *end, const char *data, const char *stop) {
    while ((data = memchr(data, MARK[0], stop - data))) {
        const char *expected = payloads + (end->pair * cycle + end->count % cycle) * payload_size;
        size_t size = stop - data < (ssize_t)payload_size ? (size_t)(stop - data) : payload_size;
        if (memcmp(data, MARK, size < MARK_SIZE ? size : MARK_SIZE)) {
            data++;
            continue;
        }
        if (end->count == sent[end->pair])
            fail("reader %d: received more than was published: %.*s", end->pair, (int)size, data);
        if (memcmp(data, expected, size))
            fail("reader %d: after %ld deliveries, expected %.*s, received %.*s", end->pair, end->count, (int)size,
                 expected, (int)size, data);
        if (size < payload_size)
            return data;
        end->count++;
        data += payload_size;
    }
    return stop;
}

static const char *replies(struct end *end, const char *data, const char *stop) {
    const char *found;
    if (!reply_size)
        return stop;
    while ((found = memmem(data, stop - data, reply, reply_size))) {
        if (++end->count > sent[end->pair])
            fail("publisher %d: received more replies than it has published", end->pair);
        data = found + reply_size;
    }
    return stop - data < (ssize_t)reply_size ? data : stop - reply_size + 1;
}

static void receive(struct end *end) {
    memcpy(piece, end->kept, end->rest);
    ssize_t size = recv(end->descriptor, piece + end->rest, PIECE, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0)
        fail("%s %d: the server closed the connection after %ld events", end->is_reader ? "reader" : "publisher",
             end->pair, sent[end->pair]);
    const char *stop = piece + end->rest + size;
    const char *rest = end->is_reader ? deliveries(end, piece, stop) : replies(end, piece, stop);
    end->rest = stop - rest;
    memcpy(end->kept, rest, end->rest);
}

static int is_done(long pair) {
    return ends[2 * pair + 1].count == sent[pair] && (!reply_size || ends[2 * pair].count == sent[pair]);
}

/* Receive once. Returns the number of connections that had data; calls publish if ``more``. */
static int step(int poll, double timeout, int more) {
    struct epoll_event ready[READY];
    int count = epoll_wait(poll, ready, READY, timeout * 1e3);
    for (int i = 0; i < count; i++) {
        struct end *end = &ends[ready[i].data.u32];
        int was_done = is_done(end->pair);
        receive(end);
        if (more && !was_done && is_done(end->pair))
            publish(end->pair);
    }
    return count;
}

int main(int count, char **argument) {
    if (count != 10)
        fail("usage: pump FRAMES PAIRS CYCLE FRAME_SIZE PAYLOADS PAYLOAD_SIZE EVENTS SECONDS REPLY < pairs");
    pairs = atol(argument[2]), cycle = atol(argument[3]), events = atol(argument[7]);
    frame_size = atol(argument[4]), payload_size = atol(argument[6]);
    double seconds = atof(argument[8]);
    reply = argument[9], reply_size = strlen(reply);
    if (pairs < 1 || events < 1 || cycle % events || payload_size < MARK_SIZE || payload_size > MAX_REST)
        fail("CYCLE must be a multiple of EVENTS, and PAYLOAD_SIZE at most %d", MAX_REST);
    frames = mapped(argument[1], pairs * cycle * frame_size);
    payloads = mapped(argument[5], pairs * cycle * payload_size);
    ends = calloc(2 * pairs, sizeof *ends), sent = calloc(pairs, sizeof *sent);

    int poll = epoll_create1(0);
    for (long i = 0; i < 2 * pairs; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        ends[i] = (struct end){.pair = i / 2, .is_reader = i % 2, .kept = malloc(payload_size + reply_size)};
        if (scanf("%d", &ends[i].descriptor) != 1)
            fail("expected %ld descriptors", 2 * pairs);
        fcntl(ends[i].descriptor, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, ends[i].descriptor, &event) < 0)
            fail("descriptor %d: %s", ends[i].descriptor, strerror(errno));
    }

    double start = seconds_of(CLOCK_MONOTONIC), busy = seconds_of(CLOCK_PROCESS_CPUTIME_ID), end = start + seconds;
    for (long pair = 0; pair < pairs; pair++)
        publish(pair);
    while (seconds_of(CLOCK_MONOTONIC) < end)
        if (!step(poll, STALLED, 1))
            fail("no data for %.0f seconds", STALLED);
    for (long pair = 0; pair < pairs; pair++)
        while (!is_done(pair))
            if (!step(poll, STALLED, 0))
                fail("no data for %.0f seconds, reader %ld has %ld of %ld", STALLED, pair, ends[2 * pair + 1].count,
                     sent[pair]);
    double taken = seconds_of(CLOCK_MONOTONIC) - start;
    busy = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - busy;
    while (step(poll, AFTERWARDS, 0))
        ;
    printf("%ld %.6f %.6f\n", published, taken, busy);
}
