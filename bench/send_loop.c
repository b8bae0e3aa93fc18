/* What no relay can do without: read what a publisher sends, and send(2) the same bytes to each reader of its channel.
 *
 * It parses nothing, counts nothing, keeps nothing, and waits for readers that do not read. A connection that begins
 * with "S name\n" reads that channel, and is answered "\n". A connection that begins with "A\n" is a publisher that is
 * answered "+" for each recv(2). Other data is sent to the readers of the channel whose name it contains: the first
 * data after a subscription decides that.
 *
 *     cc -O2 -o send_loop send_loop.c && ./send_loop PORT
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, PIECE = 65536, EVENTS = 256, NAME = 64 };

struct connection {
    int channel;  /* that it reads, or publishes to; 0 is none */
    int next;     /* the next reader of the channel, or 0 */
    int is_reader, wants_reply;
    int looked; /* value of ``subscriptions`` when a publisher's channel was looked up */
};

static struct connection connections[MOST];
static struct { char name[NAME]; int first; } channels[MOST];
static int channel_count, subscriptions;
static char piece[PIECE + 1];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void leave(int reader) {
    int *place = &channels[connections[reader].channel].first;
    while (*place && *place != reader)
        place = &connections[*place].next;
    if (*place)
        *place = connections[reader].next;
}

static void forget(int connection) {
    if (connections[connection].is_reader)
        leave(connection);
    memset(&connections[connection], 0, sizeof connections[connection]);
    close(connection);
}

/* All of it. If the reader has disconnected, epoll reports that. */
static void send_all(int connection, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(connection, data, size, MSG_NOSIGNAL);
        if (sent < 0)
            return;
        data += sent;
        size -= sent;
    }
}

static void subscribe(int reader, const char *name) {
    int channel = channel_count;
    while (channel && strcmp(channels[channel].name, name))
        channel--;
    if (!channel) {
        if (channel_count == MOST - 1 || strlen(name) >= NAME)
            fail("too many channels, or too long a name");
        strcpy(channels[channel = ++channel_count].name, name);
    }
    if (connections[reader].is_reader)
        leave(reader);
    connections[reader].is_reader = 1;
    connections[reader].channel = channel;
    connections[reader].next = channels[channel].first;
    channels[channel].first = reader;
    subscriptions++;
    send_all(reader, "\n", 1);
}

static void receive(int connection) {
    struct connection *one = &connections[connection];
    ssize_t size = recv(connection, piece, PIECE, 0);
    if (size <= 0) {
        forget(connection);
        return;
    }
    if (!strncmp(piece, "S ", 2)) {
        *(char *)memchr(piece, '\n', size) = 0;
        subscribe(connection, piece + 2);
    } else if (!strncmp(piece, "A\n", 2)) {
        one->wants_reply = 1;
        send_all(connection, "\n", 1);
    } else {
        if (one->looked != subscriptions) {
            one->looked = subscriptions;
            one->channel = channel_count; /* the newest is the most likely one */
            while (one->channel &&
                   !memmem(piece, size, channels[one->channel].name, strlen(channels[one->channel].name)))
                one->channel--;
        }
        for (int reader = channels[one->channel].first; reader; reader = connections[reader].next)
            send_all(reader, piece, size);
        if (one->wants_reply)
            send_all(connection, "+", 1);
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
                receive(events[i].data.fd);
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
