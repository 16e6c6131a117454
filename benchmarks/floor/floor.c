/* The floor: one raw send() per delivery, nothing else. No server that does not batch goes below.
 *
 * floor PORT CONNECTIONS FRAME_BYTES PUBLISHES_PER_SECOND
 * Accepts CONNECTIONS on loopback, then sends the same WebSocket text frame to each of them, at the
 * given pace (absolute times, so it does not drift) or flat out when that is 0. Ends when a peer
 * leaves. Sends block: waiting for a slow reader costs no CPU.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { HEADER = 4, MARK_AND_DIGITS = 9 };

static int listening_socket(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) {
        perror("the floor cannot listen");
        exit(1);
    }
    return fd;
}

static char *make_frame(size_t size) {
    char *frame = malloc(size);
    memset(frame, 'x', size);
    frame[0] = (char)0x81;
    frame[1] = 126;
    frame[2] = (char)((size - HEADER) >> 8);
    frame[3] = (char)((size - HEADER) & 0xff);
    memcpy(frame + HEADER, "^00000001", MARK_AND_DIGITS);
    return frame;
}

static void sleep_until(struct timespec *next, long nanoseconds) {
    next->tv_nsec += nanoseconds;
    while (next->tv_nsec >= 1000000000L) {
        next->tv_nsec -= 1000000000L;
        next->tv_sec++;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fputs("usage: floor PORT CONNECTIONS FRAME_BYTES PUBLISHES_PER_SECOND\n", stderr);
        return 64;
    }
    int count = atoi(argv[2]), on = 1, rate = atoi(argv[4]);
    size_t size = (size_t)atoi(argv[3]);
    int listener = listening_socket(atoi(argv[1])), *peers = calloc((size_t)count, sizeof *peers);
    char *frame = make_frame(size);

    for (int i = 0; i < count; i++) {
        peers[i] = accept(listener, NULL, NULL);
        setsockopt(peers[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (;;) {
        for (int i = 0; i < count; i++)
            if (send(peers[i], frame, size, MSG_NOSIGNAL) < 0) return 0;
        if (rate > 0) sleep_until(&next, 1000000000L / rate);
    }
}
