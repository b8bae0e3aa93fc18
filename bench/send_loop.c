/* What a fan-out cannot do without: read what a publisher sends, and send(2) the same bytes to each reader in turn.
 *
 * It parses nothing, counts nothing, remembers nothing and waits for whoever does not read. A connection that says
 * "S\n" first is a reader, and is answered "\n"; what others say goes to all readers. One event comes and goes
 * alone where a pace is kept; flat out, as much of them as one recv(2) of 64 KiB gives.
 *
 *     cc -O2 -o send_loop send_loop.c && ./send_loop PORT
 */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, PIECE = 65536, EVENTS = 256 };

enum role { UNKNOWN, READER, PUBLISHER };

static int readers[MOST], count;
static enum role roles[MOST];
static char piece[PIECE];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void forget(int connection) {
    for (int i = 0; i < count; i++)
        if (readers[i] == connection)
            readers[i--] = readers[--count];
    roles[connection] = UNKNOWN;
    close(connection);
}

/* All of it, or nothing more where the reader has gone: its end is noticed by epoll. */
static void send_all(int connection, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(connection, data, size, MSG_NOSIGNAL);
        if (sent < 0)
            return;
        data += sent;
        size -= sent;
    }
}

static void take(int connection) {
    ssize_t size = recv(connection, piece, PIECE, 0);
    if (size <= 0) {
        forget(connection);
    } else if (roles[connection] != PUBLISHER && piece[0] == 'S') {
        if (roles[connection] == UNKNOWN)
            readers[count++] = connection;
        roles[connection] = READER;
        send_all(connection, "\n", 1);
    } else {
        roles[connection] = PUBLISHER;
        for (int i = 0; i < count; i++)
            send_all(readers[i], piece, size);
    }
}

static void watch(int poll, int connection) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = connection};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, connection, &event) < 0)
        fail("epoll_ctl");
}

static int listening(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0)
        fail("cannot listen");
    return listener;
}

int main(int arguments, char **argument) {
    if (arguments != 2)
        return fprintf(stderr, "usage: send_loop PORT\n"), 2;
    int listener = listening(atoi(argument[1])), poll = epoll_create1(0), on = 1;
    struct epoll_event events[EVENTS];
    watch(poll, listener);
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd != listener) {
                take(events[i].data.fd);
                continue;
            }
            int connection = accept(listener, NULL, NULL);
            if (connection < 0 || connection >= MOST)
                fail("accept");
            setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            watch(poll, connection);
        }
    }
}
